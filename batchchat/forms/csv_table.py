"""CSV and TSV: rows as lines of text cells; ``csv_cells`` reads them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from types import NoneType
from typing import Any

import orjson

from batchchat.forms.losses import Losses
from batchchat.forms.result_columns import BlockColumns
from batchchat.forms.result_rows import RESULT_COLUMNS, is_result_table
from batchchat.jsonl import dump_line, json_type

__all__ = ["PROMPT_OPTIONAL", "CsvWriter", "Formulas"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_FORMULA_STARTS = frozenset(_FORMULA)
# Integers that take no detour: longer ones have a way of their own to be written.
_INT_BITS = 64
# Types of values that read back as they are in columns of a type; all of a column are written at once.
_NUMBERS = frozenset((int, float, NoneType))
_WRITTEN_AT_ONCE = {"int": _NUMBERS, "float": _NUMBERS, "bool": frozenset((bool, NoneType))}
_PROMPT_JSON = ("messages", "turns", "params")
PROMPT_OPTIONAL = (*_PROMPT_JSON, "prompt", "system", "model", "chat_id")


class Formulas:
    """Text that a spreadsheet would take for a formula, as it went into a table.

    Attributes:
        lines: How many lines have some; the line of the columns' names is not counted.
        first_line: 1-based number of the first line that is read and has some; 0 where only a column's name is some.
    """

    def __init__(self) -> None:
        self.lines = self.first_line = 0
        self._last_line = 0
        self._in_header = False

    def __bool__(self) -> bool:
        return self._in_header or self.lines > 0

    def __str__(self) -> str:
        have = "1 line has" if self.lines == 1 else f"{self.lines:,} lines have"
        if not self.lines:
            have = "a column's name is"
        first = f" (first: line {self.first_line})" if self.lines else ""
        return f"{have} text that a spreadsheet runs as a formula{first}; --escape-formulas puts ' before it"

    def note(self, line_number: int | None) -> None:
        """Counts a line that has such text, once; None for the columns' names."""
        if line_number is None:
            self._in_header = True
        elif line_number != self._last_line:
            self.lines += 1
            self._last_line = line_number
            self.first_line = self.first_line or line_number


