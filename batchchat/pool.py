"""N tasks over one source: the input is read in a thread of its own, a little ahead of them."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from batchchat.slots import Slots

__all__ = ["InputOrder", "PromptSource", "Source", "WorkerPool"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Where a pool's items come from; see ``PromptSource``."""

    async def next(self) -> T_co | None:
        """The next item for the running task, None at the end."""

    @property
    def failed(self) -> BaseException | None:
        """What reading the input raised."""

    def close(self) -> None:
        """Stops reading."""


class PromptSource(Generic[T]):
    """Items of a blocking iterator, for tasks of an event loop.

    Reading stops when ``ahead`` items wait, and goes on when half of them are taken: the input never piles up in
    memory, and a slow pipe never stops the loop. The thread is a daemon, since a read from a terminal cannot be ended.
    """

    def __init__(self, items: Iterable[T], *, ahead: int) -> None:
        self._items, self._ahead = items, max(2, ahead)
        self._ready: deque[T] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._room = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fill, name="batchchat-input", daemon=True)
        self._thread.start()

    async def next(self) -> T | None:
        """The next item, or None at the end, which an error of the input is as well: ``failed`` has it."""
        while not self._ready:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            if self._ended and not self._ready:
                return None
            if self._ready:
                waiter.cancel()  # so that no wake-up is spent on it
                break
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        item = self._ready.popleft()
        if len(self._ready) <= self._ahead // 2 and not self._room.is_set():
            self._room.set()
        return item

    @property
    def exhausted(self) -> bool:
        """Whether every item has been taken."""
        return self._ended and not self._ready

    @property
    def failed(self) -> BaseException | None:
        """What reading the input raised."""
        return self._error

    def close(self) -> None:
        """Stops reading; what was read ahead is dropped, and stays to be read by the next run."""
        self._closed = True
        self._room.set()

    def _fill(self) -> None:
        try:
            for item in self._items:
                self._ready.append(item)
                if self._waiters:
                    self._loop.call_soon_threadsafe(self._wake)
                if len(self._ready) >= self._ahead:
                    self._room.clear()
                    if len(self._ready) >= self._ahead and not self._closed:
                        self._room.wait()
                if self._closed:
                    return
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            try:
                self._loop.call_soon_threadsafe(self._wake_all)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._closed = True

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._waiters:
            self._wake()


class InputOrder:
    """Lets outcomes through in the order in which their prompts were taken.

    An outcome that is ahead of its turn waits in its task, so that the number of tasks bounds how many are held
    back. A ticket that will never have an outcome must be given back with ``leave`` as well.
    """

    def __init__(self) -> None:
        self._issued = self._turn = 0
        self._left: set[int] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    def ticket(self) -> int:
        """The next place in the order."""
        self._issued += 1
        return self._issued - 1

    async def wait(self, ticket: int) -> None:
        """Waits until every earlier ticket has left."""
        if ticket != self._turn:
            self._waiting[ticket] = asyncio.get_running_loop().create_future()
            await self._waiting[ticket]

    def leave(self, ticket: int) -> None:
        """Ends a ticket's turn, whether it has come or not."""
        self._left.add(ticket)
        self._waiting.pop(ticket, None)
        while self._turn in self._left:
            self._left.discard(self._turn)
            self._turn += 1
        waiter = self._waiting.get(self._turn)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class WorkerPool(Generic[T]):
    """Long-lived tasks that take one item after another.

    Args:
        source: Where items come from.
        handle: One item's whole life; what it raises ends the pool.
        tasks: How many items are held at the same time.
        keep: Tasks that have a request on the wire; ``drain`` lets these finish.
        slots: Where a task waits for a vacant slot before it takes an item; None where items may need none.

    Attributes:
        writing: Tasks that have something to be written; nobody ends these.
        ended: Called by each task that finds no further item; None for nobody.
    """

    def __init__(
        self,
        source: Source[T],
        handle: Callable[[T], Awaitable[None]],
        *,
        tasks: int,
        keep: set[asyncio.Task[Any]],
        slots: Slots | None = None,
    ) -> None:
        self._slots = slots
        self._source, self._handle, self._size, self._keep = source, handle, tasks, keep
        self.ended: Callable[[], None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.writing: set[asyncio.Task[Any]] = set()
        self._draining = False

    async def run(self) -> None:
        """Runs to the end of the source, or to the end of a drain.

        Raises:
            ExceptionGroup: What ``handle`` raised.
            Exception: What reading the source raised, once all that came before it is handled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = [group.create_task(self._work()) for _ in range(self._size)]
        finally:
            self._source.close()
        if self._source.failed is not None:
            raise self._source.failed

    def drain(self) -> None:
        """Takes no new item; items that only wait are given up, those on the wire or being written go on.

        The calling task goes on too: it is about to write the failure that made it call.
        """
        self._draining = True
        caller = asyncio.current_task()
        for task in self._tasks:
            if task is not caller and task not in self._keep and task not in self.writing:
                task.cancel()

    def abort(self) -> None:
        """Gives up what is on the wire too; only writes are brought to their end."""
        self._draining = True
        caller = asyncio.current_task()
        for task in self._tasks:
            if task is not caller and task not in self.writing:
                task.cancel()

    async def _work(self) -> None:
        slots = self._slots
        while not self._draining:
            if slots is not None and not slots.vacant:
                await slots.vacancy()
            item = await self._source.next()
            if item is None:
                if slots is not None:
                    slots.end()
                if self.ended is not None:
                    self.ended()
                return
            await self._handle(item)
