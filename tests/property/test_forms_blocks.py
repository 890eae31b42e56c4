"""Many lines at once come to what each of them comes to by itself: bytes, losses, formulas, faults."""

import gc
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchchat.forms import Conversion, convert
from batchchat.forms.blocks import parsed_blocks
from batchchat.forms.conversion import FaultyInputError
from batchchat.forms.csv_cells import read_columns, read_result_cells
from batchchat.forms.csv_table import CsvWriter
from batchchat.forms.losses import Losses
from batchchat.forms.result_columns import lines_of_columns, prompt_columns, result_columns
from batchchat.forms.result_rows import RESULT_COLUMNS, are_ordinary, result_to_row, tell_row_losses
from batchchat.forms.shapes import Columns
from batchchat.forms.sources import Source
from batchchat.forms.survey import survey
from batchchat.jsonl import dump_line, has_long_number, iter_lines, parse_object

TEXT = st.sampled_from(
    ("", "a", "a,b", "a\tb", 'q"', "l\nm", "\r", " lead", "trail\xa0", "=1", "-5", "-x", "\tq", "\u200bz", "5", "é")
)
NUMBER = st.sampled_from((0, -1, 2**63, -(2**64), 10**30, 0.0, -0.0, 1e-5, 1e-7, 0.1, 1e16, 1e22, True, False))
VALUE = TEXT | NUMBER | st.none() | st.sampled_from(([], ["a", None], {}, {"a,": 1}))
FLAT = {"id": "a", "response": "x", "error": None, "finish_reason": "stop", "model": "m", "usage": {"input_tokens": 1, "output_tokens": 2}, "attempts": 1, "latency_s": 1.0, "first_delta_s": 0.5, "finished_at": "2026-01-01T00:00:00.000Z", "provider": "p", "index": 0, "fingerprint": "f", "input": {"prompt": "q"}}  # fmt: skip
ERROR = {"type": "server", "message": "m", "status": 500, "retryable": True, "partial": None}
RESULT = st.builds(
    lambda changes, usage, error, given, more: {
        **FLAT, **changes, "usage": usage, "error": error, "input": given, **more
    },
    st.fixed_dictionaries({}, optional={"id": TEXT | NUMBER, "response": VALUE, "latency_s": VALUE, "index": VALUE}),
    st.none() | st.fixed_dictionaries({}, optional={"input_tokens": VALUE, "output_tokens": VALUE, "estimated": VALUE, "x": VALUE}),
    st.none() | st.just(ERROR) | st.fixed_dictionaries({}, optional={"type": VALUE, "retryable": VALUE}),
    st.none() | st.dictionaries(st.sampled_from(("prompt", "n", "é")), VALUE),
    st.fixed_dictionaries({}, optional={"parsed": VALUE, "variant": VALUE, "extra": VALUE, "attempts": VALUE}),
)  # fmt: skip
PROMPT = st.dictionaries(st.sampled_from(("id", "prompt", "system", "messages", "params", "n", "topic")), VALUE)
ORDINARY = {"str": ("", "x"), "int": ("", "7"), "float": ("", "0.5", "2"), "bool": ("", "true"), "json": ("", "[1]")}
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("escape", [False, True])
@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("line", [RESULT, PROMPT], ids=["results", "prompts"])
@FEW
@given(data=st.data())
def test_rows_written_at_once_are_those_written_one_by_one(
    line: Any, delimiter: str, escape: bool, data: st.DataObject
) -> None:
    lines, is_result = data.draw(st.lists(line, min_size=1, max_size=6)), line is RESULT
    names = dict.fromkeys(RESULT_COLUMNS if is_result else ())
    rows = [result_to_row(each) if is_result else each for each in lines]
    for row in rows:
        names |= dict.fromkeys(row)

    def written(at_once: bool) -> tuple[bytes, Any, Any]:
        losses = Losses()
        table = CsvWriter(list(names), delimiter, losses, escape_formulas=escape)
        if at_once:
            columns = result_columns(lines) if is_result else prompt_columns(lines)
            assert columns is not None
            done = table.rows(range(7, 7 + len(lines)), columns)
        else:
            done = b""
            for losses.line_number, row in enumerate(rows, 7):
                done += table.row(row)
        return done, losses.all(), (table.formulas.lines, table.formulas.first_line)

    assert written(True) == written(False)


