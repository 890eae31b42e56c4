"""The records of one input file, whatever its form: read as they are asked for, parsed one by one."""

import os
from collections.abc import Iterator
from typing import Any, cast

from batchchat.compress import compression_of, open_input
from batchchat.csv_rows import iter_rows
from batchchat.errors import PromptFileError
from batchchat.input_lines import PlainLine, read_plain
from batchchat.jsonl import MAX_INPUT_DEPTH, iter_lines, parse_object
from batchchat.parquet_rows import iter_parquet_rows

__all__ = ["iter_plain_records", "iter_records"]

# An errors file's line holds its input so many levels deep, in its batch form.
_ERROR_LINE_LEVELS = 2
# While no more than one line of eight is not plain, it pays to try the next one; at first, so many more.
_TRIES = 100


def iter_records(path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """1-based line number of each record with its object, or with what is wrong with it."""
    return cast("Iterator[tuple[int, dict[str, Any] | str]]", iter_plain_records(path, may_be_plain=False))


def iter_plain_records(path: str, *, may_be_plain: bool) -> Iterator[tuple[int, PlainLine | dict[str, Any] | str]]:
    """As ``iter_records``; ``may_be_plain``: plain lines are told as such."""
    name = (os.path.splitext(path)[0] if compression_of(path) else path).lower()
    if name.endswith(".parquet"):
        yield from iter_parquet_rows(path)
        return
    stream = open_input(path)
    try:
        if name.endswith((".csv", ".tsv")):
            yield from iter_rows(stream, path, delimiter="\t" if name.endswith(".tsv") else ",")
            return
        others = 0
        for line_number, line in iter_lines(stream):
            if may_be_plain and others * 8 <= line_number + _TRIES:
                if (plain := read_plain(line)) is not None:
                    yield line_number, plain
                    continue
                others += 1
            try:
                wrapped = _ERROR_LINE_LEVELS if b'"error"' in line else 0
                record: dict[str, Any] | str = parse_object(line, max_depth=MAX_INPUT_DEPTH + wrapped)
            except ValueError as error:
                record = str(error)
            yield line_number, record
    except OSError as error:
        raise PromptFileError(path, f"cannot be read ({error.strerror or error})") from error
    finally:
        if path != "-":
            stream.close()
