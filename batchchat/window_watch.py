"""Holds a run up outside its windows of the day, and lets it go on by itself."""

import asyncio
import time
from collections.abc import Callable
from typing import Self

from batchchat.day_window import DayWindows
from batchchat.limits import Limiter
from batchchat.observer import HoldObserver

__all__ = ["WindowWatch"]

_WORD = "window"
# The loop's clock knows nothing of a wall clock that is set or of a machine that sleeps, so that a timer to the next
# opening alone could be hours off. What such a moment costs is bounded by looking again this often.
_LOOK_AGAIN_S = 10.0


class WindowWatch:
    """One timer, to the next opening or closing; entered for as long as the run may send.

    Args:
        windows: When requests may go out; None for any time.
        clock: Unix time by the wall clock.
    """

    def __init__(
        self,
        windows: DayWindows | None,
        limiter: Limiter,
        observer: HoldObserver,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._windows, self._limiter, self._observer, self._clock = windows, limiter, observer, clock
        self._timer: asyncio.TimerHandle | None = None
        self._told: float | None = None

    async def __aenter__(self) -> Self:
        if self._windows is not None:
            self._look(self._windows)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, windows: DayWindows) -> None:
        now = self._clock()
        opens_at = windows.opens_at(now)
        if opens_at > now:
            change_at: float | None = opens_at
            self._hold(windows, opens_at, now)
        else:
            change_at = windows.closes_at(now)
            self._release(windows, change_at, now)
        wait_s = _LOOK_AGAIN_S if change_at is None else min(_LOOK_AGAIN_S, max(0.001, change_at - now))
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._look, windows)

    def _hold(self, windows: DayWindows, opens_at: float, now: float) -> None:
        self._limiter.hold(_WORD)
        if opens_at == self._told:
            return
        self._told = opens_at
        until = windows.render(opens_at, now)
        self._observer.run_held(_WORD, f"waiting until {until} (--window)")
        self._observer.notice(
            f"nothing new is sent until {until}: it is outside the window {windows}; what is on the wire may finish", 0
        )

    def _release(self, windows: DayWindows, closes_at: float | None, now: float) -> None:
        if _WORD not in self._limiter.holds:
            return
        self._limiter.release(_WORD)
        self._told = None
        self._observer.run_held(_WORD, None)
        until = "" if closes_at is None else f" until {windows.render(closes_at, now)}"
        self._observer.notice(f"the window is open{until}; going on", 0)
