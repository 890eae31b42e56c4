"""Signals of a run: the first drains it, the second ends it."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Literal

__all__ = ["RunSignals"]


class RunSignals:
    """SIGINT, SIGTERM and SIGHUP, handled on the event loop while entered.

    Args:
        first: Called at the first signal with what it was.
        second: Called at every further one.
    """

    def __init__(
        self, first: Callable[[Literal["interrupted", "terminated"]], None], second: Callable[[], None]
    ) -> None:
        self._first, self._second = first, second
        self._seen = 0
        self._loop = asyncio.get_running_loop()
        self._handled: list[int] = []
        self._replaced: list[tuple[int, Any]] = []

    def __enter__(self) -> "RunSignals":
        loop = asyncio.get_running_loop()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # A run under nohup ignores SIGHUP and goes on ignoring it.
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                loop.add_signal_handler(number, self._received, number)
                self._handled.append(number)
            except NotImplementedError:  # Windows
                self._replaced.append((number, signal.signal(number, self._from_outside)))
            except (RuntimeError, ValueError):  # not the main thread
                continue
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._handled:
            loop.remove_signal_handler(number)
        for number, before in self._replaced:
            signal.signal(number, before)

    def _from_outside(self, number: int, frame: object) -> None:
        """A handler that may run between any two instructions: it only wakes the loop."""
        self._loop.call_soon_threadsafe(self._received, number)

    def _received(self, number: int) -> None:
        self._seen += 1
        if self._seen == 1:
            self._first("interrupted" if number == signal.SIGINT else "terminated")
        else:
            self._second()
