"""Rows of a Parquet file as objects, read by batches; one fault for each row that JSON cannot hold."""

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from batchchat.compress import compression_of, input_failure, open_input
from batchchat.errors import PromptFileError
from batchchat.storage.urls import is_url

if TYPE_CHECKING:
    from batchchat.parquet_values import ColumnForm

__all__ = ["ParquetBatch", "import_parquet", "iter_parquet_batches", "iter_parquet_rows"]

_BATCH_BYTES = 4 << 20
_MOST_BATCH_ROWS = 4096
_PAGE_BUFFER_BYTES = 1 << 20
_MAGIC = b"PAR1"


def import_parquet(path: str) -> Any:
    """The module ``pyarrow.parquet``.

    Raises:
        PromptFileError: pyarrow is not installed, or it does not load.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise PromptFileError(
            path, "Parquet needs pyarrow, which is not installed here: pip install 'batchchat[parquet]'"
        ) from error
    return pyarrow.parquet


class ParquetBatch:
    """Rows that are in memory together, a column at a time.

    Attributes:
        first: 1-based number of the first.
        count: How many they are.
    """

    def __init__(self, first: int, count: int, schema: "_Schema", columns: list[list[Any]]) -> None:
        self.first, self.count = first, count
        self._schema, self._columns = schema, columns

    def rows(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Number and object of each row, or what is wrong with it."""
        names, optional, is_own = self._schema.names, self._schema.optional, self._schema.is_own
        if not names:
            yield from ((number, {}) for number in range(self.first, self.first + self.count))
            return
        for number, values in enumerate(zip(*self._columns, strict=True), self.first):
            found = _object(names, values, optional)
            yield number, found if is_own or isinstance(found, str) else _without_nulls(found)

    def plain_columns(self) -> dict[str, list[Any]] | None:
        """The values by their columns; None where an object has not all of them, or one is no value of JSON."""
        from batchchat.parquet_values import BadValue

        names, optional = self._schema.names, self._schema.optional
        if not names or not (self._schema.is_own or {"messages", "params"}.isdisjoint(names)):
            return None
        for name, values in zip(names, self._columns, strict=True):
            if (name in optional and None in values) or BadValue in set(map(type, values)):
                return None
        return dict(zip(names, self._columns, strict=True))


class _Schema(NamedTuple):
    names: list[str]
    optional: set[str]
    is_own: bool


def iter_parquet_rows(path: str, first_row: int = 1) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Rows in their order, read as they are asked for; memory holds some 4 MiB of them, or one row.

    Args:
        path: A file or the URL of an object, as Parquet is read from its end; not a pipe.
        first_row: Row groups that end before it are passed over unread.

    Yields:
        1-based row; the row as an object, or what is wrong with it.

    Raises:
        PromptFileError: No Parquet file, damaged, encrypted, two columns of one name, no pyarrow.
    """
    for batch in iter_parquet_batches(path, first_row):
        yield from batch.rows()


def iter_parquet_batches(path: str, first_row: int = 1) -> Iterator[ParquetBatch]:
    """As ``iter_parquet_rows``, as many rows at a time as are in memory.

    Raises:
        PromptFileError: As ``iter_parquet_rows``.
    """
    if compression_of(path):
        raise PromptFileError(
            path, "Parquet is compressed inside, expected a name that ends in .parquet; unpack it first"
        )
    _check_file(path)
    parquet = import_parquet(path)
    import pyarrow as pa

    try:
        with (
            _opened(path) as opened,
            parquet.ParquetFile(opened, buffer_size=_PAGE_BUFFER_BYTES, pre_buffer=False) as file,
        ):
            yield from _iter_batches(file, path, first_row)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200].strip().rstrip(".")
        raise PromptFileError(path, f"the Parquet data cannot be read ({reason}); expected a whole file") from error


def _opened(path: str) -> AbstractContextManager[str | BinaryIO]:
    """What pyarrow is to open: the path, or the object as a file."""
    if not is_url(path):
        return nullcontext(path)
    from batchchat.storage import open_seekable

    return open_seekable(path, failure=input_failure)


def _check_file(path: str) -> None:
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        is_file = True  # what is wrong is told by opening it
    if not is_file and not os.path.isdir(path):
        raise PromptFileError(path, "Parquet is read from its end, expected a file, not a pipe or a device")
    with open_input(path, is_parquet=True) as stream:
        head = stream.read(len(_MAGIC))
    if head != _MAGIC:
        found = "an empty file" if not head else "something else"
        raise PromptFileError(path, f"expected a Parquet file, found {found}")


def _iter_batches(file: Any, path: str, first_row: int) -> Iterator[ParquetBatch]:
    from batchchat.parquet_values import OMITTED_NULLS, OWN_FILE, column_values

    names, forms = _columns(file.schema_arrow, path)
    fields = [file.schema_arrow.field(position) for position in range(len(names))]
    optional = {f.name for f in fields if (f.metadata or {}).get(OMITTED_NULLS[0]) == OMITTED_NULLS[1]}
    is_own = (file.schema_arrow.metadata or {}).get(OWN_FILE[0]) == OWN_FILE[1]
    schema = _Schema(names, optional, is_own)
    row, groups = 0, list(range(file.metadata.num_row_groups))
    while groups and row + (rows := file.metadata.row_group(groups[0]).num_rows) < first_row:
        row += rows
        del groups[0]
    for batch in file.iter_batches(batch_size=_batch_rows(file.metadata), row_groups=groups, use_threads=False):
        columns = [column_values(batch.column(position), form) for position, form in enumerate(forms)]
        yield ParquetBatch(row + 1, batch.num_rows, schema, columns)
        row += batch.num_rows


def _object(names: list[str], values: tuple[Any, ...], optional: set[str]) -> dict[str, Any] | str:
    from batchchat.parquet_values import BadValue

    for name, value in zip(names, values, strict=True):
        if type(value) is BadValue:
            return f"{value.reason} (column {name!r})"
    if optional:
        return {
            name: value for name, value in zip(names, values, strict=True) if value is not None or name not in optional
        }
    return dict(zip(names, values, strict=True))


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """The row without the nulls in ``messages`` and ``params`` that only say that other rows have more fields."""
    if isinstance(params := row.get("params"), dict):
        row["params"] = {name: value for name, value in params.items() if value is not None}
    if isinstance(messages := row.get("messages"), list):
        row["messages"] = [_whole(message, ("content",)) for message in messages]
    return row


def _whole(value: Any, kept: tuple[str, ...] = ()) -> Any:
    if isinstance(value, list):
        return [_whole(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: _whole(part) for name, part in value.items() if part is not None or name in kept}


def _columns(schema: Any, path: str) -> tuple[list[str], "list[ColumnForm]"]:
    from batchchat.parquet_values import column_form

    names, forms = [], []
    for position, field in enumerate(schema):
        if field.name in schema.names[:position]:
            raise PromptFileError(path, f"found two columns of the name {field.name!r}, expected names that differ")
        try:
            forms.append(column_form(field))
        except ValueError as error:
            raise PromptFileError(path, f"{error} (column {field.name!r})") from error
        names.append(field.name)
    return names, forms


def _batch_rows(metadata: Any) -> int:
    """Rows that take about ``_BATCH_BYTES`` together, judged by the groups' sizes."""
    size = max(
        (
            metadata.row_group(group).total_byte_size // max(1, metadata.row_group(group).num_rows)
            for group in range(metadata.num_row_groups)
        ),
        default=0,
    )
    return max(1, min(_MOST_BATCH_ROWS, _BATCH_BYTES // max(1, size)))
