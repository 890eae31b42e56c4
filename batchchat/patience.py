"""A time limit that counts only while this process runs: a stopped process must not throw away what came meanwhile."""

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["HELD_UP_S", "LOOKS", "MOST_CATCHING_UP_S", "PatientTimeout"]

# A timer that fires so much later than it was due tells of a process that was stopped or starved.
HELD_UP_S = 0.05
MOST_CATCHING_UP_S = 5.0
# Passes of the loop between a limit's end and giving up: one polls the network, one hands on what has come,
# one wakes the task that waits for it.
LOOKS = 3


class PatientTimeout:
    """As ``asyncio.timeout_at``, but what has arrived by the end is taken, and time held up does not count.

    After SIGSTOP, a suspended machine or a starved processor the timers are due before the network has been looked
    at. Such a limit is put off by the time of the hold-up, which leaves at most 5 s more to read what is there.

    Args:
        due: Loop time at which the body is ended; None for no limit.

    Attributes:
        held_s: Seconds by which ``due`` was put off.
    """

    __slots__ = ("_armed_at", "_due", "_handle", "_loop", "_timeout", "held_s")

    def __init__(self, due: float | None) -> None:
        self._due, self._armed_at, self.held_s = due, 0.0, 0.0
        self._handle: asyncio.Handle | None = None
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self.reschedule(self._due)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def expired(self) -> bool:
        """Whether the limit ended the body."""
        return self._timeout.expired()

    def reschedule(self, due: float | None) -> None:
        """Moves the limit, within the body."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._due = due
        if due is not None:
            self._armed_at = self._loop.time()
            self._handle = self._loop.call_at(due, self._fire, due)

    def _fire(self, due: float) -> None:
        now = self._loop.time()
        late_s = now - max(due, self._armed_at)
        if late_s < HELD_UP_S:
            self._look(LOOKS)
            return
        again = now + min(late_s, MOST_CATCHING_UP_S)
        self.held_s += again - due
        self.reschedule(again)

    def _look(self, left: int) -> None:
        if left:
            self._handle = self._loop.call_soon(self._look, left - 1)
        else:
            self._timeout.reschedule(self._loop.time())
