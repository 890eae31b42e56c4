"""Finds out that a child does not run any more: a stopped process keeps no time limit itself."""

import asyncio
from collections.abc import Callable

__all__ = ["SilenceWatch"]

# How long a child that has been silent for a whole attempt's time may take to say that it runs.
_ECHO_S = 10.0
# A timer that is so late tells that this process was stopped as well; what the child said meanwhile is unread.
_LATE_S = 1.0


class SilenceWatch:
    """Asks a child that has work and says nothing whether it is there.

    Args:
        limit_s: Seconds of silence before it is asked: the time that one attempt may take; 0 for never.
        at_work: Whether the child has anything to do.
        ask: Asks it for a sign of life.
        stuck: Called when it gives none.

    Attributes:
        heard_at: Loop time when the child said anything.
    """

    def __init__(
        self, limit_s: float, *, at_work: Callable[[], bool], ask: Callable[[], None], stuck: Callable[[], None]
    ) -> None:
        self._limit_s, self._at_work, self._ask, self._stuck = limit_s, at_work, ask, stuck
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at: float | None = None
        self.heard_at = 0.0

    def begin(self) -> None:
        """The child has something to do."""
        if self._timer is None and self._limit_s:
            self.heard_at, self._asked_at = self._loop.time(), None
            self._arm(self._limit_s)

    def end(self) -> None:
        """Watches no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, wait_s: float) -> None:
        due = self._loop.time() + wait_s
        self._timer = self._loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        self._timer, now = None, self._loop.time()
        if not self._at_work():
            return
        if now - due > _LATE_S:
            self._arm(_ECHO_S)
        elif self._asked_at is not None and self.heard_at < self._asked_at:
            self._stuck()
        elif now < self.heard_at + self._limit_s:
            self._asked_at = None
            self._arm(self.heard_at + self._limit_s - now)
        else:
            self._asked_at = now
            self._ask()
            self._arm(_ECHO_S)
