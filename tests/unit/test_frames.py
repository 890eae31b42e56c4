"""Outcomes and results files as data frames: the columns of a converted file, with types that lose nothing."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import batchchat
from batchchat.errors import ConfigError, ResultsFileError
from batchchat.forms.result_rows import RESULT_COLUMNS
from batchchat.jsonl import dump_line
from batchchat.records import Completion, Outcome
from batchchat.results import outcome_to_batch_object
from tests.result_lines import FINISHED_AT, answer, answered, failed, failure

LIBRARIES = ("pandas", "polars")


def rows_of(frame) -> list[dict]:
    """Rows with None for what is missing, in either library."""
    if isinstance(frame, pl.DataFrame):
        return frame.to_dicts()
    return [
        {
            name: None if value is None or value is pd.NA or value is pd.NaT or value != value else value
            for name, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


def dtypes_of(frame) -> dict[str, str]:
    names = frame.columns
    types = frame.dtypes if isinstance(frame, pl.DataFrame) else frame.dtypes.to_list()
    return {name: str(kind) for name, kind in zip(names, types, strict=True)}


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_has_the_columns_of_results_with_their_types(library: str) -> None:
    empty, full = (batchchat.to_frame(given, library=library) for given in ([], [answered("a"), failed("b")]))
    assert list(empty.columns) == list(RESULT_COLUMNS)
    assert len(empty) == 0
    types = dtypes_of(full)
    assert {name: kind for name, kind in types.items() if name in RESULT_COLUMNS} == dtypes_of(empty)


@pytest.mark.parametrize("library", LIBRARIES)
def test_answers_and_failures_share_the_columns_of_a_converted_file(library: str, tmp_path: Path) -> None:
    frame = batchchat.to_frame([answered("a"), failed("b")], library=library)
    assert list(frame.columns) == [*RESULT_COLUMNS, "input.question", "input.topic"]
    first, second = rows_of(frame)
    assert (first["id"], first["response"], first["error_type"], first["input_tokens"]) == ("a", "Because …", None, 9)
    assert (second["response"], second["error_type"], second["error_status"]) == (None, "server", 502)
    assert second["error_retryable"] is True
    assert (first["input.topic"], second["input.topic"]) == ("physics", None)
    assert first["finished_at"] == FINISHED_AT


def test_numbers_stay_whole_beside_null() -> None:
    frames = [batchchat.to_frame([answered("a"), failed("b")], library=library) for library in LIBRARIES]
    assert [dtypes_of(frame)["input_tokens"] for frame in frames] == ["Int64", "Int64"]
    assert [dtypes_of(frame)["error_status"] for frame in frames] == ["Int64", "Int64"]
    assert [dtypes_of(frame)["latency_s"] for frame in frames] == ["float64", "Float64"]
    assert [dtypes_of(frame)["finished_at"] for frame in frames] == [
        "datetime64[ms, UTC]",
        "Datetime(time_unit='ms', time_zone='UTC')",
    ]


@pytest.mark.parametrize(
    ("value", "in_pandas", "in_polars"),
    [
        (7, 7, 7),
        (2**63 - 1, 2**63 - 1, 2**63 - 1),
        (2**80, 2**80, str(2**80)),
        (-(2**70), -(2**70), str(-(2**70))),
        (0.5, 0.5, 0.5),
        (True, True, True),
        ("👋 שלום", "👋 שלום", "👋 שלום"),
        ("\ud83d", "\ud83d", "\ufffd"),
        ("", "", ""),
        ({"a": [1, None]}, {"a": [1, None]}, '{"a":[1,null]}'),
        ([1, "x"], [1, "x"], '[1,"x"]'),
        (None, None, None),
    ],
)  # fmt: skip
def test_any_value_of_the_input_is_kept(value, in_pandas, in_polars) -> None:
    outcomes = [answered("a", line={"field": value}), answered("b", line={}), answered("c", line={"field": value})]
    for library, expected in (("pandas", in_pandas), ("polars", in_polars)):
        rows = rows_of(batchchat.to_frame(outcomes, library=library)) if value is not None else None
        rows = rows or rows_of(batchchat.to_frame(outcomes, library=library))
        assert [row["input.field"] for row in rows] == [expected, None, expected]
        assert type(rows[0]["input.field"]) is type(expected)


@pytest.mark.parametrize(
    ("ids", "in_polars"), [((1, 2), [1, 2]), ((1, "a"), ["1", "a"]), ((2**70, "a"), [str(2**70), "a"])]
)
def test_ids_of_either_kind_are_kept(ids, in_polars) -> None:
    outcomes = [answered(prompt_id) for prompt_id in ids]
    assert [row["id"] for row in rows_of(batchchat.to_frame(outcomes, library="pandas"))] == list(ids)
    assert [row["id"] for row in rows_of(batchchat.to_frame(outcomes, library="polars"))] == in_polars


def test_integers_that_a_float_cannot_hold_stay_whole_beside_floats() -> None:
    outcomes = [answered(1, line={"n": 0.5}), answered(2, line={"n": 2**60 + 1})]
    assert [row["input.n"] for row in rows_of(batchchat.to_frame(outcomes, library="pandas"))] == [0.5, 2**60 + 1]
    assert [row["input.n"] for row in rows_of(batchchat.to_frame(outcomes, library="polars"))] == [
        "0.5",
        str(2**60 + 1),
    ]


def test_structured_answers_are_objects_in_pandas_and_json_in_polars() -> None:
    outcomes = [answered("a", parsed={"label": "x", "n": 1}, value="x"), answered("b", parsed=[1], value=2)]
    rows = rows_of(batchchat.to_frame(outcomes, library="pandas"))
    assert [(row["parsed"], row["value"]) for row in rows] == [({"label": "x", "n": 1}, "x"), ([1], 2)]
    rows = rows_of(batchchat.to_frame(outcomes, library="polars"))
    assert [(row["parsed"], row["value"]) for row in rows] == [('{"label":"x","n":1}', "x"), ("[1]", "2")]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + answer("b", "two") + answer("a", "again") + b'{"id":"c","respo')
    (tmp_path / "r.errors.jsonl").write_bytes(failure("b") + failure("d"))
    return path


@pytest.mark.parametrize("library", LIBRARIES)
def test_file_has_a_row_for_each_prompt_and_none_for_half_a_line(results: Path, library: str) -> None:
    rows = rows_of(batchchat.read_frame(str(results), library=library))
    assert [(row["id"], row["response"], row["error_type"]) for row in rows] == [
        ("a", "Because …", None), ("b", "two", None), ("d", None, "server"),
    ]  # fmt: skip
    assert len(batchchat.read_frame(str(results), library=library, errors=False)) == 2


@pytest.mark.parametrize("library", LIBRARIES)
def test_file_and_outcomes_make_the_same_frame(tmp_path: Path, library: str) -> None:
    outcomes = [answered("a"), answered("b", ""), answered(3, line=None), failed("d")]
    (tmp_path / "r.jsonl").write_bytes(answer("a") + answer("b", "") + answer(3, line=None))
    (tmp_path / "r.errors.jsonl").write_bytes(failure("d"))
    frame = batchchat.read_frame(str(tmp_path / "r.jsonl"), library=library)
    assert rows_of(frame) == rows_of(batchchat.to_frame(outcomes, library=library))
    assert dtypes_of(frame) == dtypes_of(batchchat.to_frame(outcomes, library=library))


def test_batch_form_makes_the_same_frame(tmp_path: Path) -> None:
    outcomes = [answered("a"), answered("b", "two", variant={"model": "m"})]
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"".join(dump_line(outcome_to_batch_object(outcome)) for outcome in outcomes))
    assert rows_of(batchchat.read_frame(str(path))) == rows_of(batchchat.to_frame(outcomes))


def test_same_columns_as_a_converted_file(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    results.write_bytes(answer("a") + answer("b"))
    command = [sys.executable, "-m", "batchchat", "convert", str(results), str(out)]
    subprocess.run(command, check=True, timeout=50, capture_output=True)
    header = out.read_text().split("\n")[0].split(",")
    assert list(batchchat.read_frame(str(results), errors=False).columns) == header


@pytest.mark.parametrize(
    ("path", "content", "error", "sentence"),
    [
        ("missing.jsonl", None, ResultsFileError, "missing.jsonl: there is no such results file"),
        ("-", None, ConfigError, "- is no file; expected the path of a results file"),
        ("x.jsonl", b'{"name": 1}\n', ResultsFileError, "x.jsonl:1: expected a result with id and response"),
    ],
)
def test_what_is_no_results_file_is_told_in_a_sentence(tmp_path, monkeypatch, path, content, error, sentence) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(path).write_bytes(content)
    with pytest.raises(error, match=sentence):
        batchchat.read_frame(path)


def test_library_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match="library: expected 'pandas' or 'polars', found 'numpy'"):
        batchchat.to_frame([], library="numpy")


@pytest.mark.parametrize(
    ("missing", "library", "told"),
    [
        ("pandas", "'pandas'", "pandas is not installed; install it with pip install 'batchchat[pandas]'"),
        ("polars", "'polars'", "polars is not installed; install it with pip install 'batchchat[polars]'"),
        ("pandas polars", "None", "neither pandas nor polars is installed; install it with pip install"),
        ("pandas", "None", "polars.dataframe.frame"),
    ],
)
def test_library_that_is_not_installed_is_told_with_what_to_install(missing: str, library: str, told: str) -> None:
    code = (
        "import importlib.util, sys\n"
        f"absent = {missing.split()}\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name in absent else found(name, *more)\n"
        "import batchchat\n"
        "assert not {'pandas', 'polars'} & set(sys.modules)\n"
        "try:\n"
        f"    print(type(batchchat.to_frame([], library={library})).__module__)\n"
        "except batchchat.BatchchatError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert told in done.stdout, done.stderr


def test_outcome_that_is_bare_has_a_row() -> None:
    (row,) = rows_of(batchchat.to_frame([Outcome(id=1, index=0, completion=Completion(text="yes"))], library="pandas"))
    assert (row["id"], row["response"], row["attempts"]) == (1, "yes", 0)
    assert datetime.now(UTC) >= row["finished_at"].to_pydatetime()
