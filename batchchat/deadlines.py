"""Many time limits with one timer: what is told of one limit in ``patience``, at the cost of two entries in a dict."""

import asyncio
from types import TracebackType
from typing import Any

from batchchat.patience import HELD_UP_S, LOOKS, MOST_CATCHING_UP_S

__all__ = ["Deadlines", "Limit"]

_NEVER = float("inf")


class Deadlines:
    """The limits of everything that waits for the network in one loop.

    Most waits end long before their limit, so limits are not timers: one timer stands at the earliest of them, and
    moves on when it fires.

    Attributes:
        loop: Whose time it is.
    """

    __slots__ = ("_limits", "_timer", "_timer_at", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._limits: dict[Limit, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def until(self, due: float | None, task: asyncio.Task[Any] | None = None) -> "Limit":
        """A time limit for the body of a ``with``; see ``PatientTimeout``.

        Args:
            due: Loop time; None for no limit.
            task: The task that runs the body, where that is known already.
        """
        return Limit(self, _NEVER if due is None else due, task)

    def close(self) -> None:
        """Stops the timer; limits that are still under way do not end any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, _NEVER

    def _add(self, limit: "Limit") -> None:
        limit.armed_at = self.loop.time()
        self._limits[limit] = None
        if limit.due < self._timer_at:
            self._arm(limit.due)

    def _discard(self, limit: "Limit") -> None:
        del self._limits[limit]

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.loop.call_at(due, self._fire)

    def _fire(self) -> None:
        """Looks after the limits that are due, and moves on to the earliest of the others."""
        now = max(self.loop.time(), self._timer_at)  # a timer may fire within the clock's resolution of its time
        self._timer, self._timer_at = None, _NEVER
        earliest = _NEVER
        for limit in self._limits:
            if limit.due <= now:
                self._end(limit, now)
            earliest = min(earliest, limit.due)
        if earliest < _NEVER:
            self._arm(earliest)

    def _end(self, limit: "Limit", now: float) -> None:
        late_s = now - max(limit.due, limit.armed_at)
        if late_s < HELD_UP_S:
            limit.due = _NEVER
            self._look(limit, LOOKS)
        else:
            again = now + min(late_s, MOST_CATCHING_UP_S)
            limit.held_s += again - limit.due
            limit.due = again

    def _look(self, limit: "Limit", left: int) -> None:
        """Lets passes of the loop take what has come, before the wait is ended."""
        if limit not in self._limits:
            return
        if left:
            self.loop.call_soon(self._look, limit, left - 1)
        else:
            limit.end()


class Limit:
    """The limit of one wait: a ``with`` block that raises ``TimeoutError`` where it is over.

    Attributes:
        due: Loop time at which the body is ended.
        armed_at: Loop time at which the body began.
        held_s: Seconds by which ``due`` was put off.
        expired: Whether the limit ended the body.
    """

    __slots__ = ("_cancelling", "_deadlines", "_task", "armed_at", "due", "expired", "held_s")

    def __init__(self, deadlines: Deadlines, due: float, task: asyncio.Task[Any] | None) -> None:
        self._deadlines, self.due, self._task = deadlines, due, task
        self.armed_at = self.held_s = 0.0
        self.expired = False

    def __enter__(self) -> "Limit":
        task = self._task = self._task or asyncio.current_task()
        if task is None:
            raise RuntimeError("a limit needs a task that it can end")
        self._cancelling = task.cancelling()
        self._deadlines._add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines._discard(self)
        if self.expired and self._task is not None:
            left = self._task.uncancel()
            if left <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def end(self) -> None:
        """Ends the body."""
        if self._task is not None:
            self.expired = True
            self._task.cancel()
