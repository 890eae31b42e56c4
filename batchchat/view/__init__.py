"""A run's results as a local web page: live figures, a table that is searched and sorted, two files side by side."""

__all__: list[str] = []
