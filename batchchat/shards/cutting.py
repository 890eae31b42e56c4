"""Cuts what there is to do into shards, in the order of the input, reading no further than it is asked for."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from batchchat.compress import compression_of
from batchchat.errors import BatchchatError, PromptFileError
from batchchat.records import InputFault, Outcome, Prompt
from batchchat.shards.shard import Asked, Shard, Stretch
from batchchat.storage.urls import is_url
from batchchat.survey import ToDo

__all__ = ["LineOffsets", "Piece", "cut"]

Piece = Shard | InputFault | Outcome | BatchchatError

_CHUNK_BYTES = 1 << 20
# A shard that carries its prompts holds no more of their texts, so that a long input never piles up on its way.
_MOST_CARRIED_CHARS = 4 << 20


class Reader(Protocol):
    """What is known of where prompts are read; see ``PromptReader``."""

    @property
    def path(self) -> str:
        """The file of the prompt that was told last."""

    @property
    def reiterable(self) -> bool:
        """Whether the input can be read again."""


def cut(
    items: Iterable[ToDo | Outcome], reader: Reader | None, most: Callable[[], int], first: int = 1
) -> Iterator[Piece]:
    """Shards of one file each; faults, errors and outcomes that need no asking pass as they are.

    Args:
        items: Read from ``reader``; None where they come from nowhere else, so that shards carry their prompts.
        most: Gives the number of prompts that a shard should have now.
        first: Number of the first shard.
    """
    cutter = _Cutter(reader, most, first)
    try:
        for item in items:
            if isinstance(item, tuple):
                yield from cutter.take(*item)
            else:
                yield from cutter.flush()
                yield item
        yield from cutter.flush()
    except OSError as error:
        yield PromptFileError("" if reader is None else reader.path, f"cannot be read ({error.strerror or error})")
    finally:
        cutter.close()


class LineOffsets:
    """Where the lines of a file begin, asked for in their order.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._chunk, self._base, self._at = b"", 0, 0
        self._line = 1

    def of(self, line: int) -> int:
        """Offset of a line's first byte, in bytes; of the line asked for before, or a later one.

        Raises:
            OSError: The file cannot be read.
        """
        while self._line < line:
            count = self._chunk.count(b"\n", self._at)
            if count < line - self._line:
                self._line += count
                self._base += len(self._chunk)
                self._chunk, self._at = self._file.read(_CHUNK_BYTES), 0
                if not self._chunk:
                    raise OSError("the file has become shorter")
                continue
            while self._line < line:
                self._at = self._chunk.index(b"\n", self._at) + 1
                self._line += 1
        return self._base + self._at


class _Stamp(NamedTuple):
    """A file or object as it is now."""

    size_bytes: int
    modified_ns: int
    etag: str | None = None


class _Cutter:
    """Gathers the prompts of the next shard."""

    def __init__(self, reader: Reader | None, most: Callable[[], int], first: int) -> None:
        self._reader, self._most = reader, most
        self._number = first - 1
        self._full = 1
        self._path: str | None = None
        self._stamp: _Stamp | None = None  # of a file that can be sought in
        self._offsets: LineOffsets | None = None
        self._file: BinaryIO | None = None
        self._asked: list[Asked] = []
        self._prompts: list[Prompt] = []
        self._chars = 0
        self._chats = False

    def take(self, prompt: Prompt, fingerprint: str) -> Iterator[Shard]:
        """Adds a prompt; the shard before, where that one is full."""
        # Rows that were drawn from a stream, or from anything that is not read as they come, are carried.
        path = self._reader.path if self._reader is not None and self._reader.reiterable else ""
        if path != self._path:
            yield from self.flush()
            self._enter(path)
        row = prompt.id if prompt.variant is None else prompt.variant["id"]
        if not self._asked:
            self._full = self._most()
        self._asked.append(Asked(prompt.line_number, prompt.id, prompt.index, fingerprint, row))
        self._chats = self._chats or prompt.chat_id is not None
        if self._stamp is None:
            self._prompts.append(_anywhere(prompt))
            self._chars += sum(len(str(message.get("content"))) for message in prompt.messages)
        if len(self._asked) >= self._full or self._chars >= _MOST_CARRIED_CHARS:
            yield from self.flush()

    def flush(self) -> Iterator[Shard]:
        """What was gathered, if anything."""
        if not self._asked:
            return
        self._number += 1
        asked, prompts = tuple(self._asked), tuple(self._prompts)
        chats, self._chats = self._chats, False
        self._asked, self._prompts, self._chars = [], [], 0
        stretch = self._stretch(asked[0].line)
        yield Shard(number=self._number, asked=asked, stretch=stretch, prompts=prompts, chats=chats)

    def close(self) -> None:
        """Closes the file whose lines are looked up."""
        if self._file is not None:
            self._file.close()
        self._file = self._offsets = None

    def _enter(self, path: str) -> None:
        self.close()
        self._path, self._stamp = path, _seekable(path)
        if self._stamp is not None and not path.lower().endswith(".parquet"):
            self._file = _opened(path, self._stamp.etag)
            self._offsets = LineOffsets(self._file)

    def _stretch(self, first_line: int) -> Stretch | None:
        if self._stamp is None or self._path is None:
            return None
        return Stretch(
            path=self._path if is_url(self._path) else os.path.abspath(self._path),
            offset=0 if self._offsets is None else self._offsets.of(first_line),
            first_line=first_line,
            size_bytes=self._stamp.size_bytes,
            modified_ns=self._stamp.modified_ns,
            etag=self._stamp.etag,
        )


def _anywhere(prompt: Prompt) -> Prompt:
    """The prompt with paths of attachments that hold in any folder."""
    if not prompt.attachments:
        return prompt
    attachments = tuple(
        each if each.path is None else msgspec.structs.replace(each, path=os.path.abspath(each.path))
        for each in prompt.attachments
    )
    return msgspec.structs.replace(prompt, attachments=attachments)


def _opened(path: str, etag: str | None) -> BinaryIO:
    """The file, or the object as a stream; the caller closes it.

    Raises:
        OSError: It cannot be read, now or in a reading call.
    """
    if etag is None:
        return open(path, "rb")
    from batchchat.storage import open_range

    return open_range(path, etag=etag, failure=lambda error: OSError(errno.EIO, error.reason))


def _seekable(path: str) -> _Stamp | None:
    """What is known of a file whose lines can be found by their position; None for any other input."""
    if not path or path == "-" or compression_of(path) or path.lower().endswith((".csv", ".tsv")):
        return None
    if is_url(path):
        from batchchat import storage

        try:
            there = storage.stat(path)
        except storage.StorageError:
            return None
        return _Stamp(there.size_bytes, 0, there.etag)
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return _Stamp(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
