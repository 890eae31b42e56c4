"""An event loop whose clock jumps to the next timer: hours of pacing run in milliseconds, and exactly."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: "VirtualLoop") -> None:
        super().__init__()
        self._virtual = loop

    def select(self, timeout: float | None = None):
        self._virtual.now += 1e-9  # as on a real machine, no two moments are the same
        if timeout:
            late_s = self._virtual.late_s
            self._virtual.now += timeout + (late_s if isinstance(late_s, float) else late_s())
            timeout = 0
        return super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers fire ``late_s`` seconds late, as real ones do; a function is asked each time."""

    def __init__(self, late_s: float | Callable[[], float] = 0.0) -> None:
        self.now, self.late_s = 1000.0, late_s
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


def run_virtual(main: Coroutine[Any, Any, T], *, late_s: float | Callable[[], float] = 0.0) -> T:
    """Runs ``main`` to its end in virtual time."""
    loop = VirtualLoop(late_s)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
