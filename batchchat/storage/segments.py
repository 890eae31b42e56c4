"""What a run has written so far, as small objects in a row: numbered without gaps, asked for by number, never listed.

``PREFIX/1.seg``, ``2.seg`` … each hold what came in a second or so. Once there are many, they are put as one
``PREFIX/block-N.seg``, and their numbers begin anew; a crash between both leaves lines twice, which readers take once.
"""

from collections.abc import Callable, Iterator

from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.objects import get_bytes, put_bytes, remove, stat_or_none
from batchchat.storage.store import ABSENT
from batchchat.storage.tries import Tries
from batchchat.storage.urls import join

__all__ = ["Segments"]

_MOST = 256
_MOST_BYTES = 32 << 20


class Segments:
    """For one writer at a time, which its lease sees to.

    Args:
        prefix: URL or path of their folder.

    Attributes:
        tries: For all requests; may be replaced.
    """

    def __init__(self, prefix: str, *, tries: Tries | None = None) -> None:
        self._prefix, self.tries = prefix, tries
        self._blocks: int | None = None
        self._number = 0
        self._since: list[bytes] = []
        self._since_bytes = 0

    def append(self, data: bytes) -> None:
        """Puts whole lines as the next segment; when it returns, a lost machine does not lose them.

        Raises:
            StorageError: It cannot be put; the same call again is fine.
        """
        self._find_end()
        while not self._put(self._name(self._number + 1), data):
            # An earlier call put it, whose answer was lost: it holds lines of ours, and what is new goes after it.
            self._count_in(self._get(self._name(self._number + 1)) or b"")
        self._count_in(data)
        if self._number >= _MOST or self._since_bytes >= _MOST_BYTES:
            self._fold()

    def read_all(self) -> Iterator[bytes]:
        """Content of each segment, in order.

        Raises:
            StorageError: One cannot be read.
        """
        for names in (self._block, self._name):
            number = 1
            while (found := self._get(names(number))) is not None:
                yield found
                number += 1

    def remove(self) -> None:
        """Removes all, the last one first, so that what is left after an end in between has no gaps.

        Raises:
            StorageError: One cannot be removed.
        """
        self._find_end()
        # One whose answer was lost or given up may stand behind those that are known.
        self._number, self._blocks = self._end(self._name, self._number), self._end(self._block, self._blocks or 0)
        while self._number:
            remove(self._name(self._number), tries=self.tries)
            self._number -= 1
        while self._blocks:
            remove(self._block(self._blocks), tries=self.tries)
            self._blocks -= 1
        self._since, self._since_bytes = [], 0

    def _count_in(self, data: bytes) -> None:
        self._number += 1
        self._since.append(data)
        self._since_bytes += len(data)

    def _find_end(self) -> None:
        """Where those of earlier runs end."""
        if self._blocks is None:
            self._number = self._end(self._name, 0)
            self._blocks = self._end(self._block, 0)

    def _end(self, names: Callable[[int], str], number: int) -> int:
        """The number of the last one, where so many are known."""
        while stat_or_none(names(number + 1), tries=self.tries) is not None:
            number += 1
        return number

    def _fold(self) -> None:
        """Makes one block of what is there; segments of earlier runs stay until the end of this one."""
        if self._blocks is None or len(self._since) < self._number:
            self._since, self._since_bytes = [], 0  # older ones stand before them
            return
        while not self._put(self._block(self._blocks + 1), b"".join(self._since)):
            self._blocks += 1
        self._blocks += 1
        self._since, self._since_bytes = [], 0
        while self._number:
            remove(self._name(self._number), tries=self.tries)
            self._number -= 1

    def _put(self, name: str, data: bytes) -> bool:
        """False where there is an object of that name."""
        try:
            put_bytes(name, data, expect=ABSENT, tries=self.tries)
        except ConflictError:
            return False
        return True

    def _get(self, name: str) -> bytes | None:
        try:
            return get_bytes(name, tries=self.tries)[0]
        except StorageError as error:
            if error.kind == "missing":
                return None
            raise

    def _name(self, number: int) -> str:
        return join(self._prefix, f"{number}.seg")

    def _block(self, number: int) -> str:
        return join(self._prefix, f"block-{number}.seg")
