"""A table of ids that is small enough for many millions of them: no Python object is kept for an id."""

from array import array
from collections.abc import Iterable
from struct import Struct

from batchchat.records import PromptId

__all__ = ["IdTable"]

# Text and integer of the same digits are two ids.
_INTEGER = 0x1E3779B97F4A7C15
_FIRST_BUCKETS = 64
# Records in a bucket on average: more of them take longer to search, fewer leave each more of the bucket's own bytes.
_FULL = 12
_digest, _value = Struct("<qq").pack, Struct(">Q").unpack_from
_VALUE_AT, _BYTES = 16, 24
_records = Struct(f"{_BYTES}s").iter_unpack
# A bucket of more bytes takes no further record: many ids that differ in nothing but their last sign would fill it.
_LONGEST = 256 * _BYTES


class IdTable:
    """Ids with an unsigned 64-bit value each, in about 32 bytes an id.

    A record is a digest of 128 bits and the value. Records stand in buckets, which are plain bytes: searching one is
    the work of ``bytes.find`` and not of Python. When buckets get full on average, the next in turn is split in two
    (linear hashing), so that the table grows evenly and is never copied as a whole.

    A digest is two of Python's keyed hashes, so a table is good for one process: that of the id without its last sign,
    which tells the bucket, and that of the id. So ids that count up share a bucket for a while, and the processor finds
    it in its cache. Two different ids are taken for one with a chance of 10⁻¹¹ in a table of ten million.

    Args:
        expected: How many ids may come; a table that knows needs not be split while they do.
    """

    __slots__ = ("_buckets", "_count", "_far", "_mask", "_room", "_starts")

    def __init__(self, expected: int = 0) -> None:
        buckets = max(_FIRST_BUCKETS, expected // _FULL)
        self._buckets = [b""] * buckets
        self._mask = (1 << (buckets - 1).bit_length()) - 1
        self._count, self._room, self._far = 0, buckets * _FULL, False
        self._starts: array[int] | None = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, id: PromptId) -> bool:
        return self.get(id) is not None

    def get(self, id: PromptId) -> int | None:
        """The id's value, or None where the id is not in the table."""
        if not self._count:
            return None
        first, second = (hash(id[:-1]), hash(id)) if isinstance(id, str) else _integer_hashes(id)
        place, at = self._find(first, second)
        return None if at < 0 else _value(self._buckets[place], at + _VALUE_AT)[0]

    def add(self, id: PromptId, value: int = 1) -> bool:
        """Puts an id in; False, and its value stays, where it is in already.

        Raises:
            OverflowError: The value is negative or 2⁶⁴ and more.
        """
        return self.add_all(((id, value.to_bytes(8, "big")),)) == 1

    def add_all(self, pairs: Iterable[tuple[PromptId, bytes]]) -> int:
        """Puts ids in, each with its value as 8 bytes, the highest first; up to the first that is in already.

        Returns:
            How many were put in.

        Raises:
            ValueError: The ids are numbered by now.
        """
        if self._starts is not None:
            raise ValueError("a table whose ids are numbered takes no more of them")
        # This runs for each line of input and results: what calls would take is written out.
        buckets, mask, room, far = self._buckets, self._mask, self._room, self._far
        added = 0
        for id, value in pairs:
            first, second = (hash(id[:-1]), hash(id)) if isinstance(id, str) else _integer_hashes(id)
            place = first & mask
            if place >= len(buckets):
                place &= mask >> 1
            bucket, digest = buckets[place], _digest(first, second)
            if bucket.find(digest) >= 0 or far or len(bucket) >= _LONGEST:
                if self._find(first, second)[1] >= 0:
                    break
                if len(bucket) >= _LONGEST:
                    self._far = far = True
                    place = self._place(second)
                    bucket, digest = buckets[place], _digest(second, first)
            buckets[place] = bucket + (digest + value)
            added += 1
            if added > room:
                self._split()
                mask, room = self._mask, room + _FULL
        self._room = room - added
        self._count += added
        return added

    def put(self, id: PromptId, value: int) -> None:
        """Puts an id in, or gives a new value to one that is in.

        Raises:
            OverflowError: The value is negative or 2⁶⁴ and more.
        """
        if self.add(id, value):
            return
        place, at = self._find(*(hash(id[:-1]), hash(id)) if isinstance(id, str) else _integer_hashes(id))
        bucket = self._buckets[place]
        self._buckets[place] = bucket[: at + _VALUE_AT] + value.to_bytes(8, "big") + bucket[at + _BYTES :]

    def number(self) -> None:
        """Gives each id a number from 0 on, for arrays beside the table; it takes no more ids from now on."""
        self._starts, start = array("Q"), 0
        for bucket in self._buckets:
            self._starts.append(start)
            start += len(bucket) // _BYTES

    def numbered(self, id: PromptId) -> tuple[int, int] | None:
        """The id's number and value, or None where the id is not in the table; ``number`` comes first."""
        starts = self._starts
        if starts is None:
            raise ValueError("expected a table whose ids are numbered")
        first, second = (hash(id[:-1]), hash(id)) if isinstance(id, str) else _integer_hashes(id)
        place, at = self._find(first, second)
        if at < 0:
            return None
        return starts[place] + at // _BYTES, _value(self._buckets[place], at + _VALUE_AT)[0]

    def _find(self, first: int, second: int) -> tuple[int, int]:
        """The bucket of a digest and where in it its record begins; there -1 for nowhere."""
        place = self._place(first)
        at = _find(self._buckets[place], _digest(first, second))
        if at < 0 and self._far:
            place = self._place(second)
            at = _find(self._buckets[place], _digest(second, first))
        return place, at

    def _place(self, first: int) -> int:
        """The bucket of a hash; one whose turn to be split has not come yet holds the records of two."""
        place = first & self._mask
        return place if place < len(self._buckets) else place & self._mask >> 1

    def _split(self) -> None:
        """Splits the bucket whose turn it is, by the lowest bit that does not tell the bucket yet."""
        buckets = self._buckets
        if len(buckets) > self._mask:
            self._mask = self._mask << 1 | 1
        bit = self._mask.bit_length() - 1
        place = len(buckets) - (1 << bit)
        bucket = buckets[place]
        byte, there = bit >> 3, 1 << (bit & 7)
        stay, go = b"", b""
        # All of one hash; records that stand far from their first place hold that hash as their second.
        if not self._far and bucket.count(bucket[:8]) * _BYTES == len(bucket):
            stay, go = (b"", bucket) if bucket and bucket[byte] & there else (bucket, b"")
        else:
            records = [record for (record,) in _records(bucket)]
            stay = b"".join([record for record in records if not record[byte] & there])
            go = b"".join([record for record in records if record[byte] & there])
        buckets[place] = stay
        buckets.append(go)


def _find(bucket: bytes, digest: bytes) -> int:
    """Where the digest's record begins; -1 for nowhere: the same bytes across two records are none."""
    at = bucket.find(digest)
    while at > 0 and at % _BYTES:
        at = bucket.find(digest, at + 1)
    return at


def _integer_hashes(id: int) -> tuple[int, int]:
    # hash(2**61) == hash(1): an integer's own hash is no digest of it, its digits' is.
    digits = f"{id:x}"
    return hash(digits[:-1]) ^ _INTEGER, hash(digits) ^ _INTEGER
