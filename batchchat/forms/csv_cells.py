"""What the cells of a CSV file's known columns mean when they are read."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

import orjson

from batchchat.forms.csv_table import PROMPT_OPTIONAL
from batchchat.forms.result_rows import RESULT_COLUMNS, row_to_result
from batchchat.jsonl import has_long_number, parse_value

__all__ = ["read_columns", "read_prompt_cells", "read_result_cells"]

_TYPES: dict[str, frozenset[type]] = {
    "int": frozenset((int, NoneType)),
    "float": frozenset((int, float, NoneType)),
    "bool": frozenset((bool, NoneType)),
}


def read_prompt_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of cells as a prompt line, empty settings left out."""
    return {name: cell for name, cell in row.items() if cell != "" or name not in PROMPT_OPTIONAL}


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


def read_columns(columns: Mapping[str, list[str]]) -> dict[str, list[Any]] | None:
    """The values of result cells; None where ``read_result_cells`` has to look at each row."""
    done: dict[str, list[Any]] = {}
    for name, cells in columns.items():
        kind = RESULT_COLUMNS.get(name)
        if kind is None:
            done[name] = list(cells)
        elif not any(cells):
            done[name] = [None] * len(cells)
        elif kind == "str":
            done[name] = list(cells) if all(cells) else [cell or None for cell in cells]
        elif kind == "json":
            done[name] = [_json_or_text(cell) if cell else None for cell in cells]
        elif (values := _scalars(cells, _TYPES[kind])) is not None:
            done[name] = values
        else:
            return None
    return done


def _scalars(cells: list[str], types: frozenset[type]) -> list[Any] | None:
    """The values of cells, None of an empty one; None for all where one is no value of these types."""
    text = ",".join([cell or "null" for cell in cells]).encode()
    if has_long_number(text):
        return None
    try:
        values: list[Any] = orjson.loads(b"[" + text + b"]")
    except orjson.JSONDecodeError:
        return None
    if len(values) != len(cells) or values.count(None) != cells.count(""):
        return None
    return values if types.issuperset(map(type, values)) else None


def _json_or_text(cell: str) -> Any:
    if not cell.strip():
        return cell
    try:
        return parse_value(cell.encode())
    except ValueError:
        return cell
