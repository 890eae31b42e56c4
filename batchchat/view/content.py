"""The bytes of one file as they are now: grown, cut, replaced or compressed."""

import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from batchchat.compress import Compression, compression_of
from batchchat.errors import ResultsFileError
from batchchat.results.codec import Damage, iter_decoded, read_at

__all__ = ["Content", "StaleError"]

_MARK_BYTES = 64
# A compressed file that grows is decoded anew; so much longer than that takes, it is left alone afterwards.
_REST_FACTOR = 10


class StaleError(Exception):
    """The file is another one than when it was looked at last."""


class Content:
    """A file of lines that may grow while it is read.

    A compressed file is unpacked into a nameless temporary file, which takes the place of its content.

    Args:
        path: The file; it need not be there yet.
        name: Whose ending tells the compression; ``path`` where None.

    Attributes:
        size: Bytes of (decoded) content known so far.
    """

    def __init__(self, path: str, name: str | None = None) -> None:
        self.path, self.size = path, 0
        self._kind: Compression | None = compression_of(name or path)
        self._identity: tuple[int, int] | None = None
        self._mark = b""
        self._spool: IO[bytes] | None = None
        self._packed, self._rest_until = -1, 0.0

    def close(self) -> None:
        """Gives the temporary file back, if there is one."""
        if self._spool is not None:
            self._spool.close()

    def refresh(self) -> bool:
        """Looks at the file again; False where what was known of it no longer holds, and all has to be read anew.

        Raises:
            ResultsFileError: It is there and cannot be read.
        """
        try:
            with self._open() as fd:
                found = os.fstat(fd)
                identity = (found.st_dev, found.st_ino)
                same = self._identity in (None, identity) and self._fits(fd, found.st_size)
                if not same:
                    self._forget()
                self._identity = identity
                self._take(fd, found.st_size)
        except FileNotFoundError:
            same = self._identity is None
            self._forget()
        return same

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of content at ``offset``.

        Raises:
            StaleError: They are not there any more.
            ResultsFileError: It cannot be read.
        """
        with self.reading() as fd:
            return self.read_from(fd, offset, length)

    def read_from(self, fd: int, offset: int, length: int) -> bytes:
        """As ``read``, within ``reading``."""
        parts, got = [], 0
        while got < length:
            part = read_at(fd, length - got, offset + got)
            if not part:
                raise StaleError
            parts.append(part)
            got += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @contextmanager
    def reading(self) -> Iterator[int]:
        """A descriptor of the content.

        Raises:
            StaleError: It is another file by now.
            ResultsFileError: It cannot be read.
        """
        if self._spool is not None:
            yield self._spool.fileno()
            return
        try:
            with self._open() as fd:
                found = os.fstat(fd)
                if (found.st_dev, found.st_ino) != self._identity:
                    raise StaleError
                yield fd
        except FileNotFoundError as error:
            raise StaleError from error

    @contextmanager
    def _open(self) -> Iterator[int]:
        """Opened for each use: a file that somebody holds open cannot be replaced on every system."""
        try:
            fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ResultsFileError(f"{self.path}: the file cannot be read: {error.strerror}") from error
        try:
            yield fd
        except OSError as error:
            raise ResultsFileError(f"{self.path}: the file cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)

    def _fits(self, fd: int, size: int) -> bool:
        """Whether the file still begins with what is known of it, judged by its size and the end of that."""
        if self._kind is not None:
            return size >= self._packed
        return size >= self.size and read_at(fd, len(self._mark), self.size - len(self._mark)) == self._mark

    def _forget(self) -> None:
        self.size, self._identity, self._mark = 0, None, b""
        self._packed, self._rest_until = -1, 0.0
        self.close()
        self._spool = None

    def _take(self, fd: int, size: int) -> None:
        if self._kind is not None:
            self._unpack(fd, size)
        elif size != self.size:
            self.size = size
            self._mark = read_at(fd, min(_MARK_BYTES, size), max(0, size - _MARK_BYTES))

    def _unpack(self, fd: int, size: int) -> None:
        """Decodes the file from its start and keeps what is new of it: members' ends cannot be guessed."""
        began = time.monotonic()
        if size == self._packed or began < self._rest_until:
            return
        self._spool = self._spool or tempfile.TemporaryFile(prefix="batchchat-view-")  # noqa: SIM115
        self._spool.seek(self.size)
        position = 0
        for piece in _decoded(fd, self._kind, size):
            if position + len(piece) > self.size:
                self._spool.write(piece[max(0, self.size - position) :])
            position += len(piece)
        self._spool.flush()
        self._packed, self.size = size, max(position, self.size)
        self._rest_until = time.monotonic() + _REST_FACTOR * (time.monotonic() - began)


def _decoded(fd: int, kind: Compression | None, end: int) -> Iterator[bytes]:
    """What decodes of a compressed file, up to the first damage."""
    broken: tuple[type[Exception], ...] = (zlib.error,)
    if kind == "zst":
        import zstandard

        broken = (zstandard.ZstdError,)
    try:
        for piece in iter_decoded(fd, kind, end=end):
            if not isinstance(piece, Damage):
                yield piece
    except broken:
        return
