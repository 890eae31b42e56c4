"""Prompts taken from the input to fit a number of slots that changes."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from batchchat.pool import Source

__all__ = ["MeteredSource"]

T = TypeVar("T")

# Prompts under way for each slot, as with a fixed number: one that waits for its next attempt leaves its slot to
# another.
_TASKS_PER_SLOT, _FEWEST_MORE = 2, 8


class _Turns:
    """Tasks that wait for their turn, first come first served.

    Args:
        unused: Called where a turn was given to a task that was cancelled meanwhile.
    """

    def __init__(self, unused: Callable[[], None]) -> None:
        self._unused = unused
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def stand(self) -> asyncio.Future[None]:
        """A place in the row, to be waited for with ``wait``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    async def wait(self, place: asyncio.Future[None]) -> None:
        """Returns when it is the place's turn."""
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._unused()
            raise

    def give(self) -> bool:
        """Gives one turn; whether somebody took it."""
        while self._waiters:
            place = self._waiters.popleft()
            if not place.done():
                place.set_result(None)
                return True
        return False


class MeteredSource(Generic[T]):
    """A pool's source that lets go of no more prompts than fit the slots of the moment.

    A pool has tasks for the most slots that there may be. If all of them had a prompt, a few slots would leave hundreds
    waiting in a row, and one that is to be asked again at its end.

    Args:
        limit: Slots there are now.
    """

    def __init__(self, source: Source[T], limit: Callable[[], int]) -> None:
        self._source, self._limit = source, limit
        self._under_way: set[asyncio.Task[Any] | None] = set()
        self._turns = _Turns(self.changed)
        self._ended = False

    async def next(self) -> T | None:
        """The next item for the task; None at the end. Whoever has one tells with ``done`` when it is over."""
        task = asyncio.current_task()
        while not self._ended and len(self._under_way) >= self._most:
            await self._turns.wait(self._turns.stand())
        self._under_way.add(task)
        self.changed()  # where there came to be room for several, the next one in the row as well
        item = await self._source.next()
        if item is None:
            self._ended = True
            self._under_way.discard(task)
            while self._turns.give():
                pass
        return item

    def done(self) -> None:
        """The running task's item is over: another task may take one, as this one may wait for a slot first."""
        self._under_way.discard(asyncio.current_task())
        self.changed()

    def changed(self) -> None:
        """There may be more slots than before."""
        if self._ended or len(self._under_way) < self._most:
            self._turns.give()

    @property
    def failed(self) -> BaseException | None:
        """What reading the input raised."""
        return self._source.failed

    def close(self) -> None:
        """Stops reading."""
        self._source.close()

    @property
    def _most(self) -> int:
        limit = self._limit()
        return max(_TASKS_PER_SLOT * limit, limit + _FEWEST_MORE)
