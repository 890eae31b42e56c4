"""One run at a time: a kernel lock on the results file itself, gone with the process that held it."""

import errno
import os
import socket
import sys
import time
from typing import Any

import msgspec

from batchchat.errors import ResultsLockedError, ResultsWriteError
from batchchat.results.summary import read_summary

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Holder", "is_locked", "lock_results", "open_locked", "read_holder"]

# ``status`` holds a shared lock for an instant to learn whether a run is going on; a run must not take that for one.
_TRIES, _PAUSE_S = 5, 0.02
# Windows locks bytes, not files, and keeps readers out of them: the locked byte is one that no file reaches.
_FAR_OFFSET = 0x7FFFFFFFFFFFFFF0 if sys.maxsize > 2**32 else 0x7FFFFFF0


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The run that holds a results file, as far as its summary tells.

    Attributes:
        since: UTC, as the summary has it.
    """

    pid: int | None = None
    host: str | None = None
    since: str | None = None

    def __str__(self) -> str:
        parts = (
            f"process {self.pid}" if self.pid is not None else "",
            f"on {self.host}" if self.host else "",
            f"since {self.since}" if self.since else "",
        )
        return " ".join(part for part in parts if part)


def open_locked(path: str, summary: str | None = None) -> tuple[int, bool]:
    """Opens a results file for a run, making it where there is none, and locks it.

    Args:
        summary: Where to read who holds the lock, should it be held.

    Returns:
        The descriptor, for reading and appending, and whether the file is new.

    Raises:
        ResultsLockedError: Another run holds it.
        ResultsWriteError: It cannot be opened for writing.
    """
    while True:
        fd, new = _open(path)
        try:
            if not lock_results(fd):
                holder = str(read_holder(summary) or "")
                who = f" ({holder})" if holder else ""
                raise ResultsLockedError(
                    f"{path}: another run holds this results file{who}; "
                    "wait for it to end, or name another file with -o"
                )
            if _is_still(fd, path):
                return fd, new
        except BaseException:
            os.close(fd)
            raise
        # The file was replaced between opening and locking: the lock is on a file that no one will find again.
        os.close(fd)


def lock_results(fd: int) -> bool:
    """Locks an open file for this run without waiting; False where another run holds it.

    A file system that knows no locks lets every run in, as it would without the attempt.
    """
    for left in reversed(range(_TRIES)):
        if _try_lock(fd, shared=False):
            return True
        if left:
            time.sleep(_PAUSE_S)
    return False


def is_locked(path: str) -> bool:
    """Whether a run holds the file now; takes a lock for an instant, never waits."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    try:
        return not _try_lock(fd, shared=True)
    finally:
        os.close(fd)


def read_holder(summary: str | None) -> Holder | None:
    """Who runs, from the summary of a run that has not ended; None where it tells nothing that can be true.

    A summary tells of its run by the keys ``pid``, ``host`` and ``started_at``; ``finished_at`` is null or missing
    until the run ends.
    """
    found: dict[str, Any] | None = read_summary(summary) if summary is not None else None
    if found is None or found.get("finished_at") is not None:
        return None
    pid, host, since = found.get("pid"), found.get("host"), found.get("started_at")
    if not isinstance(pid, int) or isinstance(pid, bool):
        return None
    if host == socket.gethostname() and not _is_alive(pid):
        return None
    return Holder(
        pid=pid, host=host if isinstance(host, str) else None, since=since if isinstance(since, str) else None
    )


def _open(path: str) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        try:
            return os.open(path, flags), False
        except FileNotFoundError:
            pass
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            # Made by another run meanwhile, or a link to a file that is not there yet.
            return os.open(path, flags | os.O_CREAT, 0o666), False
    except OSError as error:
        raise ResultsWriteError(f"{path}: results cannot be written: {error.strerror}") from error


def _is_still(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(fd: int, *, shared: bool) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(fd, _FAR_OFFSET, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            if shared:
                os.lseek(fd, _FAR_OFFSET, os.SEEK_SET)
                msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there, signal 0 is Ctrl-C and not a question
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
