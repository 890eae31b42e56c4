"""Plain files with the same promises as objects: whole or not there, replaced only where they are as expected."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import IO, NoReturn

from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.store import ABSENT, ANY, Stat

if sys.platform != "win32":
    import fcntl

__all__ = ["PathStore"]

_PIECE_BYTES = 1 << 20


class PathStore:
    """See ``Store``. Two that replace one file at the same moment are told apart on one machine, where it can lock."""

    def stat(self, place: str) -> Stat:
        """See ``Store``."""
        try:
            return _stat(os.stat(place))
        except OSError as error:
            _fail(place, error)

    def read(self, place: str, start: int, stop: int, etag: str | None, into: bytearray) -> str:
        """See ``Store``."""
        try:
            with open(place, "rb") as file:
                found = _stat(os.fstat(file.fileno())).etag
                if etag is not None and found != etag:
                    raise ConflictError(place)
                file.seek(start)
                while start < stop and (piece := file.read(min(_PIECE_BYTES, stop - start))):
                    into += piece
                    start += len(piece)
        except OSError as error:
            _fail(place, error)
        return found

    def put(self, place: str, data: bytes, expect: str, mark: str) -> str:
        """See ``Store``."""
        return self._put(place, lambda file: file.write(data), expect)

    def put_file(self, place: str, local_path: str, expect: str, mark: str, tries: object) -> str:
        """See ``Store``."""
        with open(local_path, "rb") as source:
            return self._put(place, lambda file: shutil.copyfileobj(source, file), expect)

    def remove(self, place: str) -> None:
        """See ``Store``."""
        try:
            os.unlink(place)
        except FileNotFoundError:
            pass
        except OSError as error:
            _fail(place, error)

    def _put(self, place: str, write: Callable[[IO[bytes]], object], expect: str) -> str:
        folder = os.path.dirname(place) or "."
        temporary = None
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
                temporary = file.name
                write(file)
                file.flush()
                os.fsync(file.fileno())
                found = _stat(os.fstat(file.fileno())).etag
            self._take_place(temporary, place, expect)
            _sync(folder)
        except OSError as error:
            _fail(place, error)
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
        return found

    def _take_place(self, temporary: str, place: str, expect: str) -> None:
        if expect == ABSENT:
            try:
                os.link(temporary, place)
            except FileExistsError:
                raise ConflictError(place, "somebody else has made it meanwhile") from None
            return
        with _alone(os.path.dirname(place) or "."):
            if expect != ANY and self.stat(place).etag != expect:
                raise ConflictError(place)
            os.replace(temporary, place)


def _stat(found: os.stat_result) -> Stat:
    now = datetime.now(UTC)
    etag = f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
    return Stat(size_bytes=found.st_size, etag=etag, modified_at=datetime.fromtimestamp(found.st_mtime, UTC), now=now)


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Nobody else looks at a file of the folder and replaces it meanwhile; not every system can see to that."""
    fd = -1
    with contextlib.suppress(OSError):  # a folder that cannot be locked, as on some network file systems
        fd = os.open(folder, os.O_RDONLY)
        if sys.platform != "win32":
            fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _sync(folder: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _fail(place: str, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise StorageError(place, "no such file", "missing") from error
    reason = error.strerror or str(error)
    raise StorageError(place, reason, "denied" if isinstance(error, PermissionError) else "failed") from error
