"""Slots: how many prompts are in flight at the same time, and who takes the next one."""

import asyncio
from collections import deque

__all__ = ["Slots"]


class Slots:
    """So many slots, given in the order in which they are asked for; a slot that is free costs no turn of the loop.

    Tasks of a pool wait in ``vacancy`` before they take an item, so that as a rule the one that ends a prompt takes the
    next one and nobody has to be woken. The others come in where a prompt gives its slot back before its end, as while
    it waits for its next attempt.

    Attributes:
        limit: How many there are.
    """

    __slots__ = ("_ended", "_held", "_idle", "_waiting", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._ended = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Takes a slot, after those who asked before."""
        if self._held < self.limit and not self._waiting:
            self._held += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def release(self) -> None:
        """Gives a slot back, to whoever waits for it, or to a task that has no item yet."""
        self.leave()
        self.invite()

    def leave(self) -> None:
        """Gives a slot back; a task that has no item is not told, as the caller takes the next item itself."""
        self._held -= 1
        while self._waiting and self._held < self.limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._held += 1
                waiter.set_result(None)

    @property
    def free(self) -> int:
        """How many nobody holds."""
        return self.limit - self._held

    @property
    def vacant(self) -> bool:
        """Whether one could be had at once."""
        return self._held < self.limit and not self._waiting

    async def vacancy(self) -> None:
        """Waits until a slot could be had (it is not taken, and may be gone again), or until ``end``."""
        while not (self.vacant or self._ended):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._idle:
                    self._idle.remove(waiter)
                else:
                    self.invite()
                raise

    def resize(self, limit: int) -> None:
        """From now on there are so many; with fewer, none is taken from anyone, as they come free none is given on."""
        self.limit = limit
        while self._waiting and self._held < limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._held += 1
                waiter.set_result(None)
        for _ in range(limit - self._held):
            self.invite()

    def invite(self) -> None:
        """Lets one of those come that have no item, if there is room: the caller waits for something else."""
        while self._idle and self.vacant:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def end(self) -> None:
        """Lets all come that have no item, as there is none any more."""
        self._ended = True
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()
