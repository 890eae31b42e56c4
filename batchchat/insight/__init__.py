"""The figures of a run, read from its files: counts, times, failures, plots; for ``report`` and ``view``."""

__all__: list[str] = []
