"""Objects as streams: read ahead of their reader in pieces, resumed where a connection was lost, never mixed."""

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.objects import stat
from batchchat.storage.store import store_of
from batchchat.storage.tries import Tries

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["open_range", "open_seekable"]

# The first piece is small, so that the first line is there soon; of the big ones two come while one is read.
_FIRST_BYTES, _PIECE_BYTES, _AHEAD = 256 << 10, 4 << 20, 2
_SEEKABLE_BYTES = 1 << 20
_CHANGED = "somebody changed it while it was read; run the same command again to read the new one"

Failure = Callable[[StorageError], Exception]


def _as_it_is(error: StorageError) -> Exception:
    return error


def open_range(place: str, start: int = 0, etag: str | None = None, *, failure: Failure = _as_it_is) -> BinaryIO:
    """The object from an offset to its end, as a buffered stream; memory holds some 12 MiB of it.

    Args:
        place: URL or path.
        start: Offset of the first byte.
        etag: The object that it must be still; None for the one that is there now.
        failure: Makes what is raised of a ``StorageError``, also by the reading calls.

    Raises:
        StorageError: It is not there or cannot be read, now or in a reading call; ``ConflictError`` where it is
            another one now.
    """
    tries = Tries()  # its own, as closing the stream ends what it reads ahead
    with _failing_as(failure):
        found = stat(place, tries=tries)
        if etag is not None and found.etag != etag:
            raise ConflictError(place, _CHANGED)
    raw = _Ahead(place, start, found.size_bytes, found.etag, tries, failure)
    return cast(BinaryIO, io.BufferedReader(raw, _FIRST_BYTES))


def open_seekable(place: str, *, failure: Failure = _as_it_is) -> BinaryIO:
    """The object as a file that is read from anywhere, as Parquet is.

    Args:
        failure: As for ``open_range``.

    Raises:
        StorageError: As ``open_range``.
    """
    tries = Tries()
    with _failing_as(failure):
        found = stat(place, tries=tries)
    raw = _Seekable(place, found.size_bytes, found.etag, tries, failure)
    return cast(BinaryIO, io.BufferedReader(raw, _SEEKABLE_BYTES))


@contextmanager
def _failing_as(failure: Failure) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        if (told := failure(error)) is error:
            raise
        raise told from error


def _piece(place: str, start: int, stop: int, etag: str, tries: Tries) -> bytes:
    """Some bytes of the object, whatever interrupts them."""
    store, came = store_of(place), bytearray()

    def read() -> None:
        if start + len(came) < stop:
            store.read(place, start + len(came), stop, etag, came)

    try:
        tries.call(read, progress=lambda: len(came))
    except ConflictError:
        raise ConflictError(place, _CHANGED) from None
    return bytes(came)


class _Ahead(io.RawIOBase):
    """Pieces in their order, fetched by a thread before they are asked for."""

    def __init__(self, place: str, start: int, size: int, etag: str, tries: Tries, failure: Failure) -> None:
        self._place, self._etag, self._tries, self._failure = place, etag, tries, failure
        self._ranges = _ranges(start, size)
        self._threads = ThreadPoolExecutor(1, "batchchat-read")
        self._coming: deque[Future[bytes]] = deque()
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        target = memoryview(buffer).cast("B")
        if not self._left:
            self._left = memoryview(self._next())
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _next(self) -> bytes:
        self._ask()
        if not self._coming:
            return b""
        with _failing_as(self._failure):
            piece = self._coming.popleft().result()
        self._ask()
        return piece

    def _ask(self) -> None:
        while len(self._coming) < _AHEAD and (wanted := next(self._ranges, None)) is not None:
            self._coming.append(
                self._threads.submit(_piece, self._place, wanted[0], wanted[1], self._etag, self._tries)
            )

    def close(self) -> None:
        if not self.closed:
            self._tries.give_up()
            self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()


def _ranges(start: int, size: int) -> Iterator[tuple[int, int]]:
    length = _FIRST_BYTES
    while start < size:
        yield start, min(start + length, size)
        start += length
        length = min(2 * length, _PIECE_BYTES)


class _Seekable(io.RawIOBase):
    """Any bytes, one request for what is asked for."""

    def __init__(self, place: str, size: int, etag: str, tries: Tries, failure: Failure) -> None:
        self._place, self._size, self._etag, self._tries, self._failure = place, size, etag, tries, failure
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        target = memoryview(buffer).cast("B")
        stop = min(self._size, self._at + len(target))
        if stop <= self._at:
            return 0
        with _failing_as(self._failure):
            piece = _piece(self._place, self._at, stop, self._etag, self._tries)
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
