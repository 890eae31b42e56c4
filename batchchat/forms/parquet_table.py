"""Parquet: rows as typed columns. Imported only where pyarrow is there.

A column gets the type of its values where they are of one; otherwise its values stand as JSON text, and a mark in the
field's metadata makes ``parquet_rows`` read them back as what they were.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchchat.forms.losses import Losses
from batchchat.forms.result_columns import BlockColumns
from batchchat.forms.result_rows import RESULT_COLUMNS, is_result_table
from batchchat.forms.shapes import Columns, Shape
from batchchat.jsonl import dump_line
from batchchat.parquet_values import JSON_TEXT, OMITTED_NULLS, OWN_FILE

__all__ = ["ParquetWriter", "parquet_schema"]

_GROUP_BYTES = 8 << 20
_MOST_GROUP_ROWS = 50_000
_MOST_WAITING = 8
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
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._chunks: list[list[pa.Array]] = [[] for _ in self._schema]
        self._waiting: list[BlockColumns] = []
        self._rows = self._bytes = 0

    def write(self, numbers: Sequence[int], block: BlockColumns) -> None:
        """Takes the rows of a block.

        Args:
            numbers: Of the lines that they are made of, for messages.
        """
        self._losses.tell_lines("parquet", self._found_losses(numbers, block))
        self._waiting.append(block)
        self._rows += block.rows
        if len(self._waiting) >= _MOST_WAITING:
            self._pack()
        if self._bytes >= _GROUP_BYTES or self._rows >= _MOST_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is left and the file's end."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Ends it where the file is of no use; left alone, pyarrow would close it later, and complain."""
        with suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()

    def _pack(self) -> None:
        """Makes arrays of what waits, which are small; making them of each block would take as long again."""
        if self._waiting:
            for chunks, field in zip(self._chunks, self._schema, strict=True):
                chunks.append(_array(self._waiting, field))
                self._bytes += chunks[-1].nbytes
            self._waiting = []

    def _flush(self) -> None:
        self._pack()
        if self._rows and self._chunks:
            columns = [pa.chunked_array(chunks) for chunks in self._chunks]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._chunks = [[] for _ in self._schema]
        self._rows = self._bytes = 0

    def _found_losses(self, numbers: Sequence[int], block: BlockColumns) -> dict[tuple[str, str], list[int]]:
        told: dict[tuple[str, str], list[int]] = {}
        for name, values in block.values.items():
            if None in values and self._columns.is_missing_somewhere(name):
                loss = (f"null in {name!r}", "which reads back as a field that is not there")
                there = [place for place, value in enumerate(values) if value is None and block.has(name, place)]
                told[loss] = [numbers[place] for place in there]
            if self._columns.shapes[name].is_mixed_numbers and name not in RESULT_COLUMNS:
                loss = (f"a whole number in {name!r}", "which reads back with a fraction of .0")
                told[loss] = [number for number, value in zip(numbers, values, strict=True) if type(value) is int]
        if not self._columns.names:
            told["no field at all", "which Parquet cannot hold"] = list(numbers)
        if not all(map(self._columns.has_order_of, block.orders())):
            loss = ("fields in another order than the lines before", "which a table cannot hold")
            there = [place for place in range(block.rows) if not self._columns.has_order_of(block.order_at(place))]
            told[loss] = [numbers[place] for place in there]
        return {loss: lines for loss, lines in told.items() if lines}


def _array(blocks: Sequence[BlockColumns], field: pa.Field) -> pa.Array:
    if all(field.name not in block.values for block in blocks):
        return pa.nulls(sum(block.rows for block in blocks), field.type)
    values: list[Any] = []
    for block in blocks:
        values += block.values.get(field.name) or repeat(None, block.rows)
    if JSON_TEXT[0] in (field.metadata or {}):
        values = [None if value is None else dump_line({"": value})[4:-2].decode() for value in values]
    return pa.array(values, type=field.type)


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
