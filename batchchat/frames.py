"""Outcomes and results files as data frames of pandas or polars."""

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, overload

from batchchat.errors import ConfigError, ResultsFileError
from batchchat.forms.result_rows import RESULT_COLUMNS, result_to_row
from batchchat.jsonl import dump_line
from batchchat.records import Outcome
from batchchat.results import name_files, outcome_from_object, outcome_to_object
from batchchat.results.counting import FailureCounts, read_failure_lines, read_lines
from batchchat.results.scan import RawLine, judge
from batchchat.surrogates import without_surrogates

if TYPE_CHECKING:
    import pandas
    import polars

    from batchchat.ids import IdTable

__all__ = ["Library", "read_frame", "to_frame"]

Library = Literal["pandas", "polars"]
_LIBRARIES: tuple[Library, ...] = ("pandas", "polars")
_Kind = Literal["str", "int", "float", "bool", "time", "json", "any"]
_EMPTY: dict[str, _Kind] = {"int": "int", "float": "float", "bool": "bool"}
_LONGEST_INT_BITS, _EXACT_BITS = 63, 53


@overload
def to_frame(outcomes: Iterable[Outcome], *, library: Literal["pandas"]) -> "pandas.DataFrame": ...
@overload
def to_frame(outcomes: Iterable[Outcome], *, library: Literal["polars"]) -> "polars.DataFrame": ...
@overload
def to_frame(outcomes: Iterable[Outcome], *, library: None = None) -> Any: ...
def to_frame(outcomes: Iterable[Outcome], *, library: Library | None = None) -> Any:
    """A data frame with a row for each outcome, in their order.

    The columns are those of ``batchchat convert`` to CSV: ``id``, ``response``, …, ``error_type``, ``error_message``,
    then ``input.<field>`` for each field of the input. The columns of results are there whatever the outcomes, so
    also where there are none.

    Args:
        library: The one that is imported already or installed, pandas first, where it is not named.

    Returns:
        ``finished_at`` in UTC. Numbers stay whole beside null (``Int64``), those beyond 64 bits too. What is no text,
        number or time is a Python object in pandas, and JSON text in polars.

    Raises:
        ConfigError: The library is not installed; the sentence says what to install.
    """
    make = _maker(library)
    return make(_columns(result_to_row(outcome_to_object(outcome)) for outcome in outcomes))


@overload
def read_frame(path: str, *, library: Literal["pandas"], errors: bool = True) -> "pandas.DataFrame": ...
@overload
def read_frame(path: str, *, library: Literal["polars"], errors: bool = True) -> "polars.DataFrame": ...
@overload
def read_frame(path: str, *, library: None = None, errors: bool = True) -> Any: ...
def read_frame(path: str, *, library: Library | None = None, errors: bool = True) -> Any:
    """A data frame of a results file, in either form, compressed or not; a run that writes it is not disturbed.

    Args:
        path: Of the results file.
        library: See ``to_frame``, which makes the same columns.
        errors: Whether the failures in the errors file beside it are rows too, below the answers.

    Raises:
        ConfigError: The library is not installed, or ``path`` is no file.
        ResultsFileError: There is no such file, or it is no results file.
    """
    make = _maker(library)
    return make(_columns(_stored_rows(path, errors=errors)))


def _stored_rows(path: str, *, errors: bool) -> Iterator[dict[str, Any]]:
    from batchchat.ids import IdTable

    files = name_files(path)
    files.need_file()
    ids = IdTable()
    for line in read_lines(files.results, files.results):
        if isinstance(line, RawLine) and (obj := _answer(line, path, ids)) is not None:
            try:
                row = result_to_row(obj)
            except ValueError as error:
                raise ResultsFileError(f"{path}:{line.number}: {error}") from error
            yield row
    if errors:
        failures = FailureCounts()
        for line in read_failure_lines(files):
            if (outcome := failures.add(line, ids)) is not None:
                yield result_to_row(outcome_to_object(outcome))


