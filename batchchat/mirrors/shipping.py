"""A thread that brings new lines of a mirror to the store while the run goes on."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

from batchchat.results import Journal
from batchchat.results.codec import iter_decoded, read_at
from batchchat.storage.faults import StorageError
from batchchat.storage.segments import Segments
from batchchat.storage.tries import Tries

__all__ = ["Shipping", "whole_pieces"]

_MOST_BYTES = 8 << 20
# Between two segments, where every line is synced by itself; twice as long after each failure, up to the most.
_LEAST_S, _MOST_S = 0.5, 15.0


def whole_pieces(journal: Journal, start: int) -> Iterator[bytes]:
    """What a journal holds from an offset on, in pieces that can each be read without the others, of some 8 MiB.

    Raises:
        OSError: It cannot be read.
    """
    codec, lines = journal.codec, bytearray()
    for piece in iter_decoded(journal.fd, codec.kind, start=start, end=journal.end):
        if isinstance(piece, bytes):
            lines += piece
            if len(lines) >= _MOST_BYTES and (whole := lines.rfind(b"\n") + 1):
                yield codec.encode(bytes(lines[:whole]))
                del lines[:whole]
    if lines:
        yield codec.encode(bytes(lines))


class Shipping:
    """From ``start`` to ``close``.

    Args:
        path: The mirror's results.
        begin: Offset up to which the store has them.
        tries: Those of the segments, given up by ``close``.
        notice: Told, from the thread, that the store takes nothing for now, and that it does again.
    """

    def __init__(
        self,
        path: str,
        begin: int,
        segments: Segments,
        *,
        tries: Tries,
        notice: Callable[[str], None],
    ) -> None:
        self._path, self._at, self._segments = path, begin, segments
        self._tries, self._notice = tries, notice
        # Ends of what is whole by itself: lines, or members of a compressed file.
        self._ends: deque[int] = deque()
        self._news, self._closed = threading.Event(), threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="batchchat-shipping", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wrote(self, end: int) -> None:
        """The mirror is whole up to an offset; called from another thread, never waits."""
        self._ends.append(end)
        self._news.set()

    @property
    def shipped(self) -> int:
        """Offset up to which the store has them."""
        return self._at

    def close(self) -> None:
        """Ends the thread; what it was at is given up."""
        self._closed.set()
        self._tries.give_up()
        self._news.set()
        if self._thread.ident is not None:  # the system gave one
            self._thread.join()

    def _run(self) -> None:
        pause_s = _LEAST_S
        while not self._closed.wait(pause_s):
            self._news.wait()
            self._news.clear()
            try:
                while self._ends and not self._closed.is_set():
                    self._ship()
            except Exception as error:  # a bug too must not end what brings answers to safety
                known = isinstance(error, StorageError | OSError)
                self._tell(str(error) if known else f"answers cannot be brought to the store ({error!r})")
                self._news.set()  # what waits is tried again, though no more lines may come for hours
                pause_s = min(2 * pause_s, _MOST_S)
            else:
                self._tell(None)
                pause_s = _LEAST_S

    def _ship(self) -> None:
        count, end = 0, self._at
        for each in tuple(self._ends):
            if count and each - self._at > _MOST_BYTES:
                break
            count, end = count + 1, max(end, each)
        if end > self._at:
            self._segments.append(self._bytes(self._at, end))
            self._at = end
        for _ in range(count):
            self._ends.popleft()

    def _bytes(self, start: int, end: int) -> bytes:
        fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            data = bytearray()
            while len(data) < end - start and (piece := read_at(fd, end - start - len(data), start + len(data))):
                data += piece
            return bytes(data)
        finally:
            os.close(fd)

    def _tell(self, error: str | None) -> None:
        if self._closed.is_set() or (error is not None) == self._failing:
            return
        self._failing = error is not None
        if error is not None:
            self._notice(f"{error}; until that is over, answers are safe on this machine only")
        else:
            self._notice("the store takes answers again")