@FEW
@given(st.lists(RESULT, min_size=1, max_size=3))
def test_lines_that_are_ordinary_as_a_block_have_no_loss(lines: list[dict[str, Any]]) -> None:
    told: list[Any] = []
    for line in lines:
        tell_row_losses(line, result_to_row(line), lambda *loss: told.append(loss))
    assert not (told and are_ordinary(lines, map(tuple, lines)))


def shape_of(shape: Any) -> Any:
    """What types hang on; of integers that a double holds exactly, only that they are some."""
    if shape is None:
        return None
    small = shape.is_exact_in_double
    fields = None if shape.fields is None else {key: shape_of(value) for key, value in shape.fields.items()}
    return shape.kinds, small or (shape.lowest, shape.highest), shape_of(shape.item), fields, shape.varied


@pytest.mark.parametrize("line", [RESULT, PROMPT], ids=["results", "prompts"])
@FEW
@given(data=st.data())
def test_kinds_found_quickly_are_those_of_whole_rows(line: Any, data: st.DataObject, tmp_path_factory: Any) -> None:
    """But whether a column of seconds holds whole numbers too, which changes nothing."""
    lines, is_result = data.draw(st.lists(line, min_size=1, max_size=3)), line is RESULT
    lines = [each | {"id": f"q{number}"} for number, each in enumerate(lines * data.draw(st.integers(1, 3)))]
    expected = Columns(RESULT_COLUMNS if is_result else ())
    for each in lines:
        expected.add(result_to_row(each) if is_result else each)
    path = tmp_path_factory.getbasetemp() / "kinds.jsonl"
    path.write_bytes(b"\n".join(map(dump_line, lines)))
    with Source(str(path), None, twice=True) as source:
        found = survey(source, Losses(), lambda *fault: pytest.fail(str(fault)), names_only=False)
    assert (found.names, found.rows) == (expected.names, expected.rows)
    for name in found.names:
        assert found.is_missing_somewhere(name) == expected.is_missing_somewhere(name)
        shapes = shape_of(found.shapes[name]), shape_of(expected.shapes[name])
        seconds = RESULT_COLUMNS.get(name) == "float" and {"float"} <= shapes[0][0] <= shapes[1][0] <= {"int", "float"}
        assert shapes[0] == shapes[1] or seconds


@pytest.mark.parametrize("line", [RESULT, PROMPT], ids=["results", "prompts"])
@FEW
@given(data=st.data())
def test_names_alone_are_the_columns_of_whole_rows(line: Any, data: st.DataObject, tmp_path_factory: Any) -> None:
    lines, is_result = data.draw(st.lists(line, min_size=1, max_size=5)), line is RESULT
    lines = [each | {"id": f"q{number}"} for number, each in enumerate(lines)]
    expected = Columns(RESULT_COLUMNS if is_result else ())
    for each in lines:
        expected.add(result_to_row(each) if is_result else each)
    path = tmp_path_factory.getbasetemp() / "names.jsonl"
    path.write_bytes(b"\n".join(map(dump_line, lines)))
    with Source(str(path), None, twice=True) as source:
        found = survey(source, Losses(), lambda *fault: pytest.fail(str(fault)), names_only=True)
    assert found.names == expected.names
    assert found.rows == len(lines)


CELL = st.sampled_from(("", "a", "5", "-0", "007", "1.5", "1e3", "1e999", "true", "null", "NaN", "1,2", " ", " 5", '"x"', "[1]", "{}", "1],[2", "12345678901234567890", "12345678901234567890123"))  # fmt: skip


