"""The prompts of a shard, read where they stand."""

import io
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import msgspec

from batchchat.compress import input_failure
from batchchat.errors import PromptFileError
from batchchat.jsonl import MAX_INPUT_DEPTH, iter_lines, parse_object
from batchchat.parquet_rows import iter_parquet_rows
from batchchat.prompts import PromptReader
from batchchat.records import Prompt, PromptId
from batchchat.shards.shard import Asked, Shard, Stretch

__all__ = ["shard_prompts"]

# An errors file's line holds its input so many levels deep, in its batch form.
_ERROR_LINE_LEVELS = 2


class Done(Protocol):
    """Ids of prompts that need not be asked."""

    def __contains__(self, id: PromptId, /) -> bool:
        """Whether a prompt is one of them."""


def shard_prompts(
    shard: Shard,
    reader: PromptReader,
    fingerprint_of: Callable[[Prompt], str],
    done: Done,
) -> Iterator[tuple[Prompt, str]]:
    """The shard's prompts that are not done, each with its fingerprint.

    Raises:
        PromptFileError: The file is not as it was when it was cut, or cannot be read.
    """
    if shard.stretch is None:
        for asked, prompt in zip(shard.asked, shard.prompts, strict=True):
            if asked.id not in done:
                yield prompt, asked.fingerprint
        return
    wanted = {(each.line, each.id): each for each in shard.asked if each.id not in done}
    left = len(wanted)
    if not left:
        return
    for prompt in _prompts(shard.stretch, reader, {each.line: each.row for each in wanted.values()}):
        found = wanted.get((prompt.line_number, prompt.id))
        if found is None:
            continue
        prompt = msgspec.structs.replace(prompt, index=found.index)
        if fingerprint_of(prompt) != found.fingerprint:
            raise _changed(shard.stretch, found)
        yield prompt, found.fingerprint
        left -= 1
        if not left:
            return
    raise PromptFileError(shard.stretch.path, f"{left} prompts are not there any more; {_same(shard.stretch)}")


def _same(stretch: Stretch) -> str:
    if stretch.etag is not None:
        return "expected the object that the run began with; run the same command again to read the new one"
    return "a worker sees another file than the run does, expected one file in a folder that all of them share"


def _changed(stretch: Stretch, asked: Asked) -> PromptFileError:
    return PromptFileError(stretch.path, f"found another prompt than the run read; {_same(stretch)}", asked.line)


def _prompts(stretch: Stretch, reader: PromptReader, rows: dict[int, PromptId]) -> Iterator[Prompt]:
    try:
        if not _is_still(stretch):
            raise PromptFileError(stretch.path, f"it was changed since the run began; {_same(stretch)}")
        for _, prompts in reader.told(stretch.path, _records(stretch), rows):
            yield from prompts
    except OSError as error:
        raise PromptFileError(stretch.path, f"cannot be read ({error.strerror or error}); {_same(stretch)}") from error
    except ValueError as error:
        raise PromptFileError(stretch.path, f"{error}; {_same(stretch)}") from error


def _is_still(stretch: Stretch) -> bool:
    """Whether the file is what it was when it was cut; an object is told by its etag.

    Raises:
        OSError: There is no such file.
        PromptFileError: The object cannot be asked for.
    """
    if stretch.etag is None:
        found = os.stat(stretch.path)
        return (found.st_size, found.st_mtime_ns) == (stretch.size_bytes, stretch.modified_ns)
    from batchchat import storage

    try:
        return storage.stat(stretch.path).etag == stretch.etag
    except storage.StorageError as error:
        raise input_failure(error) from error


def _opened(stretch: Stretch) -> BinaryIO:
    """The file or object from the shard's first line on."""
    if stretch.etag is not None:
        from batchchat.storage import open_range

        return open_range(stretch.path, stretch.offset, stretch.etag, failure=input_failure)
    file = open(stretch.path, "rb", buffering=io.DEFAULT_BUFFER_SIZE)  # noqa: SIM115 - the caller closes it
    file.seek(stretch.offset)
    return file


def _records(stretch: Stretch) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The file's records from the first line of the shard on, without the work of those before."""
    if stretch.path.lower().endswith(".parquet"):
        yield from iter_parquet_rows(stretch.path, stretch.first_line)
        return
    with _opened(stretch) as file:
        for number, line in iter_lines(file):
            yield stretch.first_line + number - 1, _record(line)


def _record(line: bytes) -> dict[str, Any] | str:
    try:
        wrapped = _ERROR_LINE_LEVELS if b'"error"' in line else 0
        return parse_object(line, max_depth=MAX_INPUT_DEPTH + wrapped)
    except ValueError as error:
        return str(error)
