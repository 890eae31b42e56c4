"""Rows of a CSV file as objects, one fault for each row that does not fit the header."""

import csv
import sys
from collections.abc import Iterable, Iterator
from io import StringIO
from itertools import chain
from typing import Any, BinaryIO

from batchchat.errors import PromptFileError
from batchchat.jsonl import MAX_INPUT_DEPTH, MAX_LINE_BYTES, iter_line_blocks, parse_value

__all__ = ["JSON_COLUMNS", "iter_rows", "objects_of_cells", "read_table"]

_READ_BYTES = 64 << 10
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
# Columns of these names hold JSON, as nothing else in them could be of use.
JSON_COLUMNS = ("messages", "turns", "params")


def iter_rows(stream: BinaryIO, path: str, *, delimiter: str = ",") -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Rows below the header line, read as they are asked for.

    Fields are separated by the delimiter and quoted by ``"``; a quoted field may hold line ends. Blank lines are passed
    over. Semicolons or tabs in a header line without commas and quotes are delimiters.
    Python's limit on the length of a field, which holds for the process, is raised to that of an input line.

    Args:
        stream: UTF-8, with or without a byte order mark.
        path: For messages.
        delimiter: A comma, or a tab for TSV.

    Yields:
        1-based physical line where the row starts; the row as an object, or what is wrong with it. Its values are
        texts; JSON lists and objects in columns ``messages``, ``turns`` and ``params`` are read, empty cells there left
        out.

    Raises:
        PromptFileError: The header cannot be used: an empty name, one name twice, bad quoting, not UTF-8.
    """
    names, rows = read_table(stream, path, delimiter=delimiter)
    yield from objects_of_cells(names, rows)


def objects_of_cells(
    names: list[str], rows: Iterable[tuple[int, list[str] | str]]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The objects of rows, see ``iter_rows``."""
    json_names = [name for name in JSON_COLUMNS if name in names]
    for line_number, cells in rows:
        yield line_number, cells if isinstance(cells, str) else _object(names, cells, json_names)


def read_table(
    stream: BinaryIO, path: str, *, delimiter: str
) -> tuple[list[str], Iterator[tuple[int, list[str] | str]]]:
    """The header's names, none for an empty file, and the rows below it: number, cells or what is wrong with them.

    Raises:
        PromptFileError: As ``iter_rows``.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    rows = _iter_cells(stream, delimiter)
    for line_number, header in rows:
        names = _checked_header(path, line_number, header)
        return names, _of_one_width(rows, names)
    return [], rows


def _of_one_width(
    rows: Iterator[tuple[int, list[str] | str]], names: list[str]
) -> Iterator[tuple[int, list[str] | str]]:
    width = len(names)
    for line_number, cells in rows:
        if len(cells) == width or isinstance(cells, str):
            yield line_number, cells
        else:
            shown = ", ".join(names[:10]) + (", …" if width > 10 else "")
            yield line_number, f"expected {width} cells ({shown}), found {len(cells)}"


def _object(names: list[str], cells: list[str], json_names: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(names, cells, strict=True))
    for name in json_names:
        _read_json(row, name)
    # An empty cell beside a filled one of these asks for nothing.
    if row.get("prompt") == "" and ("messages" in row or "turns" in row):
        del row["prompt"]
    return row


def _read_json(row: dict[str, Any], name: str) -> None:
    cell = row[name]
    if not cell.strip():
        del row[name]
        return
    try:
        value = parse_value(cell.encode(), max_depth=MAX_INPUT_DEPTH)
    except ValueError:
        return
    if isinstance(value, list | dict):
        row[name] = value


def _checked_header(path: str, line_number: int, names: list[str] | str) -> list[str]:
    if isinstance(names, str):
        raise PromptFileError(path, f"header line: {names}", line_number)
    for position, name in enumerate(names):
        if not name.strip():
            raise PromptFileError(
                path, f"expected a name for column {position + 1} in the header, found none", line_number
            )
        if name in names[:position]:
            raise PromptFileError(path, f"found {name!r} twice in the header, expected names that differ", line_number)
    return names


def _iter_cells(stream: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Line number and cells of each row, the header included, or what is wrong with it."""
    texts = _iter_texts(stream)
    head = list(_until_header(texts))
    if delimiter == "," and head:
        delimiter = _delimiter_of(head[-1])
    reader = csv.reader(chain(head, texts), strict=True, delimiter=delimiter)
    while True:
        line_number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield (
                line_number,
                f'found a row that is no CSV ({error}), expected cells with {_NAMES[delimiter]} between, quoted by "',
            )
            continue
        if not cells or (len(cells) == 1 and cells[0].isspace()):
            continue
        try:
            "".join(cells).encode()
        except UnicodeEncodeError:
            yield line_number, "found bytes that are not UTF-8, expected UTF-8 text"
        else:
            yield line_number, cells


def _until_header(texts: Iterator[str]) -> Iterator[str]:
    """The first lines up to the one that is not blank."""
    for text in texts:
        yield text
        if text.strip():
            return


def _delimiter_of(header: str) -> str:
    """What separates the cells: spreadsheets write semicolons where a comma stands in numbers, or tabs."""
    if "," in header or '"' in header:
        return ","
    return ";" if ";" in header else "\t" if "\t" in header else ","


def _iter_texts(stream: BinaryIO) -> Iterator[str]:
    """Lines with their ends, as many at a time as have arrived; one is added where the file does not end with it."""
    blocks = iter_line_blocks(stream, max_line_bytes=sys.maxsize, block_bytes=_READ_BYTES)
    # A byte that is not UTF-8 becomes half of a surrogate pair and faults its row alone, not the rest of the file.
    texts = ((b"\n".join(lines) + b"\n").decode("utf-8", "surrogateescape") for _, lines in blocks)
    return chain.from_iterable(StringIO(text, newline="\n") for text in texts)
