"""Results as rows of a table with one schema for answers and failures, and back.

The columns are those of ``RESULT_COLUMNS``, then whatever else the lines have, then ``input.<field>`` for each field
of the input. A row has every column of the first group, null where the line has nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations
from typing import Any

from batchchat.jsonl import dump_line, json_type

__all__ = [
    "ALWAYS_COUNTED",
    "ERROR_COLUMNS",
    "INPUT_PREFIX",
    "JSON_COLUMNS",
    "LINE_ORDER",
    "MADE_COLUMNS",
    "NESTED",
    "OPTIONAL",
    "RESULT_COLUMNS",
    "USAGE_COLUMNS",
    "are_ordinary",
    "is_result_table",
    "result_to_row",
    "row_to_result",
    "tell_row_losses",
    "usage_of",
]

INPUT_PREFIX = "input."
USAGE_COLUMNS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_tokens": "cached_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "tokens_estimated": "estimated",
}
ALWAYS_COUNTED = ("input_tokens", "output_tokens")
ERROR_COLUMNS = {f"error_{name}": name for name in ("type", "message", "status", "retryable", "partial")}
# Column and the type that its values have: for Parquet where nothing but null was seen, for CSV when it is read.
RESULT_COLUMNS: dict[str, str] = {
    "id": "str",
    "response": "str",
    "responses": "json",
    "tool_calls": "json",
    "choices": "json",
    "parsed": "json",
    "value": "str",
    "error_type": "str",
    "error_message": "str",
    "error_status": "int",
    "error_retryable": "bool",
    "error_partial": "str",
    "finish_reason": "str",
    "model": "str",
    "input_tokens": "int",
    "output_tokens": "int",
    "cached_tokens": "int",
    "reasoning_tokens": "int",
    "tokens_estimated": "bool",
    "attempts": "int",
    "latency_s": "float",
    "first_delta_s": "float",
    "finished_at": "str",
    "provider": "str",
    "index": "int",
    "fingerprint": "str",
    "reused_from": "json",
    "variant": "json",
    "failed_attempts": "json",
}
JSON_COLUMNS = frozenset(name for name, kind in RESULT_COLUMNS.items() if kind == "json")
OPTIONAL = ("responses", "tool_calls", "choices", "parsed", "value", "reused_from", "variant", "failed_attempts")
MADE_COLUMNS = ERROR_COLUMNS.keys() | USAGE_COLUMNS.keys()
_IN_OPTIONAL = frozenset(OPTIONAL)
_PLAIN = tuple(name for name in RESULT_COLUMNS if name not in MADE_COLUMNS)
NESTED = frozenset(("error", "usage", "input"))
_EMPTY_ROW: dict[str, Any] = dict.fromkeys(RESULT_COLUMNS)
_IN_PLACE = frozenset(_PLAIN)
# Keys of a line in their order; ``*`` stands for those that are not known here.
LINE_ORDER = (
    "id", "response", "responses", "tool_calls", "choices", "parsed", "value", "error", "finish_reason", "model",
    "usage", "attempts", "latency_s", "first_delta_s", "finished_at", "provider", "index", "fingerprint", "reused_from",
    "variant", "failed_attempts", "*", "input",
)  # fmt: skip


def is_result_table(names: Iterable[str]) -> bool:
    """Whether a table with these columns holds results, as ``result_to_row`` makes them."""
    return {"id", "response", "error_type", "error_message", "fingerprint"} <= set(names)


def result_to_row(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a result line.

    Raises:
        ValueError: A part is not what it should be, or a key has the name of a column.
    """
    error, usage, given = (_object(obj, name) for name in ("error", "usage", "input"))
    row = _EMPTY_ROW.copy()
    for name, value in obj.items():
        if name in _IN_PLACE:
            row[name] = value
        elif name not in NESTED:
            if name in row or name.startswith(INPUT_PREFIX):
                raise ValueError(f"found the key {name!r}, which is the name of another column; expected another name")
            row[name] = value
    for part, columns in ((error, ERROR_COLUMNS), (usage, USAGE_COLUMNS)):
        if part:
            for column, name in columns.items():
                row[column] = part.get(name)
    for name, value in given.items():
        row[INPUT_PREFIX + name] = value
    return row


