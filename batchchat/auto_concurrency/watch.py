"""Tells the control of every request of a run: when it went out, beside how many, and what came of it."""

import asyncio
import time
from typing import Any, Final

from batchchat.auto_concurrency.ceiling import Sent
from batchchat.auto_concurrency.control import ConcurrencyControl
from batchchat.errors import ProviderError
from batchchat.life import Life
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion
from batchchat.worker import Attempt

__all__ = ["ConcurrencyWatch"]

# Busy, or too slow for whoever stands before it; 529 is some services' own word for overloaded.
_BUSY: Final = frozenset((429, 503, 504, 529))


class ConcurrencyWatch:
    """Stands at the door, where requests go out, and around attempts, where it is known what came of them."""

    def __init__(self, control: ConcurrencyControl) -> None:
        self._control = control
        self._requests: dict[asyncio.Task[Any], Sent] = {}
        self._attempting: set[asyncio.Task[Any]] = set()
        self._over: dict[asyncio.Task[Any], float] = {}

    def begin(self, task: asyncio.Task[Any]) -> None:
        """See ``WireWatch``."""
        self._forget(task)  # a nonce's request, or one that was redirected
        self._requests[task] = self._control.begin(time.monotonic())

    def sent(self, task: asyncio.Task[Any]) -> None:
        """See ``WireWatch``."""
        if (request := self._requests.get(task)) is not None:
            request.at = time.monotonic()  # the time that a connection took is not the service's

    def left(self, task: asyncio.Task[Any]) -> None:
        """See ``WireWatch``."""
        if task in self._attempting:
            self._over[task] = time.monotonic()
        else:  # a nonce, or a second attempt beside a slow one
            self._forget(task)

    def around(self, attempt: Attempt) -> Attempt:
        """The same attempt, whose end is told."""

        async def watched(request: ChatRequest, life: Life) -> Completion:
            task = asyncio.current_task()
            if task is None:
                raise RuntimeError("an attempt without a running task")
            self._attempting.add(task)
            try:
                completion = await attempt(request, life)
                self._answered(task)
                return completion
            except ProviderError as error:
                self._failed(task, error)
                raise
            finally:
                self._attempting.discard(task)
                self._forget(task)

        return watched

    def _answered(self, task: asyncio.Task[Any]) -> None:
        if (request := self._requests.pop(task, None)) is not None:
            self._control.answered(request, self._over.pop(task, time.monotonic()))

    def _failed(self, task: asyncio.Task[Any], error: ProviderError) -> None:
        if error.stops_run or not (error.type in ("rate_limit", "timeout") or error.status in _BUSY):
            return
        if (request := self._requests.pop(task, None)) is not None:
            self._control.refused(request, time.monotonic(), pause_s=error.retry_after_s)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._over.pop(task, None)
        if (request := self._requests.pop(task, None)) is not None:
            self._control.forget(request)
