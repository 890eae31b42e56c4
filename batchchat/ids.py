"""A table of ids that is small enough for many millions of them: no Python object is kept for an id."""

from array import array

from batchchat.records import PromptId

__all__ = ["IdTable"]

_MASK = (1 << 64) - 1
# Text and integer of the same digits are two ids.
_INTEGER = 0x9E3779B97F4A7C15
_FIRST_SLOTS = 1024
_FULL = 0.6
_GROWTH = 1.5


class IdTable:
    """Ids with an unsigned 64-bit value each, in an open-addressing table of 64-bit digests.

    An id takes 27 to 40 bytes. The digest is Python's keyed hash of the id's text, so a table is good for one process.
    Two different ids are taken for one with a chance of n² / 2⁶⁵: 3 in a million for ten million ids.
    """

    __slots__ = ("_count", "_digests", "_limit", "_slots", "_values")

    def __init__(self) -> None:
        self._count = 0
        self._allocate(_FIRST_SLOTS)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, id: PromptId) -> bool:
        return self._digests[self._find(_digest(id))] != 0

    def get(self, id: PromptId) -> int | None:
        """The id's value, or None where the id is not in the table."""
        slot = self._find(_digest(id))
        return self._values[slot] if self._digests[slot] else None

    def add(self, id: PromptId, value: int = 1) -> bool:
        """Puts an id in; False, and its value stays, where it is in already.

        Raises:
            OverflowError: The value is negative or 2⁶⁴ and more.
        """
        digest = _digest(id)
        slot = self._find(digest)
        if self._digests[slot]:
            return False
        self._values[slot] = value
        self._digests[slot] = digest
        self._count += 1
        if self._count > self._limit:
            self._grow()
        return True

    def put(self, id: PromptId, value: int) -> None:
        """Puts an id in, or gives a new value to one that is in.

        Raises:
            OverflowError: The value is negative or 2⁶⁴ and more.
        """
        if not self.add(id, value):
            self._values[self._find(_digest(id))] = value

    def _find(self, digest: int) -> int:
        """The slot that holds the digest, or the empty one where it belongs."""
        digests, slots = self._digests, self._slots
        slot = digest % slots
        while (found := digests[slot]) and found != digest:
            slot += 1
            if slot == slots:
                slot = 0
        return slot

    def _allocate(self, slots: int) -> None:
        self._digests, self._values = array("Q", bytes(8)) * slots, array("Q", bytes(8)) * slots
        self._slots, self._limit = slots, int(slots * _FULL)

    def _grow(self) -> None:
        digests, values = self._digests, self._values
        # An odd number of slots spreads digests that have low bits in common.
        self._allocate(int(self._slots * _GROWTH) | 1)
        for position, digest in enumerate(digests):
            if digest:
                slot = self._find(digest)
                self._digests[slot], self._values[slot] = digest, values[position]


def _digest(id: PromptId) -> int:
    """64 bits, never 0, which marks an empty slot."""
    # hash(2**61) == hash(1): an integer's own hash is no digest of it, its digits' is.
    digest = hash(id) & _MASK if isinstance(id, str) else (hash(f"{id:x}") ^ _INTEGER) & _MASK
    return digest or 1
