"""Lines of a file in blocks: what holds for each is looked at for many at once, in a part of the time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from batchchat.forms.result_columns import row_columns, rows_of_columns
from batchchat.jsonl import MAX_LINE_BYTES, has_long_number, iter_line_blocks, parse_object

__all__ = ["Block", "Row", "gathered", "gathered_cells", "parsed_blocks"]

Row = tuple[int, dict[str, Any] | str]
# So little that what is made of it stays in the processor's cache, and that the memory is not given back to the system
# after each block, to be asked for again at the next, which takes longer than reading it.
_BLOCK_BYTES = 64 << 10
_MOST_ROWS = 256
_FEW_BRACKETS = 12


class Block:
    """Lines that follow each other.

    Args:
        numbers: Their 1-based numbers in the file.
        rows: Their objects, or what is wrong with them.
        columns: In their place, the values of each of their keys; all have the same ones, at least one.

    Attributes:
        faulty: Whether anything is wrong with a line.
    """

    __slots__ = ("_columns", "_rows", "faulty", "numbers")

    def __init__(
        self,
        numbers: Sequence[int],
        rows: list[Any] | None = None,
        *,
        faulty: bool = False,
        columns: dict[str, list[Any]] | None = None,
    ) -> None:
        self.numbers, self.faulty = numbers, faulty
        self._rows, self._columns = rows, columns

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def rows(self) -> list[Any]:
        """The objects of the lines, or what is wrong with them."""
        if self._rows is None:
            self._rows = rows_of_columns(self._columns or {})
        return self._rows

    @property
    def columns(self) -> dict[str, list[Any]] | None:
        """The values of each key; None where lines differ in their keys, or are at fault."""
        if self._columns is None and not self.faulty:
            self._columns = row_columns(self.rows)
        return self._columns

    def items(self) -> Iterator[Row]:
        """Number and row of each line."""
        return zip(self.numbers, self.rows, strict=True)

    def first(self, count: int) -> "Block":
        """The first lines."""
        return Block(self.numbers[:count], self.rows[:count], faulty=self.faulty)


def parsed_blocks(stream: BinaryIO, *, max_depth: int) -> Iterator[Block]:
    """The objects of JSON Lines, of some 64 KiB at a time, or of one line.

    Args:
        max_depth: As for ``parse_object``.
    """
    for first, lines in iter_line_blocks(stream, block_bytes=_BLOCK_BYTES):
        rows = _parsed(lines, max_depth) if all(lines) else None
        if rows is not None:
            yield Block(range(first, first + len(rows)), rows)
            continue
        numbers = [number for number, line in enumerate(lines, first) if line.strip()]
        if numbers:
            rows = [_careful(lines[number - first], max_depth) for number in numbers]
            yield Block(numbers, rows, faulty=any(isinstance(row, str) for row in rows))


def gathered(rows: Iterable[Row], size_of: Callable[[dict[str, Any]], int] = lambda row: 0) -> Iterator[Block]:
    """Rows that come one by one, each as a block of its own where it is at fault.

    Args:
        size_of: Some bytes that a row takes, where it is not in memory already.
    """
    for numbers, objects, fault in _gathered(rows, size_of):
        yield Block(numbers, objects) if fault is None else Block(numbers, [fault], faulty=True)


def gathered_cells(names: Sequence[str], rows: Iterable[tuple[int, list[str] | str]]) -> Iterator[Block]:
    """As ``gathered``, of rows of texts below a header, some 64 KiB of them at a time."""
    for numbers, cells, fault in _gathered(rows, lambda row: sum(map(len, row))):
        if fault is None:
            yield Block(numbers, columns=dict(zip(names, map(list, zip(*cells, strict=True)), strict=True)))
        else:
            yield Block(numbers, [fault], faulty=True)


def _gathered(
    rows: Iterable[tuple[int, Any]], size_of: Callable[[Any], int]
) -> Iterator[tuple[list[int], list[Any], str | None]]:
    """Numbers with what stands in rows, or with what is wrong with a single one."""
    numbers: list[int] = []
    good: list[Any] = []
    size = 0
    for number, row in rows:
        if type(row) is not str:
            numbers.append(number)
            good.append(row)
            size += size_of(row)
            if size < _BLOCK_BYTES and len(good) < _MOST_ROWS:
                continue
        if good:
            yield numbers, good, None
            numbers, good, size = [], [], 0
        if type(row) is str:
            yield [number], [], row
    if good:
        yield numbers, good, None


def _parsed(lines: list[bytes], max_depth: int) -> list[Any] | None:
    """The objects; None where ``parse_object`` has to look at a line."""
    data = b"\n".join(lines)
    if len(data) > MAX_LINE_BYTES or has_long_number(data):
        return None
    if any(len(line) >= 2 * max_depth and _may_be_deep(line, max_depth) for line in lines):
        return None
    try:
        found = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    return found if set(map(type, found)) == {dict} else None


def _may_be_deep(line: bytes, levels: int) -> bool:
    """Whether so many brackets open in it; most lines have few, which are found sooner than counted."""
    for bracket in (b"{", b"["):
        at = -1
        for _ in range(min(_FEW_BRACKETS, levels // 2)):
            at = line.find(bracket, at + 1)
            if at < 0:
                break
        else:
            return line.count(b"{") + line.count(b"[") > levels
    return False


def _careful(line: bytes, max_depth: int) -> dict[str, Any] | str:
    try:
        return parse_object(line.removesuffix(b"\r"), max_depth=max_depth)
    except ValueError as error:
        return str(error)
