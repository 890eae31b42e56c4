"""Where answers go that the results file did not take: a file of its own, wherever there is room."""

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from batchchat.jsonl import parse_object

__all__ = ["Spill", "spill_folders", "spill_prefix"]

_TOLD_IDS = 10


def spill_folders(errors: str | None) -> tuple[str, ...]:
    """Folders to try, in this order: the temporary one, the errors file's, the working one, and memory as the last."""
    beside = os.path.dirname(os.path.realpath(errors)) if errors else None
    folders = (_found(tempfile.gettempdir), beside, _found(os.getcwd), "/dev/shm")  # noqa: S108
    return tuple(dict.fromkeys(folder for folder in folders if folder and os.path.isdir(folder)))


def _found(folder: Callable[[], str]) -> str | None:
    """The folder; None where there is none, such as a working folder that was removed."""
    try:
        return folder()
    except OSError:
        return None


def spill_prefix(results: str) -> str:
    """How the names of spill files begin that hold answers of these results (an absolute path without links)."""
    return f"batchchat-spill-{blake2b(results.encode('utf-8', 'surrogateescape'), digest_size=6).hexdigest()}-"


class Spill:
    """Files named ``<prefix><pid>-<n>.jsonl`` (0600), made when the first line comes; used by two threads.

    Args:
        folders: Where to try, in this order.
        prefix: Of the names; see ``spill_prefix``.
        again: Whether the next run on this machine finds the files by itself and takes them in.

    Attributes:
        paths: Files made, in order; more than one where the first folder filled up too.
    """

    def __init__(self, folders: Sequence[str], prefix: str = "batchchat-spill-", *, again: bool = False) -> None:
        self.paths: list[str] = []
        self._prefix, self._again = prefix, again
        self._folders = list(folders)
        self._fd: int | None = None
        self._lock = threading.Lock()
        self._lost: list[str] = []
        self._lost_count = 0

    def add(self, lines: Iterable[bytes]) -> None:
        """Keeps lines; those that no folder takes are remembered by id only. Never raises."""
        with self._lock:
            for line in lines:
                if not self._keep(line):
                    self._lost_count += 1
                    if len(self._lost) < _TOLD_IDS:
                        self._lost.append(_id_of(line))

    def sentence(self) -> str:
        """What became of the lines; empty where none came."""
        with self._lock:
            parts = []
            if self.paths:
                again = f"the next run takes them in if it begins on {socket.gethostname()}"
                then = again if self._again else "append that to what is there, and run again"
                parts.append(f"lines that came since are in {', '.join(self.paths)}; once there is room, {then}")
            if self._lost_count:
                parts.append(
                    f"{self._lost_count} answers could be kept nowhere and will be asked for again: "
                    + ", ".join(self._lost)
                    + ("" if self._lost_count <= len(self._lost) else ", …")
                )
            return "; ".join(parts)

    def close(self) -> None:
        """Brings what was kept to the disk."""
        with self._lock:
            self._close_file()

    def _keep(self, line: bytes) -> bool:
        while self._fd is not None or self._open():
            if self._fd is not None and _append_whole(self._fd, line):
                return True
            self._close_file()
        return False

    def _open(self) -> bool:
        while self._folders:
            folder = self._folders.pop(0)
            for number in range(1, 1000):
                path = os.path.join(folder, f"{self._prefix}{os.getpid()}-{number}.jsonl")
                try:
                    self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
                except FileExistsError:
                    continue
                except OSError:
                    break
                self.paths.append(path)
                return True
        return False

    def _close_file(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        with contextlib.suppress(OSError):
            os.fsync(fd)
        empty = os.fstat(fd).st_size == 0
        os.close(fd)
        if empty:
            with contextlib.suppress(OSError):
                os.unlink(self.paths.pop())


def _append_whole(fd: int, line: bytes) -> bool:
    start = os.fstat(fd).st_size
    view = memoryview(line)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, start)
            os.lseek(fd, start, os.SEEK_SET)
        return False
    return True


def _id_of(line: bytes) -> str:
    try:
        obj = parse_object(line)
    except ValueError:
        return "?"
    return repr(obj.get("custom_id", obj.get("id")))
