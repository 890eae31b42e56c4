"""The ledger on an event loop: its lock is taken without blocking, what can wait is written in bundles."""

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from batchchat.hostlimits.ledger import Ledger

__all__ = ["LedgerAccess"]

T = TypeVar("T")

# What other processes need not know at once is written with the next request, or after this time.
_FLUSH_S = 0.1
# A lock that is held for longer than this is held by a process that is stopped.
_LONG_WAIT_S = 5.0
_STOPPED = "another run holds the shared limits and does not go on; it may be stopped (SIGSTOP, Ctrl-Z)"
_ledgers: "weakref.WeakSet[Ledger]" = weakref.WeakSet()


def _disown() -> None:
    """In a forked child: the locks that came with it would stay locked for as long as it lives."""
    for ledger in tuple(_ledgers):
        ledger.disown()


os.register_at_fork(after_in_child=_disown)


class LedgerAccess:
    """A ledger that is open, for the tasks of one event loop.

    Args:
        failed: Called once with what went wrong when the file cannot be used any more.
        notice: Called with a sentence worth telling.

    Attributes:
        broken: Whether the file cannot be used any more.
    """

    def __init__(self, ledger: Ledger, failed: Callable[[OSError], None], notice: Callable[[str], None]) -> None:
        self.ledger = ledger
        self.broken = False
        self._failed, self._notice = failed, notice
        self._busy = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        _ledgers.add(ledger)

    async def close(self) -> None:
        """Writes what is left, within bounds, and leaves the others."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self.flush()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_LONG_WAIT_S)
        finally:
            for task in self._tasks:
                task.cancel()
            self.ledger.close()

    def now(self, work: Callable[[Ledger], T]) -> T | None:
        """Does something with the lock held if that can be at once; None where it cannot."""
        try:
            if self.broken or self._busy.locked() or not self.ledger.try_lock():
                return None
            try:
                return work(self.ledger)
            finally:
                self.ledger.unlock()
        except OSError as error:
            self._break(error)
            return None

    async def locked(self, work: Callable[[Ledger], T]) -> T | None:
        """Does something with the lock held, as soon as it is free; None where the file cannot be used.

        A caller that is cancelled does not end the wait for the lock: what it wanted may still be done.
        """
        if (done := self.now(work)) is not None or self.broken:
            return done
        return await asyncio.shield(self._spawn(self._in_turn(work)))

    def flush_soon(self) -> None:
        """Something can wait, but not for long."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Writes what could wait, now or in a task."""
        self._timer = None
        if self.ledger.pending and not self.broken and not self.now(_flushed) and not self.broken:
            self._spawn(self._in_turn(_flushed))

    def fold_if_due(self) -> None:
        """Makes a file small that has grown, in a task and a thread."""
        if self.ledger.fold_due and not self._busy.locked():
            self._spawn(self._fold())

    def run(self, work: Callable[[Ledger], object]) -> None:
        """Does something with the lock held, in a task."""
        self._spawn(self._in_turn(work))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _in_turn(self, work: Callable[[Ledger], T]) -> T | None:
        try:
            async with self._busy:
                await self._lock()
                try:
                    return None if self.broken else work(self.ledger)
                finally:
                    self.ledger.unlock()
        except OSError as error:
            self._break(error)
            return None

    async def _fold(self) -> None:
        try:
            async with self._busy:
                await self._lock()
                try:
                    if self.ledger.fold_due and not self.broken:
                        await asyncio.to_thread(self.ledger.fold)
                finally:
                    self.ledger.unlock()
        except OSError as error:
            self._break(error)

    async def _lock(self) -> None:
        """Takes the lock, in a thread where another process has it: a system call that cannot be cancelled."""
        if self.ledger.try_lock():
            return
        loop = asyncio.get_running_loop()
        locked: asyncio.Future[None] = loop.create_future()

        def finish(error: OSError | None) -> None:
            if locked.done():  # the run has ended meanwhile
                return
            if error is None:
                locked.set_result(None)
            else:
                locked.set_exception(error)

        def wait() -> None:
            error = None
            try:
                self.ledger.wait_lock()
            except OSError as met:
                error = met
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish, error)

        threading.Thread(target=wait, name="limits-lock", daemon=True).start()
        timer = loop.call_later(_LONG_WAIT_S, self._notice, _STOPPED)
        try:
            await locked
        finally:
            timer.cancel()

    def _break(self, error: OSError) -> None:
        if not self.broken:
            self.broken = True
            self._failed(error)


def _flushed(ledger: Ledger) -> bool:
    ledger.flush()
    return True
