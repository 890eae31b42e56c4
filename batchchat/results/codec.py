"""Compression of results files: every batch of lines is a whole gzip member or zstd frame of its own.

A reader of such a file sees one stream; a crash can cut the last member only, and damage stays inside one member.
"""

import os
import zlib
from collections.abc import Generator, Iterator
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from batchchat.compress import Compression

if TYPE_CHECKING:
    import zstandard

__all__ = ["Codec", "Damage", "DamagedError", "find_damage", "iter_decoded", "iter_whole", "magic_of", "read_at"]

# Small, because what follows a member's end within a piece is copied once for each member in it.
_PIECE_BYTES = 16 * 1024
# So little that what is read stays in the processor's cache beside what it is compared with.
_PLAIN_PIECE_BYTES = 64 * 1024
_MAGIC: dict[Compression, bytes] = {"gz": b"\x1f\x8b\x08", "zst": b"\x28\xb5\x2f\xfd"}


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a compressed file that does not decode.

    Attributes:
        start: Offset of its first byte in the file.
        length: Bytes.
        kind: ``cut``: the file ends within a member, what comes before the cut decodes; ``corrupt``: nothing of it
            can be trusted.
    """

    start: int
    length: int
    kind: Literal["cut", "corrupt"]


class DamagedError(Exception):
    """A compressed file is not whole; what came of it so far may be wrong."""


class _Decoder(Protocol):
    """What zlib's and zstandard's decompression objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class Codec:
    """Turns a batch of lines into the bytes to append; ``kind`` None leaves them as they are. For one thread."""

    def __init__(self, kind: Compression | None) -> None:
        self.kind = kind
        self._zstd = _zstd_compressor() if kind == "zst" else None

    def encode(self, lines: bytes) -> bytes:
        """One whole member that holds ``lines``."""
        if self.kind is None:
            return lines
        if self._zstd is not None:
            return self._zstd.compress(lines)
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        return packer.compress(lines) + packer.flush()


def magic_of(kind: Compression) -> bytes:
    """First bytes of every member of this kind."""
    return _MAGIC[kind]


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Up to ``count`` bytes at ``offset``, which leaves no trace in the file's position where the system allows."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, count)


def iter_decoded(
    fd: int, kind: Compression | None, *, end: int, start: int = 0, damage: tuple[Damage, ...] = ()
) -> Iterator[bytes | Damage]:
    """Pieces of the file's content from offset ``start`` up to ``end``, and each damage in its place.

    Args:
        start: Offset of a member's first byte.
        damage: What ``find_damage`` found. Corrupt stretches are left out; of a cut member comes what decodes, then
            the damage itself.
    """
    if kind is None:
        yield from _iter_plain(fd, start, end)
        return
    position = start
    for stretch in damage:
        yield from _iter_members(fd, kind, position, stretch.start)
        if stretch.kind == "cut":
            yield from _iter_members(fd, kind, stretch.start, stretch.start + stretch.length)
        yield stretch
        position = stretch.start + stretch.length
    yield from _iter_members(fd, kind, position, end)


def iter_whole(fd: int, kind: Compression | None, *, end: int) -> Iterator[bytes]:
    """Pieces of the content of a file that is taken to be whole, for those who can begin anew where it is not.

    Raises:
        DamagedError: It is not; ``find_damage`` tells where.
    """
    if kind is None:
        yield from _iter_plain(fd, 0, end)
        return
    try:
        whole = yield from _iter_members(fd, kind, 0, end)
    except _error_of(kind) as error:
        raise DamagedError from error
    if not whole:
        raise DamagedError


def find_damage(fd: int, kind: Compression | None, *, end: int) -> tuple[Damage, ...]:
    """Decodes everything once and tells which stretches up to ``end`` are damaged, in file order.

    A pass of its own, since a member's checksum comes after its content: no line may be taken from a member before
    its end is seen.
    """
    if kind is None:
        return ()
    found: list[Damage] = []
    position = 0
    while position < end:
        member_end = _check_member(fd, kind, position, end)
        if member_end is not None and member_end <= end:
            position = member_end
            continue
        following = _next_member(fd, kind, position + 1, end)
        # A damaged length can make a member seem to go on over the ones behind it; only the last one can be cut.
        cut = member_end is not None and following == end
        found.append(Damage(start=position, length=following - position, kind="cut" if cut else "corrupt"))
        position = following
    return tuple(found)


def _check_member(fd: int, kind: Compression, start: int, end: int) -> int | None:
    """Offset after the member at ``start``; past ``end`` if it is cut there, None if it is corrupt."""
    decoder, broken = _decoder(kind), _error_of(kind)
    position = start
    while position < end:
        piece = read_at(fd, min(_PIECE_BYTES, end - position), position)
        if not piece:
            break
        try:
            decoder.decompress(piece)
        except broken:
            return None
        position += len(piece)
        if decoder.eof:
            return position - len(decoder.unused_data)
    return end + 1


def _next_member(fd: int, kind: Compression, start: int, end: int) -> int:
    """Offset of the next member that is whole, or at least not corrupt, from ``start`` on; else ``end``."""
    position = start
    while (position := _find(fd, _MAGIC[kind], position, end)) < end:
        if _check_member(fd, kind, position, end) is not None:
            return position
        position += 1
    return end


def _find(fd: int, wanted: bytes, start: int, end: int) -> int:
    position = start
    while position < end:
        piece = read_at(fd, min(_PLAIN_PIECE_BYTES, end - position), position)
        at = piece.find(wanted)
        if at >= 0:
            return position + at
        if position + len(piece) >= end or not piece:
            break
        position += len(piece) - len(wanted) + 1
    return end


def _iter_plain(fd: int, start: int, end: int) -> Iterator[bytes]:
    position = start
    while position < end:
        piece = read_at(fd, min(_PLAIN_PIECE_BYTES, end - position), position)
        if not piece:
            return
        position += len(piece)
        yield piece


def _iter_members(fd: int, kind: Compression, start: int, end: int) -> Generator[bytes, None, bool]:
    """Returns whether the last member is whole."""
    decoder, begun = _decoder(kind), False
    position = start
    while position < end:
        piece = read_at(fd, min(_PIECE_BYTES, end - position), position)
        if not piece:
            return False
        position += len(piece)
        while piece:
            decoded = decoder.decompress(piece)
            if decoded:
                yield decoded
            begun = not decoder.eof
            if begun:
                break
            piece = decoder.unused_data
            decoder = _decoder(kind)
    return not begun


def _decoder(kind: Compression) -> _Decoder:
    if kind == "gz":
        return zlib.decompressobj(31)
    return _zstd_decompressor().decompressobj()


def _zstd_compressor() -> "zstandard.ZstdCompressor":
    import zstandard

    return zstandard.ZstdCompressor(level=3, write_checksum=True)


def _error_of(kind: Compression) -> type[Exception]:
    """What a decoder of this kind raises for bytes that are none of its own."""
    if kind == "gz":
        return zlib.error
    import zstandard

    return zstandard.ZstdError


@cache
def _zstd_decompressor() -> "zstandard.ZstdDecompressor":
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=1 << 31)  # as much as the command line tool's --long makes
