"""The shared file: opened, locked for an instant, read from where one stopped reading, added to, written anew."""

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from batchchat.hostlimits.events import (
    HEADER,
    MOVED,
    PAST,
    PAUSE,
    RECORD_BYTES,
    Event,
    dump_event,
    dump_events,
    load_events,
)

__all__ = ["EventStore", "Found", "lock_now"]

_EVERYTHING = 0xFFFFFFFF
# Clocks of one machine agree; a time beyond this is one of before a restart that left no other trace.
_AHEAD_S = 120.0
_OLD_S = 30 * 86_400.0


class Found(NamedTuple):
    """What is new in the file.

    Attributes:
        events: In their order.
        whole: Whether they are the whole file and not its end only. Whole and without events: there was none, or it
            lost its end; what is known of it is to be added.
        lost: Whether the file that was read before is gone, so that what others know is not all in this one.
        sentence: Where some could not be read.
    """

    events: list[Event]
    whole: bool = False
    lost: bool = False
    sentence: str | None = None


class EventStore:
    """The file of one service's events and the lock beside it; ``read`` and what follows needs the lock.

    Args:
        boot: See ``boot_id``; part of the name, so that times of another start of the machine are never met.
        renew: Called when the lock turns out to be lost; closes this, and opens and locks it again.
    """

    def __init__(self, folder: Path, service: str, boot: str, renew: Callable[[], None]) -> None:
        self._folder, self._renew = folder, renew
        self._boot = int.from_bytes(blake2b(boot.encode(), digest_size=8).digest())
        self.path = folder / f"{service}-{self._boot:016x}"
        self._lock = self._data = -1
        self.size = 0  # of what was read or written here

    def open(self) -> None:
        """Makes the folder, for this user alone, and the lock file.

        Raises:
            OSError: It cannot be written there.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._folder.stat().st_mode & 0o077:
            self._folder.chmod(0o700)
        self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def close(self) -> None:
        """Closes both files, which gives the lock up as well."""
        for fd in (self._data, self._lock):
            if fd >= 0:
                os.close(fd)
        self._data = self._lock = -1
        self.size = 0

    def forget(self) -> None:
        """Reads the whole file again the next time."""
        if self._data >= 0:
            os.close(self._data)
        self._data, self.size = -1, 0

    def tidy(self) -> None:
        """Removes the files of earlier starts of the machine that nobody has used for a month."""
        for path in self._folder.glob(f"*-{'?' * 16}"):
            with contextlib.suppress(OSError):
                if path.name.endswith(f"{self._boot:016x}") or time.time() - path.stat().st_mtime < _OLD_S:
                    continue
                path.unlink()
                Path(f"{path}.lock").unlink()

    def try_lock(self) -> bool:
        """Takes the lock if it is free.

        Raises:
            OSError: This is not open, or could not be opened again.
        """
        return lock_now(self._checked_lock())

    def wait_lock(self) -> None:
        """Takes the lock when it is free; blocks, so it is for a thread."""
        fcntl.flock(self._checked_lock(), fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Gives the lock up, unless that is done."""
        if self._lock >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def lost(self) -> bool:
        """Whether someone removed the lock file, so that this lock keeps nobody out any more."""
        return os.fstat(self._lock).st_nlink == 0

    def read(self, now: float) -> Found:
        """What is new in the file.

        Each garbled record counts as a request of now, a file that is none as more than any limit allows.
        """
        found = os.fstat(self._data) if self._data >= 0 else None
        if found is None or found.st_nlink == 0:
            lost = found is None or not self._moved()
            if self.lost():
                self._renew()
            try:
                self._reopen()
            except FileNotFoundError:
                self.rewrite([], now)
                return Found([], True, lost)
            return self._read_from(True, now)._replace(lost=lost)
        if found.st_size < self.size:
            self.rewrite([], now)
            return Found([], True, sentence=self._sentence("its end"))
        return self._read_from(False, now) if found.st_size > self.size else Found([])

    def _moved(self) -> bool:
        """Whether the file that was read so far says that another one took its place."""
        end = max(0, os.fstat(self._data).st_size - RECORD_BYTES)
        return any(
            event is not None and event.kind == MOVED for event in load_events(os.pread(self._data, RECORD_BYTES, end))
        )

    def _read_from(self, whole: bool, now: float) -> Found:
        data = os.pread(self._data, os.fstat(self._data).st_size - self.size, self.size)
        events = list(load_events(data))
        if not whole and any(event is not None and event.kind == MOVED for event in events):
            self._reopen()
            return self._read_from(True, now)
        header = events[0] if whole and events else None
        if header is not None and self._is_header(header) and not _is_past(header, now):
            self.rewrite([], now)  # made before the machine was started again
            return Found([], True)
        if whole and not self._is_header(header):
            full = [Event(PAST, 0, 0, now, requests=_EVERYTHING)]
            self.rewrite(full, now)
            return Found(full, True, sentence=self._sentence("all"))
        if len(data) % RECORD_BYTES:  # a process was killed while it wrote; what it meant to do it has not done
            os.ftruncate(self._data, self.size + len(events) * RECORD_BYTES)
        good = [event for event in events if event is not None and _is_past(event, now)]
        garbled = len(events) - len(good)
        if whole:
            good = good[1:]
        if not garbled:
            self.size += len(events) * RECORD_BYTES
            return Found(good, whole)
        # Written anew, as those who have read this far before will never see that it is garbled.
        good.append(Event(PAST, 0, 0, now, requests=garbled))
        kept = good if whole else [*self.read_whole(), *good]
        self.rewrite(kept, now)
        return Found(kept, True, sentence=self._sentence(f"{garbled} records"))

    def append(self, events: Iterable[Event]) -> None:
        """Adds events after all that was read.

        Raises:
            OSError: They could not be written whole; then none of them is there.
        """
        data = dump_events(events)
        written = os.pwrite(self._data, data, self.size)
        if written != len(data):
            os.ftruncate(self._data, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def read_whole(self) -> list[Event]:
        """Every event so far that can be read, without the header."""
        events = load_events(os.pread(self._data, self.size, 0))
        return [event for event in events if event is not None and event.kind != HEADER]

    def rewrite(self, events: Iterable[Event], now: float) -> None:
        """Puts these events in the place of all others; other processes see that the file is another one.

        Raises:
            OSError: It could not be written; then the old one is still there.
        """
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=f"{self.path.name}.")  # 0600
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(dump_event(Event(HEADER, 0, self._boot, now)))
                stream.write(dump_events(events))
            os.replace(name, self.path)
            if self._data >= 0:  # readers see by this that the file moved where a link count does not tell (NFS)
                os.pwrite(self._data, dump_event(Event(MOVED, 0, self._boot, now)), self.size)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        self._reopen()
        self.size = os.fstat(self._data).st_size

    def _checked_lock(self) -> int:
        if self._lock < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._lock

    def _reopen(self) -> None:
        opened = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
        self.forget()
        self._data = opened

    def _is_header(self, event: Event | None) -> bool:
        return event is not None and event.kind == HEADER and event.owner == self._boot

    def _sentence(self, what: str) -> str:
        return (
            f"{self.path}: {what} of the limits shared by runs on this machine cannot be read; what may have been sent "
            "counts as sent now, and requests may have to wait; to count from nothing, end the runs and delete the file"
        )


def _is_past(event: Event, now: float) -> bool:
    began = event.at - event.value if event.kind == PAUSE else event.at
    return began < now + _AHEAD_S


def lock_now(fd: int) -> bool:
    """Locks a file without waiting; False where another process holds it.

    Raises:
        OSError: The file system knows no locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
