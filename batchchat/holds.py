"""Why a run sends nothing at the moment, which few requests go out all the same, and how long it was held."""

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["Holds"]

_PASSABLE = frozenset(("breaker",))


class Holds:
    """Words that hold a run up; nothing goes out while there is any.

    Passes let single requests through the hold of the breaker, and of nothing else.
    """

    __slots__ = ("_began_at", "_held_s", "_out", "_waiting", "passes", "words")

    def __init__(self) -> None:
        self.words: dict[str, float] = {}  # each with the loop time since when
        self.passes = 0
        self._out: set[Any] = set()
        self._waiting: list[Callable[[], None]] = []
        self._held_s = self._began_at = 0.0

    def add(self, why: str) -> None:
        """Holds for one more reason."""
        now = asyncio.get_running_loop().time()
        if not self.words:
            self._began_at = now
        self.words.setdefault(why, now)

    def discard(self, why: str) -> None:
        """Ends one reason; one that is not there is fine."""
        if why in self.words:
            del self.words[why]
            if not self.words:
                self._held_s += asyncio.get_running_loop().time() - self._began_at
                waiting, self._waiting = self._waiting, []
                for callback in waiting:
                    callback()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls once, at the end of the last hold."""
        self._waiting.append(callback)

    @property
    def blocks(self) -> bool:
        """Whether nothing may go out now, not even with a pass."""
        return bool(self.words) and not (self.passes and self.words.keys() == _PASSABLE)

    def lets(self, send: Any = None) -> bool:
        """Whether this request may go out now: nothing holds it, or it has a pass, or there is one for it."""
        return not self.blocks or (send in self._out and self.words.keys() == _PASSABLE)

    @property
    def held_s(self) -> float:
        """Seconds that the run was held up so far."""
        return self._held_s + (asyncio.get_running_loop().time() - self._began_at if self.words else 0.0)

    @property
    def passes_out(self) -> int:
        """Requests that went out with a pass and are not over."""
        return len(self._out)

    def take_pass(self, send: Any) -> None:
        """The request goes out with a pass, if the run is held; with the one that it has, where it has one."""
        if self.words and send not in self._out:
            self.passes -= 1
            self._out.add(send)

    def left(self, send: Any, *, give_back: bool = False) -> None:
        """The request is over; ``give_back`` lets another one out in its place."""
        if self._out and send in self._out:
            self._out.discard(send)
            self.passes += give_back and bool(self.words)
