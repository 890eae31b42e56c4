"""Results in an object store: a run writes a local mirror; its new lines go up as they come, the whole at the end."""

__all__: list[str] = []
