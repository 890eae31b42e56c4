"""A running job answers from another shell: a socket of its user's, and what is asked through it."""

__all__: list[str] = []