def _answer(line: RawLine, path: str, ids: "IdTable") -> dict[str, Any] | None:
    """The answer that a line holds, as a flat line; None where it holds none, or one more for an id.

    A line that a crash, or a run at work, left in pieces holds none.
    """
    judged = judge(line)
    if judged.kind == "foreign":
        raise ResultsFileError(f"{path}:{line.number}: expected a result with id and response, found something else")
    if judged.kind != "answer" or judged.obj is None or judged.stored is None or not ids.add(judged.stored.id):
        return None
    return outcome_to_object(outcome_from_object(judged.obj)) if "custom_id" in judged.obj else judged.obj


def _columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The rows by column; null where a row has nothing."""
    columns: dict[str, list[Any]] = {name: [] for name in RESULT_COLUMNS}
    count = 0
    for row in rows:
        for name, value in row.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = []
            if len(column) < count:
                column.extend([None] * (count - len(column)))
            column.append(value)
        count += 1
    for column in columns.values():
        column.extend([None] * (count - len(column)))
    columns["finished_at"] = [_time(value) for value in columns["finished_at"]]
    # What belongs to the input stands last, as in a converted file.
    return {name: columns[name] for name in sorted(columns, key=lambda name: name.startswith("input."))}


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None


def _kind_of(name: str, values: list[Any]) -> _Kind:
    """The type of a column's values; that of its name where it has none."""
    if name == "finished_at":
        return "time"
    declared = RESULT_COLUMNS.get(name)
    if declared == "json":
        return "json"
    types = set(map(type, values)) - {type(None)}
    if not types:
        return _EMPTY.get(declared or "", "str")
    if types == {int}:
        whole = all(value is None or value.bit_length() <= _LONGEST_INT_BITS for value in values)
        return "int" if whole else "any"
    if types == {float}:
        return "float"
    if types == {int, float} and _fit_floats(values):
        return "float"
    if types == {bool}:
        return "bool"
    return "str" if types == {str} else "any"


def _fit_floats(values: list[Any]) -> bool:
    """Whether the integers among the values lose nothing as floats."""
    return all(type(value) is not int or value.bit_length() <= _EXACT_BITS for value in values)


def _maker(library: Library | None) -> Any:
    """What makes a frame of columns.

    Raises:
        ConfigError: The library is not there.
    """
    if library is not None and library not in _LIBRARIES:
        raise ConfigError(f"library: expected 'pandas' or 'polars', found {library!r}")
    wanted = _LIBRARIES if library is None else (library,)
    found = next((name for name in wanted if name in sys.modules), None) or next(
        (name for name in wanted if importlib.util.find_spec(name) is not None), None
    )
    if found is None:
        what = "neither pandas nor polars is" if library is None else f"{library} is not"
        first = wanted[0]
        raise ConfigError(f"{what} installed; install it with pip install 'batchchat[{first}]'")
    return _pandas_frame if found == "pandas" else _polars_frame


def _pandas_frame(columns: dict[str, list[Any]]) -> Any:
    import pandas as pd

    types = {
        "str": pd.StringDtype("python"),  # which takes any text, half an emoji too
        "int": pd.Int64Dtype(),
        "float": "float64",
        "bool": pd.BooleanDtype(),
        "time": pd.DatetimeTZDtype("ms", "UTC"),
    }
    made = {}
    for name, values in columns.items():
        made[name] = pd.Series(values, dtype=types.get(_kind_of(name, values), "object"))
    return pd.DataFrame(made)


def _polars_frame(columns: dict[str, list[Any]]) -> Any:
    import polars as pl

    types = {
        "int": pl.Int64(),
        "float": pl.Float64(),
        "bool": pl.Boolean(),
        "time": pl.Datetime("ms", "UTC"),
    }
    made = []
    for name, values in columns.items():
        kind = _kind_of(name, values)
        if kind in types:
            made.append(pl.Series(without_surrogates(name), values, dtype=types[kind]))
        else:
            texts = [_cell(value, as_json=kind == "json") for value in values]
            made.append(pl.Series(without_surrogates(name), texts, dtype=pl.String()))
    return pl.DataFrame(made)


def _cell(value: Any, *, as_json: bool) -> str | None:
    """A value as text, as it stands in a converted file."""
    if value is None:
        return None
    if isinstance(value, str) and not as_json:
        return without_surrogates(value)
    return dump_line({"": value})[4:-2].decode()
