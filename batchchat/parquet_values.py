"""Values of Parquet columns as JSON values. Imported only where pyarrow is there.

Source: the table of docs/input.md, section Parquet.
"""

import base64
import math
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from batchchat.jsonl import parse_value

__all__ = ["JSON_TEXT", "OMITTED_NULLS", "OWN_FILE", "BadValue", "ColumnForm", "column_form", "column_values"]

# Marks of a column that batchchat wrote, in its field's metadata: its texts are JSON; its nulls are keys not there.
JSON_TEXT = (b"batchchat", b"json")
OMITTED_NULLS = (b"batchchat_null", b"missing")
# Mark of a whole file of ours, in which a null is one that was written.
OWN_FILE = (b"batchchat", b"1")

_Change = Callable[[Any], Any]
_EPOCH_DAY = date(1970, 1, 1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class BadValue(NamedTuple):
    """A value that JSON has no form for; found and expected in words."""

    reason: str


class ColumnForm(NamedTuple):
    """How a column becomes JSON.

    Attributes:
        cast_to: Type to cast the column to before its values are taken, None for its own.
        change: What then becomes of a value that is not null, None for nothing.
    """

    cast_to: pa.DataType | None
    change: _Change | None


def column_form(field: pa.Field) -> ColumnForm:
    """How a column's values become JSON.

    Raises:
        ValueError: They cannot; found and expected are named.
    """
    cast_to, change = _plan(field.type)
    if (field.metadata or {}).get(JSON_TEXT[0]) == JSON_TEXT[1]:
        change = _from_json_text
    return ColumnForm(None if cast_to.equals(field.type) else cast_to, change)


def column_values(array: Any, form: ColumnForm) -> list[Any]:
    """The JSON value of each row of an array, or a ``BadValue``."""
    if array.null_count == len(array):
        return [None] * len(array)
    if form.cast_to is not None:
        array = array.cast(form.cast_to)
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        values = [_one_by_one(array, row) for row in range(len(array))]
    change = form.change
    if change is None:
        return list(values)
    return [value if value is None or type(value) is BadValue else _changed(change, value) for value in values]


def _changed(change: _Change, value: Any) -> Any:
    try:
        return change(value)
    except ValueError as error:
        return BadValue(str(error))


def _one_by_one(array: Any, row: int) -> Any:
    try:
        return array[row].as_py()
    except UnicodeDecodeError:
        return BadValue("found bytes that are not UTF-8, expected UTF-8 text")


def _plan(kind: pa.DataType) -> tuple[pa.DataType, _Change | None]:
    """The type to cast to and what to do with its Python values."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        storage, change = _plan(kind.storage_type)
        is_uuid = kind.extension_name == "arrow.uuid"
        return storage, (lambda value: str(uuid.UUID(bytes=value))) if is_uuid else change
    if types.is_dictionary(kind):
        return _plan(kind.value_type)
    if types.is_struct(kind):
        return _plan_struct(kind)
    if types.is_map(kind):
        return _plan_map(kind)
    if _is_list(kind):
        return _plan_list(kind)
    if types.is_floating(kind):
        return kind, _finite if kind.bit_width == 64 else _shortest(kind.bit_width)
    if types.is_decimal(kind):
        return kind, lambda value: format(value, "f")
    if types.is_temporal(kind):
        return _plan_time(kind)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or _is_view(kind):
        return kind, lambda value: base64.b64encode(value).decode()
    return kind, None


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_list_view(kind)
    )


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary_view(kind))


def _plan_struct(kind: pa.StructType) -> tuple[pa.DataType, _Change | None]:
    fields = [kind.field(position) for position in range(kind.num_fields)]
    names = [field.name for field in fields]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"found the field {twice!r} twice in one struct, expected names that differ")
    plans = [_plan(field.type) for field in fields]
    target = pa.struct([field.with_type(plan[0]) for field, plan in zip(fields, plans, strict=True)])
    changes = [(name, plan[1]) for name, plan in zip(names, plans, strict=True) if plan[1] is not None]
    if not changes:
        return target, None

    def change(value: dict[str, Any]) -> dict[str, Any]:
        for name, change_field in changes:
            if (given := value[name]) is not None:
                value[name] = change_field(given)
        return value

    return target, change


def _plan_list(kind: Any) -> tuple[pa.DataType, _Change | None]:
    item, change_item = _plan(kind.value_type)
    if item.equals(kind.value_type):
        target = kind
    elif pa.types.is_fixed_size_list(kind):
        target = pa.list_(item, kind.list_size)
    else:
        target = pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item)
    if change_item is None:
        return target, None
    return target, lambda value: [None if part is None else change_item(part) for part in value]


def _plan_map(kind: pa.MapType) -> tuple[pa.DataType, _Change | None]:
    key, change_key = _plan(kind.key_type)
    item, change_item = _plan(kind.item_type)

    def changed(value: Any, change: _Change | None) -> Any:
        return value if value is None or change is None else change(value)

    def change(pairs: list[tuple[Any, Any]]) -> Any:
        done = [(changed(name, change_key), changed(value, change_item)) for name, value in pairs]
        if all(isinstance(name, str) for name, _ in done) and len({name for name, _ in done}) == len(done):
            return dict(done)
        return [{"key": name, "value": value} for name, value in done]

    return pa.map_(key, item), change


def _plan_time(kind: Any) -> tuple[pa.DataType, _Change | None]:
    types = pa.types
    if types.is_date(kind):
        return (kind, _day) if kind.bit_width == 64 else (pa.int32(), _day)
    if types.is_timestamp(kind):
        per_second, end = _PER_SECOND[kind.unit], "" if kind.tz is None else "Z"
        return pa.int64(), lambda value: _moment(value, per_second) + end
    if types.is_time(kind):
        per_second = _PER_SECOND[kind.unit]
        target = pa.int32() if kind.bit_width == 32 else pa.int64()
        return target, lambda value: _moment(value, per_second).partition("T")[2]
    if types.is_duration(kind):
        per_second = _PER_SECOND[kind.unit]
        return pa.int64(), lambda value: value // per_second if value % per_second == 0 else value / per_second
    raise ValueError(f"found values of type {kind}, which have no JSON form; cast the column to text")


def _day(value: int | date) -> str:
    if isinstance(value, date):
        return value.isoformat()
    try:
        return (_EPOCH_DAY + timedelta(days=value)).isoformat()
    except OverflowError as error:
        raise ValueError(f"found a date {value} days from 1970-01-01, expected one in the years 1 to 9999") from error


def _moment(value: int, per_second: int) -> str:
    """A time since 1970 in ISO 8601, with as many digits of a fraction, in threes, as it needs."""
    seconds, rest = divmod(value, per_second)
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds").removesuffix("+00:00")
    except OverflowError as error:
        raise ValueError("found a time outside of the years 1 to 9999, expected one within") from error
    digits = f"{rest * (10**9 // per_second):09d}" if rest else ""
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}" if digits else text


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise ValueError(f"found {'NaN' if value != value else 'Infinity'}, expected a number; JSON has no such value")


def _shortest(bits: int) -> _Change:
    """The shortest decimal number that is the same in 32 or 16 bits, so that 0.1 stays 0.1."""
    code, precisions = ("<f", range(6, 9)) if bits == 32 else ("<e", range(3, 5))

    def change(value: float) -> float:
        if _finite(value).is_integer() and abs(value) < 1e15:
            return value
        packed = struct.pack(code, value)
        for precision in precisions:
            short = float(f"{value:.{precision}g}")
            try:
                if struct.pack(code, short) == packed:
                    return short
            except OverflowError:
                pass
        return value

    return change


def _from_json_text(value: str) -> Any:
    return parse_value(value.encode())
