"""Parquet: rows as typed columns. Imported only where pyarrow is there.

A column gets the type of its values where they are of one; otherwise its values stand as JSON text, and a mark in the
field's metadata makes ``parquet_rows`` read them back as what they were.
"""

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchchat.forms.losses import Losses
from batchchat.forms.result_rows import RESULT_COLUMNS, is_result_table
from batchchat.forms.shapes import Columns, Shape
from batchchat.jsonl import dump_line
from batchchat.parquet_values import JSON_TEXT, OMITTED_NULLS, OWN_FILE

__all__ = ["ParquetWriter", "parquet_schema"]

_GROUP_BYTES = 8 << 20
_MOST_GROUP_ROWS = 50_000
_FIXED = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "json": pa.string()}
_PLAIN = {"str": pa.string(), "float": pa.float64(), "bool": pa.bool_()}


def parquet_schema(columns: Columns) -> pa.Schema:
    """The schema for rows with these columns."""
    is_result = is_result_table(columns.names)
    fields = []
    for name in columns.names:
        shape = columns.shapes[name]
        kind = _type_of(shape, _FIXED[RESULT_COLUMNS[name]] if is_result and name in RESULT_COLUMNS else None)
        metadata = {} if kind is not None else dict([JSON_TEXT])
        if columns.is_missing_somewhere(name):
            metadata |= dict([OMITTED_NULLS])
        fields.append(pa.field(name, pa.string() if kind is None else kind, metadata=metadata or None))
    return pa.schema(fields, metadata=dict([OWN_FILE]))


class ParquetWriter:
    """Writes rows of a schema, in groups of some 8 MiB."""

    def __init__(self, file: BinaryIO, columns: Columns, losses: Losses) -> None:
        self._columns, self._losses = columns, losses
        self._schema = parquet_schema(columns)
        self._as_json = [JSON_TEXT[0] in (field.metadata or {}) for field in self._schema]
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Takes a row."""
        self._tell_losses(row)
        self._rows.append(row)
        self._bytes += len(dump_line(row))
        if self._bytes >= _GROUP_BYTES or len(self._rows) >= _MOST_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is left and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        arrays = [
            pa.array(_column(self._rows, field.name, as_json=as_json), type=field.type)
            for field, as_json in zip(self._schema, self._as_json, strict=True)
        ]
        if arrays:
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._bytes = [], 0

    def _tell_losses(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            shape = self._columns.shapes[name]
            if value is None and self._columns.is_missing_somewhere(name):
                self._losses.tell("parquet", f"null in {name!r}", "which reads back as a field that is not there")
            elif type(value) is int and shape.is_mixed_numbers and name not in RESULT_COLUMNS:
                self._losses.tell("parquet", f"a whole number in {name!r}", "which reads back with a fraction of .0")
        if not row and self._columns.names == []:
            self._losses.tell("parquet", "no field at all", "which Parquet cannot hold")
        if not self._columns.has_order_of(row):
            self._losses.tell("parquet", "fields in another order than the lines before", "which a table cannot hold")


def _column(rows: Iterable[Mapping[str, Any]], name: str, *, as_json: bool) -> list[Any]:
    values = [row.get(name) for row in rows]
    if not as_json:
        return values
    return [None if value is None else dump_line({"": value})[4:-2].decode() for value in values]


def _type_of(shape: Shape, fixed: pa.DataType | None) -> pa.DataType | None:
    """The type of a column; None for JSON text."""
    if not shape.kinds:
        return pa.string() if fixed is None else fixed
    if fixed == pa.float64() and shape.kinds <= {"int", "float"} and (shape.is_mixed_numbers or shape.fits_int64):
        return fixed
    if shape.is_mixed_numbers:
        return pa.float64()
    return _exact_type(shape)


def _exact_type(shape: Shape) -> pa.DataType | None:
    """The type that gives every value back as it is; None where none does."""
    if not shape.kinds:
        return pa.string()
    if len(shape.kinds) != 1:
        return None
    (kind,) = shape.kinds
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "int":
        return pa.int64() if shape.fits_int64 else pa.uint64() if shape.fits_uint64 else None
    if kind == "list":
        item = pa.string() if shape.item is None else _exact_type(shape.item)
        return None if item is None else pa.list_(item)
    return _struct_type(shape)


def _struct_type(shape: Shape) -> pa.DataType | None:
    if shape.varied or not shape.fields:
        return None
    fields = [(name, _exact_type(field)) for name, field in shape.fields.items()]
    return None if any(kind is None for _, kind in fields) else pa.struct(fields)