@FEW
@given(st.data())
def test_cells_read_by_columns_are_those_read_row_by_row(data: st.DataObject) -> None:
    more = data.draw(st.lists(st.sampled_from(("input.a", "input.b", "extra", "error")), unique=True))
    names = [*data.draw(st.permutations([*RESULT_COLUMNS])), *more]
    odd = data.draw(st.sets(st.sampled_from(names), max_size=4))
    rows = [
        {name: data.draw(CELL) if name in odd else data.draw(st.sampled_from(ORDINARY[RESULT_COLUMNS.get(name, "str")])) for name in names}
        for _ in range(data.draw(st.integers(1, 4)))
    ]  # fmt: skip
    columns = read_columns({name: [row[name] for row in rows] for name in names})
    try:
        expected = [read_result_cells(row) for row in rows]
    except ValueError:
        assert columns is None
        return
    if columns is not None:
        assert list(map(dump_line, lines_of_columns(columns, len(rows)))) == list(map(dump_line, expected))


def test_more_kinds_of_loss_than_are_told_apart_are_counted_as_one_by_one() -> None:
    told = {(f"k{kind}", "is lost"): list(range(1 + kind % 7, 40, 3)) for kind in range(230)}
    at_once, one_by_one = Losses(), Losses()
    for first in (1, 101):
        at_once.tell_lines("csv", {kind: [first + number for number in numbers] for kind, numbers in told.items()})
        for one_by_one.line_number in range(first, first + 41):
            for (what, fate), numbers in told.items():
                if one_by_one.line_number - first in numbers:
                    one_by_one.tell("csv", what, fate)
    assert at_once.all() == one_by_one.all()


@FEW
@given(
    st.lists(
        st.sampled_from(
            [b'{"a":1}', b'{"a":12345678901234567890}', b"\n", b"\n\n", b" ", b"\r", b"\xef\xbb\xbf", b"[1]", b"\xff",
             b'{"a":' + b"[" * 9 + b"]" * 9 + b"}", b'{"b":"' + b"x" * 300 + b'"}', b'{"a":1e999}', b'"\\ud800"']
        )
    )
)  # fmt: skip
def test_blocks_hold_the_lines_that_are_read_one_by_one(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    expected: list[Any] = []
    for number, line in iter_lines(io.BytesIO(data)):
        try:
            expected.append((number, parse_object(line, max_depth=8)))
        except ValueError as error:
            expected.append((number, str(error)))
    blocks = list(parsed_blocks(io.BytesIO(data), max_depth=8))
    assert [item for block in blocks for item in block.items()] == expected
    assert [block.faulty for block in blocks] == [any(type(row) is str for row in block.rows) for block in blocks]


@FEW
@given(st.lists(st.text("0123456789", max_size=25) | st.text("0a", max_size=300), max_size=20), st.integers(0, 300))
def test_a_long_number_is_seen_wherever_it_stands(pieces: list[str], before: int) -> None:
    data = ("x" * before + ",".join(pieces)).encode()
    assert has_long_number(data) == bool(re.search(rb"[0-9]{19}", data))


def test_a_name_that_turns_up_late_is_a_column(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    plain = [{"id": f"p{number}", "prompt": "x" * 100} for number in range(2000)]
    path.write_bytes(b"".join(map(dump_line, [*plain, {"id": "l", 'a"b': 1, "prompt": "y", "n": 1}, *plain, {"m": 1}])))
    with Source(str(path), None, twice=True) as source:
        found = survey(source, Losses(), lambda *fault: None, names_only=True)
    assert (found.names, found.rows) == (["id", 'a"b', "prompt", "n", "m"], 4002)


def test_fault_behind_the_first_lines_leaves_no_table_and_no_complaint(tmp_path: Path) -> None:
    path, table = tmp_path / "p.jsonl", tmp_path / "t.parquet"
    plain = [{"id": f"p{number}", "prompt": "x" * 100} for number in range(2000)]
    path.write_bytes(b"".join(map(dump_line, plain)) + b'{"id":"l","prompt":"half \\ud83d"}\n')
    faults: list[int] = []
    with pytest.raises(FaultyInputError):
        convert(
            Conversion(source=str(path), target=str(table)), lambda line, reason: faults.append(line), lambda loss: None
        )
    gc.collect()  # what pyarrow complains of then is a warning, and so an error
    assert faults == [2001]
    assert not table.exists()
