"""The lines of a block as columns: the same cells as in the rows of ``result_rows``, each column's at once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from operator import itemgetter
from types import NoneType
from typing import Any

from batchchat.forms.result_rows import (
    ALWAYS_COUNTED,
    ERROR_COLUMNS,
    INPUT_PREFIX,
    LINE_ORDER,
    MADE_COLUMNS,
    NESTED,
    OPTIONAL,
    RESULT_COLUMNS,
    USAGE_COLUMNS,
    usage_of,
)
from batchchat.results import is_stored

__all__ = [
    "BlockColumns",
    "are_results",
    "lines_of_columns",
    "prompt_columns",
    "result_columns",
    "row_columns",
    "rows_of_columns",
]

_Object = Mapping[str, Any]
_Keys = tuple[str, ...]
_OBJECT_OR_NULL = frozenset((dict, NoneType))


class BlockColumns:
    """Columns of a block's rows.

    Attributes:
        rows: How many there are.
        values: Of each column that a row has, in any order: its value in each row, None where that has none.
        keys: Of each line.
    """

    __slots__ = ("_first", "_given", "_lines", "keys", "rows", "values")

    def __init__(
        self,
        lines: Sequence[_Object],
        keys: list[_Keys],
        values: dict[str, list[Any]],
        *,
        given: Sequence[_Keys] = (),
        first: _Keys = (),
    ) -> None:
        self.rows, self.keys, self.values = len(lines), keys, values
        self._lines, self._given, self._first = lines, given, first

    def has(self, name: str, position: int) -> bool:
        """Whether a row has the column, be it null."""
        if name in self._lines[position] or name in self._first:
            return True
        is_input = bool(self._given) and name.startswith(INPUT_PREFIX)
        return is_input and name[len(INPUT_PREFIX) :] in self._given[position]

    def orders(self) -> dict[_Keys, int]:
        """The columns that rows have, in the order of each, and how many rows have these; the first rows' first."""
        if not self._first:
            return Counter(self.keys)
        places: dict[tuple[_Keys, _Keys], list[int]] = {}
        for place, pair in enumerate(zip(self.keys, self._given, strict=True)):
            places.setdefault(pair, []).append(place)
        found: dict[_Keys, int] = {}
        for (first, *_), count in ((these, len(these)) for these in places.values()):
            order = self.order_at(first)
            found[order] = found.get(order, 0) + count
        return found

    def order_at(self, position: int) -> _Keys:
        """The columns of a row, in its own order."""
        keys = self.keys[position]
        if not self._first:
            return keys
        more = [name for name in keys if name not in self._first and name not in NESTED]
        return (*self._first, *more, *(INPUT_PREFIX + name for name in self._given[position]))


def are_results(lines: Sequence[_Object]) -> bool:
    """Whether each is a flat result."""
    try:
        ids = [line["id"] for line in lines if "response" in line]
    except KeyError:
        return False
    if len(ids) != len(lines) or any("custom_id" in line for line in lines):
        return False
    return (set(map(type, ids)) == {str} and "" not in ids) or all(map(is_stored, lines))


def prompt_columns(lines: Sequence[_Object]) -> BlockColumns:
    """The columns of prompt lines, which are rows themselves."""
    keys = list(map(tuple, lines))
    return BlockColumns(lines, keys, _taken(lines, keys))


def result_columns(lines: Sequence[_Object]) -> BlockColumns | None:
    """The columns of result lines; None where ``result_to_row`` refuses one."""
    errors, usages, inputs = ([line.get(name) for line in lines] for name in ("error", "usage", "input"))
    if any(not set(map(type, parts)) <= _OBJECT_OR_NULL for parts in (errors, usages, inputs)):
        return None
    keys = list(map(tuple, lines))
    values = _taken(lines, keys)
    for name in NESTED:
        values.pop(name, None)
    if not MADE_COLUMNS.isdisjoint(values) or any(name.startswith(INPUT_PREFIX) for name in values):
        return None
    for parts, columns in ((errors, ERROR_COLUMNS), (usages, USAGE_COLUMNS)):
        if any(parts):
            found = _taken(parts, [tuple(part or ()) for part in parts])
            values |= {column: found[name] for column, name in columns.items() if name in found}
    given = [tuple(part or ()) for part in inputs]
    values |= {INPUT_PREFIX + name: taken for name, taken in _taken(inputs, given).items()}
    return BlockColumns(lines, keys, values, given=given, first=tuple(RESULT_COLUMNS))


def row_columns(rows: Sequence[_Object]) -> dict[str, list[Any]] | None:
    """The columns of rows that are alike; None of others."""
    keys = list(map(tuple, rows))
    return _taken(rows, keys) if len(set(keys)) == 1 else None


def lines_of_columns(columns: Mapping[str, list[Any]], count: int) -> list[dict[str, Any]]:
    """The result lines of rows that all have these columns; see ``row_to_result``.

    Args:
        count: How many they are.
    """
    filled = {name for name, values in columns.items() if values.count(None) < count}
    made: dict[str, Iterable[Any]] = {}
    for name in LINE_ORDER:
        if name == "*":
            made |= {
                key: columns[key] for key in columns if not (key in RESULT_COLUMNS or key.startswith(INPUT_PREFIX))
            }
        elif name == "error":
            made[name] = _objects(columns, filled, ERROR_COLUMNS, "error_type") or repeat(None, count)
        elif name == "usage":
            made[name] = _usages(columns, filled) or repeat(None, count)
        elif name == "input":
            given = {key[len(INPUT_PREFIX) :]: columns[key] for key in columns if key.startswith(INPUT_PREFIX)}
            made[name] = rows_of_columns(given) if given else repeat(None, count)
        elif name in filled or name not in OPTIONAL:
            made[name] = columns.get(name) or repeat(None, count)
    lines = rows_of_columns(made)
    for name in OPTIONAL:
        if name in filled and None in columns[name]:
            for line in lines:
                if line[name] is None:
                    del line[name]
    return lines


def rows_of_columns(columns: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """The rows that have these values."""
    names = tuple(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _objects(
    columns: Mapping[str, list[Any]], filled: set[str], names: Mapping[str, str], told_by: str
) -> list[Any] | None:
    """An object for each row in which a column is not null; None where it is null in all."""
    if told_by not in filled:
        return None
    nulls = [None] * len(columns[told_by])
    parts = rows_of_columns({inner: columns.get(column) or nulls for column, inner in names.items()})
    return [None if tell is None else part for tell, part in zip(columns[told_by], parts, strict=True)]


def _usages(columns: Mapping[str, list[Any]], filled: set[str]) -> list[Any] | None:
    there = {inner: columns[column] for column, inner in USAGE_COLUMNS.items() if column in filled}
    if not there:
        return None
    usages = rows_of_columns(there)
    if len(there) == 2 and not any(None in values for values in there.values()) and tuple(there) == ALWAYS_COUNTED:
        return usages
    return [usage_of(usage) for usage in usages]


def _taken(objects: Sequence[_Object | None], keys: Sequence[_Keys]) -> dict[str, list[Any]]:
    """Of each key, its value in each object, None where there is none."""
    orders = dict.fromkeys(keys)
    if len(orders) == 1:
        alike: Any = objects
        return {name: list(map(itemgetter(name), alike)) for name in keys[0]}
    names = dict.fromkeys(chain.from_iterable(orders))
    return {name: [given.get(name) if given else None for given in objects] for name in names}
