"""What a task's next attempt should know of its last, wherever that was made."""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from batchchat.providers.base import ChatRequest

__all__ = ["Places"]


class Places:
    """Where the last attempts of tasks failed, for all processes of a run.

    Attributes:
        deadly: Tasks with an attempt that a process had when it died.
    """

    def __init__(self) -> None:
        self._failed: WeakKeyDictionary[asyncio.Task[Any], tuple[ChatRequest, int]] = WeakKeyDictionary()
        self.deadly: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._any = False  # asking a dictionary of weak references whether it is empty costs as much as all else here

    def keep(self, task: "asyncio.Task[Any] | None", request: ChatRequest, place: int | None) -> None:
        """The task's attempt failed at this one of several endpoints; None where there is one."""
        if place is not None and task is not None:
            self._failed[task] = (request, place)
            self._any = True

    def take(self, task: "asyncio.Task[Any] | None", request: ChatRequest) -> int | None:
        """Where the task's last attempt failed, if it was for this request."""
        if not self._any or task is None:
            return None
        failed = self._failed.pop(task, None)
        return failed[1] if failed is not None and failed[0] is request else None