class CsvWriter:
    """Rows to lines of a CSV file.

    Args:
        names: The columns.
        delimiter: A comma or a tab.
        form: For messages.
        escape_formulas: Put ``'`` before text that a spreadsheet would take for a formula.
    """

    def __init__(
        self, names: list[str], delimiter: str, losses: Losses, *, form: str = "csv", escape_formulas: bool = False
    ) -> None:
        self._names, self._delimiter, self._losses, self._form = names, delimiter, losses, form
        self._escape = escape_formulas
        self._is_result = is_result_table(names)
        # Columns in which an empty cell reads back as null, or as a field that is not there.
        self._may_be_empty = frozenset(RESULT_COLUMNS if self._is_result else PROMPT_OPTIONAL)
        known = RESULT_COLUMNS if self._is_result else {}
        self._at_once = {name: _WRITTEN_AT_ONCE[kind] for name, kind in known.items() if kind in _WRITTEN_AT_ONCE}
        self.formulas = Formulas()

    def header(self) -> bytes:
        """The header line; nothing where there is no column.

        Raises:
            ValueError: A field's name can be no column's.
        """
        for name in self._names:
            if not name.strip():
                raise ValueError("found a field with an empty name, expected names that can stand in a header line")
        cells = [self._text(name, lambda: self.formulas.note(None)) for name in self._names]
        # A lone name with one of these would be taken for several.
        if len(cells) == 1 and (";" in cells[0] or "\t" in cells[0]) and '"' not in self._quoted(cells[0]):
            return f'"{cells[0]}"\n'.encode()
        return self._line(cells) if cells else b""

    def row(self, row: Mapping[str, Any]) -> bytes:
        """The line of a row."""

        def tell(what: str, fate: str) -> None:
            self._losses.tell(self._form, what, fate)

        def note_formula() -> None:
            self.formulas.note(self._losses.line_number)

        get, may_be_empty = row.get, self._may_be_empty
        cells = [
            ""
            if (value := get(name)) is None and name in may_be_empty
            else self._cell(name, value, name in row, tell, note_formula)
            for name in self._names
        ]
        return self._joined(cells) if cells else b""

    def rows(self, numbers: Sequence[int], columns: BlockColumns) -> bytes:
        """The lines of many rows.

        Args:
            numbers: Of the lines that they are made of, for messages.
        """
        seen = _Seen(numbers)
        done: list[Iterable[str]] = [self._column(name, columns, seen) for name in self._names]
        self._losses.tell_lines(self._form, seen.losses)
        for number in sorted(seen.formulas):
            self.formulas.note(number)
        if len(done) == 1:
            done = [[cell or '""' for cell in done[0]]]
        return ("\n".join(map(self._delimiter.join, zip(*done, strict=True))) + "\n").encode() if done else b""

    def _column(self, name: str, columns: BlockColumns, seen: "_Seen") -> Iterable[str]:
        """The cells of a column: all at once where none needs a look of its own."""
        may_be_empty, values = name in self._may_be_empty, columns.values.get(name)
        if values is None and may_be_empty:
            return repeat("", columns.rows)
        values = values or [None] * columns.rows
        kinds = set(map(type, values))
        cells: list[str] | None = None
        if kinds == {str}:
            cells = self._texts(values)
        elif may_be_empty and kinds == {str, NoneType}:
            filled = self._texts([value for value in values if value is not None])
            if filled is not None:
                rest = iter(filled)
                cells = ["" if value is None else next(rest) for value in values]
        elif kinds <= self._at_once.get(name, frozenset()):
            cells = _all_as_json(values, has_null=NoneType in kinds)
        elif kinds == {int} or kinds == {float}:
            cells = _all_as_json(values, has_null=False)
            if cells is not None and self._is_lossy(name, values[0]):
                seen.losses[_as_text(name, values[0])] = list(seen.numbers)
        return self._one_by_one(name, values, columns, seen) if cells is None else cells

    def _one_by_one(self, name: str, values: list[Any], columns: BlockColumns, seen: "_Seen") -> list[str]:
        cells = []
        for place, value in enumerate(values):
            seen.number = seen.numbers[place]
            is_there = value is not None or columns.has(name, place)
            cells.append(self._cell(name, value, is_there, seen.tell, seen.note_formula))
        return cells

    def _texts(self, texts: list[str]) -> list[str] | None:
        """The cells of texts; None where one of them is to be told of, or may be."""
        firsts, lasts = {text[:1] for text in texts}, {text[-1:] for text in texts}
        if "" in firsts or not firsts.isdisjoint(_FORMULA_STARTS):
            return None
        if any(not sign.isprintable() or sign.isspace() for sign in firsts) or any(map(str.isspace, lasts)):
            return list(map(self._quoted, texts))
        between = self._delimiter
        whole = "".join(texts)
        if not ('"' in whole or between in whole or "\n" in whole or "\r" in whole):
            return texts
        return [
            '"' + text.replace('"', '""') + '"'
            if between in text or '"' in text or "\n" in text or "\r" in text
            else text
            for text in texts
        ]

    def _line(self, cells: list[str]) -> bytes:
        return self._joined([self._quoted(cell) for cell in cells])

    def _joined(self, cells: list[str]) -> bytes:
        text = self._delimiter.join(cells)
        # A line without a character is no row for readers.
        return (text or '""').encode() + b"\n"

    def _quoted(self, cell: str) -> str:
        if not cell:
            return cell
        if '"' in cell or self._delimiter in cell or "\n" in cell or "\r" in cell or not cell[0].isprintable():
            return '"' + cell.replace('"', '""') + '"'
        return f'"{cell}"' if cell[0].isspace() or cell[-1].isspace() else cell

    def _cell(
        self, name: str, value: Any, is_there: bool, tell: Callable[[str, str], None], note_formula: Callable[[], None]
    ) -> str:
        if isinstance(value, str):
            if value.isalnum():
                return value
            if not value:
                self._tell_empty(name, tell)
            return self._quoted(self._text(value, note_formula))
        if value is None:
            if name not in self._may_be_empty:
                tell(f"null in {name!r}" if is_there else f"no {name!r}", "which reads back as empty text")
            return ""
        if self._is_lossy(name, value):
            tell(*_as_text(name, value))
        if type(value) is int and value.bit_length() < _INT_BITS:
            return str(value)
        return self._quoted(dump_line({"": value})[4:-2].decode())

    def _is_lossy(self, name: str, value: Any) -> bool:
        """Whether a value that is no text reads back as text."""
        if self._is_result:
            return not (name in RESULT_COLUMNS and _reads_back(name, value))
        return name not in _PROMPT_JSON

    def _tell_empty(self, name: str, tell: Callable[[str, str], None]) -> None:
        if self._is_result and name in RESULT_COLUMNS:
            tell(f"empty text in {name!r}", "which reads back as null")
        elif not self._is_result and name in PROMPT_OPTIONAL:
            tell(f"empty text in {name!r}", "which reads back as a field that is not there")

    def _text(self, text: str, note_formula: Callable[[], None]) -> str:
        if not text.startswith(_FORMULA):
            return text
        if self._escape:
            return f"'{text}"
        if not _NUMBER.fullmatch(text):
            note_formula()
        return text


class _Seen:
    """What is to be told of the rows of a block; ``number`` is the line whose cell is looked at."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers, self.number = numbers, 0
        self.losses: dict[tuple[str, str], list[int]] = {}
        self.formulas: set[int] = set()

    def tell(self, what: str, fate: str) -> None:
        self.losses.setdefault((what, fate), []).append(self.number)

    def note_formula(self) -> None:
        self.formulas.add(self.number)


def _as_text(name: str, value: Any) -> tuple[str, str]:
    return f"{json_type(value)} in {name!r}", "which reads back as text"


def _all_as_json(values: list[Any], *, has_null: bool) -> list[str] | None:
    """Numbers, truth values and null as cells; None where a number is too long for orjson."""
    try:
        text = orjson.dumps(values)[1:-1].decode()
    except TypeError:
        return None
    return (text.replace("null", "") if has_null else text).split(",")


def _reads_back(name: str, value: Any) -> bool:
    kind = RESULT_COLUMNS[name]
    if kind == "json":
        return True
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, int | float) and kind in ("int", "float")