def row_to_result(row: Mapping[str, Any]) -> dict[str, Any]:
    """The result line of a row, keys in the documented order."""
    obj: dict[str, Any] = {}
    for name in LINE_ORDER:
        if name == "*":
            obj |= {k: v for k, v in row.items() if k not in RESULT_COLUMNS and not k.startswith(INPUT_PREFIX)}
        elif name == "error":
            obj[name] = _gathered(row, ERROR_COLUMNS) if row.get("error_type") is not None else None
        elif name == "usage":
            obj[name] = usage_of(_gathered(row, USAGE_COLUMNS))
        elif name == "input":
            given = {k.removeprefix(INPUT_PREFIX): v for k, v in row.items() if k.startswith(INPUT_PREFIX)}
            obj[name] = given or None
        elif name not in OPTIONAL or row.get(name) is not None:
            obj[name] = row.get(name)
    return obj


def tell_row_losses(line: Mapping[str, Any], row: Mapping[str, Any], tell: Callable[[str, str], None]) -> None:
    """Tells what of a result line its row has no place for: null in optional keys, keys that no run writes."""
    if _is_ordinary(line):
        return
    back = row_to_result(row)
    if dump_line(back) == dump_line(line):
        return
    for name, value in line.items():
        if name not in back:
            tell(f"null in {name!r}", "which reads back as a field that is not there")
        elif back[name] != value:
            what = "an empty object" if value == {} else "an unusual object"
            tell(f"{what} in {name!r}", "which the columns of results cannot hold")
    if back.keys() - line.keys():
        tell("fewer fields than a run writes", "which read back as null")
    known = [name for name in back if name in line]
    if known != [name for name in line if name in back]:
        tell("fields in another order than a run writes", "which the columns of results cannot hold")


def _is_ordinary(line: Mapping[str, Any]) -> bool:
    """Whether a look at the line's shape tells that ``row_to_result`` makes the same of its row; most lines pass."""
    if tuple(line) not in _ORDINARY_ORDERS:
        return False
    for name in OPTIONAL:
        if name in line and line[name] is None:
            return False
    error, usage = line["error"], line["usage"]
    if error is not None and (tuple(error) != _ERROR_KEYS or error["type"] is None):
        return False
    if usage is not None and (tuple(usage) not in _USAGE_ORDERS or None in usage.values()):
        return False
    return bool(line["input"] is None or line["input"])


def are_ordinary(lines: Sequence[Mapping[str, Any]], keys: Iterable[tuple[str, ...]]) -> bool:
    """Whether ``tell_row_losses`` surely has nothing to tell of any of the lines.

    Args:
        keys: Of each line.
    """
    orders = set(keys)
    if not orders <= _ORDINARY_ORDERS or not orders.isdisjoint(_WITH_OPTIONAL):
        return all(map(_is_ordinary, lines))
    errors = [error for line in lines if (error := line["error"]) is not None]
    if any(tuple(error) != _ERROR_KEYS or error["type"] is None for error in errors):
        return False
    usages = [usage for line in lines if (usage := line["usage"]) is not None]
    if not _USAGE_ORDERS.issuperset(map(tuple, usages)) or any(None in usage.values() for usage in usages):
        return False
    return {} not in [line["input"] for line in lines]


def _orders(names: tuple[str, ...], optional: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """Every choice of the optional names among the others, in their order."""
    left_out = chain.from_iterable(combinations(optional, count) for count in range(len(optional) + 1))
    return frozenset(tuple(name for name in names if name not in absent) for absent in left_out)


_ERROR_KEYS = tuple(ERROR_COLUMNS.values())
_USAGE_ORDERS = _orders(tuple(USAGE_COLUMNS.values()), ("cached_tokens", "reasoning_tokens", "estimated"))
_ORDINARY_ORDERS = _orders(tuple(name for name in LINE_ORDER if name != "*"), OPTIONAL)
_WITH_OPTIONAL = frozenset(names for names in _ORDINARY_ORDERS if not _IN_OPTIONAL.isdisjoint(names))


def _gathered(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {inner: row.get(column) for column, inner in names.items()}


def usage_of(counts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage of a line with these counts, None of which need be there."""
    if all(value is None for value in counts.values()):
        return None
    found = {name: counts.get(name) for name in USAGE_COLUMNS.values()}
    return {name: value for name, value in found.items() if value is not None or name in ALWAYS_COUNTED}


def _object(obj: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = obj.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"expected an object or null in {name!r}, found {json_type(value)}")
    return value
