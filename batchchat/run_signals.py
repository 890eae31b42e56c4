"""Signals of a run: the first drains it, the second ends it."""

import asyncio
import signal
from collections.abc import Callable
from typing import Literal

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
        self._handled: list[int] = []

    def __enter__(self) -> "RunSignals":
        loop = asyncio.get_running_loop()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # A run under nohup ignores SIGHUP and goes on ignoring it.
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                loop.add_signal_handler(number, self._received, number)
            except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
                continue
            self._handled.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._handled:
            loop.remove_signal_handler(number)

    def _received(self, number: int) -> None:
        self._seen += 1
        if self._seen == 1:
            self._first("interrupted" if number == signal.SIGINT else "terminated")
        else:
            self._second()
