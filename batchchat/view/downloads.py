"""The rows that match as a file: their lines as they stand, or a CSV table with the columns that ``convert`` makes."""

from collections.abc import Iterator, Sequence
from typing import Any

from batchchat.forms.csv_table import CsvWriter
from batchchat.forms.losses import Losses
from batchchat.forms.result_rows import INPUT_PREFIX, RESULT_COLUMNS, result_to_row
from batchchat.results.lines import outcome_to_object
from batchchat.results.stored import outcome_from_object
from batchchat.view.book import Book
from batchchat.view.lines import read_object

__all__ = ["csv_pieces", "jsonl_pieces"]

_PIECE_BYTES = 256 << 10
_MOST_COLUMNS = 1000


def jsonl_pieces(book: Book, rows: Sequence[int]) -> Iterator[bytes]:
    """The lines of these rows, byte for byte, some at a time.

    Raises:
        StaleError: The file was replaced.
        ResultsFileError: It cannot be read.
    """
    waiting, size = [], 0
    for row in rows:
        line = book.line(row)
        waiting += [line, b"\n"]
        size += len(line) + 1
        if size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def csv_pieces(book: Book, rows: Sequence[int]) -> Iterator[bytes]:
    """A table of these rows; text that a spreadsheet would run as a formula has ``'`` before it.

    The lines are read twice, as the columns stand in front: at most 1,000, further fields of the input are left out.

    Raises:
        StaleError: The file was replaced.
        ResultsFileError: It cannot be read.
    """
    names = dict.fromkeys(RESULT_COLUMNS)
    for number, row in enumerate(rows):
        names |= dict.fromkeys(name for name in _cells(book.line(row)) if len(names) < _MOST_COLUMNS)
        if number % 1000 == 0:
            yield b""  # so that whoever left is noticed
    table = CsvWriter([name for name in names if name.strip()], ",", Losses(), escape_formulas=True)
    waiting, size = [table.header()], 0
    for row in rows:
        waiting.append(_line(table, book.line(row)))
        size += len(waiting[-1])
        if size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _line(table: CsvWriter, data: bytes) -> bytes:
    cells = _cells(data)
    try:
        return table.row(cells)
    except ValueError:  # half an emoji and the like
        return table.row({name: cells.get(name) for name in ("id", "index", "attempts", "latency_s", "finished_at")})


def _cells(data: bytes) -> dict[str, Any]:
    """A row as ``result_to_row`` makes it; odd lines have what can be told of them."""
    obj = read_object(data)
    try:
        return result_to_row(obj if "custom_id" not in obj else _flat(obj))
    except (ValueError, TypeError):
        given = obj.get("input")
        fields = {INPUT_PREFIX + name: value for name, value in given.items()} if isinstance(given, dict) else {}
        return {"id": str(obj.get("id", "")), **fields}


def _flat(obj: dict[str, Any]) -> dict[str, Any]:
    return dict(outcome_to_object(outcome_from_object(obj)))
