"""What the processes of a run say to the user: once, where several say what every run is told of."""

from collections.abc import Callable
from functools import partial

__all__ = ["Notices"]


class Notices:
    """Passes sentences on.

    Args:
        tell: See ``ProviderContext.notice``.
    """

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        self.tell = tell
        self._told: dict[str, int] = {}

    def of(self, number: int) -> Callable[[str, int], None]:
        """What process ``number`` says to the user."""
        return partial(self.tell_of, number)

    def tell_of(self, number: int, sentence: str, level: int) -> None:
        """Passes on what a process says."""
        if level == 0 and self._told.setdefault(sentence, number) != number:
            return
        self.tell(sentence, level)
