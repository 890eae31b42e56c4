"""The file in which a desk keeps what it leased, so that its next start forgets nothing."""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchchat.leases.desk import Desk
from batchchat.leases.memory import DeskMemory, restored

__all__ = ["DeskFile"]

# The file is written anew when it has grown to so many bytes, or to so many times its first size.
_FOLD_BYTES, _FOLD_TIMES = 250_000, 4
# Its size where a line may be torn: nothing can follow that.
_TORN = 1 << 60


class DeskFile:
    """Records of one desk; what is not in the file when a process dies was told to nobody.

    The kernel has each record before a worker hears of it, so that a killed process loses none. It is not forced to
    the disk: where the machine stops, so do its workers, and the desk that begins elsewhere has no file at all.

    Args:
        path: On a disk of the machine on which the desk runs. Its folder is there, and is not made again where
            somebody has removed it: then the run is over.
        clock: Stands for the machine and its start; see ``boot_id``.
        now: The desk's clock.
    """

    def __init__(self, path: Path, *, clock: str, now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock, self._now = path, clock, now
        self._memory: DeskMemory | None = None
        self._pending: list[bytes] = []
        self._lock = asyncio.Lock()
        self._size = self._first_size = 0

    def open(self, *args: Any, **options: Any) -> Desk:
        """The desk, with what the file holds; to be called before the loop is busy.

        Args:
            args: As those of ``restored``: the rates, ``burst``, ``tokens_per_minute`` and ``number``.

        Raises:
            OSError: The file cannot be read or written.
        """
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            lines = []
        now, wall = self._now(), time.time()
        desk = restored(lines, *args, **options, now=now, wall=wall, clock=self._clock)
        self._memory = DeskMemory(desk, self._clock)
        self._rewrite(self._memory.whole(now, wall))
        return desk

    async def remember(self) -> None:
        """Writes what was leased since the last call.

        Raises:
            OSError: It cannot be written; it is tried again at the next call.
        """
        if self._memory is None:
            raise RuntimeError("a desk's file is used before it was opened")
        if record := self._memory.latest(self._now(), time.time()):
            self._pending.append(record)
        async with self._lock:
            if not self._pending:
                return
            batch = b"".join(self._pending)
            fold = self._size + len(batch) > max(_FOLD_BYTES, _FOLD_TIMES * self._first_size)
            written = len(self._pending)
            if fold:
                whole = self._memory.whole(self._now(), time.time())
                await asyncio.to_thread(self._rewrite, whole)
            else:
                await asyncio.to_thread(self._append, batch)
            del self._pending[:written]

    def _append(self, data: bytes) -> None:
        size, self._size = self._size, _TORN
        with open(self._path, "ab", buffering=0) as stream:
            if stream.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size = size + len(data)

    def _rewrite(self, whole: bytes) -> None:
        """Writes the file anew; at each moment it is the old one or the new one."""
        aside = self._path.with_name(f"{self._path.name}.new")
        aside.write_bytes(whole)
        os.replace(aside, self._path)
        self._size = self._first_size = len(whole)
