"""Taking lines out of a results file without a moment at which a crash could lose one."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from batchchat.results.codec import Codec, Damage, read_at
from batchchat.results.files import sync_folder
from batchchat.results.lock import lock_results
from batchchat.results.scan import RawLine

__all__ = ["Piece", "append_torn", "rewrite"]

_MEMBER_BYTES = 1024 * 1024


class Piece(NamedTuple):
    """What becomes of one line.

    Attributes:
        keep: What stays of it, without a line feed; None for nothing.
        moved: What goes to the torn file; None for the whole line.
    """

    keep: bytes | None
    moved: bytes | None


def rewrite(
    fd: int,
    path: str,
    codec: Codec,
    lines: Iterable[RawLine | Damage],
    decide: Callable[[RawLine], Piece | None],
    *,
    torn: str | None,
) -> int:
    """Writes the file anew beside itself, puts it in its place and gives the new, locked descriptor; closes ``fd``.

    The new file is locked before it gets its name, so that no other run can slip in. What was taken out is on disk
    before the old file is gone. One rewriting at a time is possible, as the caller holds the lock: the temporary file
    has a fixed name, and one that a crash left is overwritten by the next.

    Args:
        path: The file itself, no link to it.
        decide: What becomes of a line; None: it stays as it is.

    Raises:
        OSError: Something could not be written; the old file and ``fd`` are as they were.
    """
    temporary = f"{path}.rewriting"
    new = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
    try:
        lock_results(new)
        append_torn(torn, _copy(fd, new, codec, lines, decide))
        _copy_owner(fd, new)
        os.fsync(new)
        if os.name == "nt":  # there, an open file cannot be replaced
            os.close(fd)
            os.close(new)
            os.replace(temporary, path)
            new = os.open(path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
            lock_results(new)
            return new
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(new)
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    os.close(fd)
    sync_folder(path)
    return new


def append_torn(torn: str | None, pieces: Iterable[bytes]) -> None:
    """Appends pieces to the torn file as they are, and waits until they are on disk.

    The file is made when there is something to put in it.
    """
    stream: BinaryIO | None = None
    try:
        for piece in pieces:
            if torn is None:
                continue
            if stream is None:
                stream = open(torn, "ab")  # noqa: SIM115
            stream.write(piece)
        if stream is not None:
            stream.flush()
            os.fsync(stream.fileno())
    finally:
        if stream is not None:
            stream.close()


def _copy(
    fd: int, new: int, codec: Codec, lines: Iterable[RawLine | Damage], decide: Callable[[RawLine], Piece | None]
) -> Iterator[bytes]:
    """Writes what stays, yields what is moved."""
    kept: list[bytes] = []
    kept_bytes = 0
    for line in lines:
        if isinstance(line, Damage):
            for offset in range(line.start, line.start + line.length, _MEMBER_BYTES):
                yield read_at(fd, min(_MEMBER_BYTES, line.start + line.length - offset), offset)
            yield b"\n"
            continue
        piece = decide(line)
        moved = b"" if piece is None else line.data if piece.moved is None else piece.moved
        if moved:
            yield moved + b"\n"
        keep = line.data if piece is None else piece.keep
        if keep is None:
            continue
        kept.append(keep)
        kept_bytes += len(keep)
        if kept_bytes >= _MEMBER_BYTES:
            _write_all(new, codec.encode(b"\n".join(kept) + b"\n"))
            kept, kept_bytes = [], 0
    if kept:
        _write_all(new, codec.encode(b"\n".join(kept) + b"\n"))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy_owner(fd: int, new: int) -> None:
    """Permissions and owner go with the file, as far as this user may give them."""
    found = os.fstat(fd)
    if hasattr(os, "fchown"):
        with contextlib.suppress(OSError):
            os.fchown(new, found.st_uid, found.st_gid)
    if hasattr(os, "fchmod"):
        os.fchmod(new, found.st_mode & 0o7777)
