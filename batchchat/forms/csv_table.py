"""CSV and TSV: rows as lines of text cells, and what the cells of known columns mean when they are read."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from batchchat.forms.losses import Losses
from batchchat.forms.result_rows import RESULT_COLUMNS, is_result_table, row_to_result
from batchchat.jsonl import dump_line, json_type, parse_value

__all__ = ["CsvWriter", "Formulas", "read_prompt_cells", "read_result_cells"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
# Integers that take no detour: longer ones have a way of their own to be written.
_INT_BITS = 64
_PROMPT_JSON = ("messages", "turns", "params")
_PROMPT_OPTIONAL = (*_PROMPT_JSON, "prompt", "system", "model", "chat_id")


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
        self._may_be_empty = frozenset(RESULT_COLUMNS if self._is_result else _PROMPT_OPTIONAL)
        # Columns in which a number reads back as it is.
        known = RESULT_COLUMNS.items() if self._is_result else ()
        self._numbers = frozenset(name for name, kind in known if kind in ("int", "float"))
        self.formulas = Formulas()

    def header(self) -> bytes:
        """The header line; nothing where there is no column.

        Raises:
            ValueError: A field's name can be no column's.
        """
        for name in self._names:
            if not name.strip():
                raise ValueError("found a field with an empty name, expected names that can stand in a header line")
        cells = [self._text(name, None) for name in self._names]
        # A lone name with one of these would be taken for several.
        if len(cells) == 1 and (";" in cells[0] or "\t" in cells[0]) and '"' not in self._quoted(cells[0]):
            return f'"{cells[0]}"\n'.encode()
        return self._line(cells) if cells else b""

    def row(self, row: Mapping[str, Any]) -> bytes:
        """The line of a row."""
        get, may_be_empty, numbers = row.get, self._may_be_empty, self._numbers
        cells: list[str] = []
        # This runs for each cell: those that need no closer look are seen to be such here, without a call of ours.
        for name in self._names:
            value = get(name)
            if value is None and name in may_be_empty:
                cells.append("")
            elif type(value) is str and value.isalnum():
                cells.append(value)
            elif type(value) is int and name in numbers and value.bit_length() < _INT_BITS:
                cells.append(str(value))
            elif type(value) is float and name in numbers:
                cells.append(orjson.dumps(value).decode())
            else:
                cells.append(self._quoted(self._cell(name, row)))
        return self._joined(cells) if cells else b""

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

    def _cell(self, name: str, row: Mapping[str, Any]) -> str:
        value = row.get(name)
        if isinstance(value, str):
            if not value:
                self._tell_empty(name)
            return self._text(value, self._losses.line_number)
        known = self._is_result and name in RESULT_COLUMNS
        if value is None:
            if name not in self._may_be_empty:
                what = f"null in {name!r}" if name in row else f"no {name!r}"
                self._losses.tell(self._form, what, "which reads back as empty text")
            return ""
        if not (known and _reads_back(name, value)) and not (not self._is_result and name in _PROMPT_JSON):
            self._losses.tell(self._form, f"{json_type(value)} in {name!r}", "which reads back as text")
        if type(value) is int and value.bit_length() < _INT_BITS:
            return str(value)
        return dump_line({"": value})[4:-2].decode()

    def _tell_empty(self, name: str) -> None:
        if self._is_result and name in RESULT_COLUMNS:
            self._losses.tell(self._form, f"empty text in {name!r}", "which reads back as null")
        elif not self._is_result and name in _PROMPT_OPTIONAL:
            self._losses.tell(self._form, f"empty text in {name!r}", "which reads back as a field that is not there")

    def _text(self, text: str, line_number: int | None) -> str:
        if not text.startswith(_FORMULA):
            return text
        if self._escape:
            return f"'{text}"
        if not _NUMBER.fullmatch(text):
            self.formulas.note(line_number)
        return text


def _reads_back(name: str, value: Any) -> bool:
    kind = RESULT_COLUMNS[name]
    if kind == "json":
        return True
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, int | float) and kind in ("int", "float")


def read_prompt_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of cells as a prompt line, empty settings left out."""
    return {name: cell for name, cell in row.items() if cell != "" or name not in _PROMPT_OPTIONAL}


def read_result_cells(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of cells as a result line.

    Raises:
        ValueError: A cell is not what its column holds.
    """
    done: dict[str, Any] = {}
    for name, cell in row.items():
        kind = RESULT_COLUMNS.get(name, "str")
        if name in RESULT_COLUMNS and not cell:
            done[name] = None
        elif kind == "str":
            done[name] = cell
        else:
            value = _json_or_text(cell)
            fits = kind == "json" or type(value).__name__ == kind or (kind == "float" and type(value) is int)
            if not fits:
                raise ValueError(f"expected a value of type {kind} in column {name!r}, found {cell[:40]!r}")
            done[name] = value
    return row_to_result(done)


def _json_or_text(cell: str) -> Any:
    if not cell.strip():
        return cell
    try:
        return parse_value(cell.encode())
    except ValueError:
        return cell
