"""Answers read the quick way: what it takes is what looking closely would have taken, and it takes what is ordinary."""

import gzip
import time
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.jsonl import dump_line
from batchchat.results import fingerprint_value, open_journal, outcome_from_object, outcome_to_batch_object, run_files
from batchchat.results.figures import figures_of, read_figures
from batchchat.results.quick import read_answers
from batchchat.results.scan import RawLine, judge
from tests.result_lines import FINGERPRINT, answer, answered

BATCH = dump_line(outcome_to_batch_object(answered("b", "Já, 漢字 😀")))
LINES = {"flat": answer("a", 'Yes, "so" it is 漢字 😀'), "openai-batch": BATCH}
# Pieces that turn a line into something else, in as many ways as there are.
BITS = (
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\0", b"\xff", b"\xed\xa0\x80", b"\r", b" ", b"\t", b"\x01"),
    *(b"null", b"true", b"NaN", b"-0", b"1e999", b"01", b"1.", b"12345678901234567890123", b"\\ud800", b"\\u12"),
    *(
        b'"id":"z",',
        b'"id":5.0,',
        b'"id":"",',
        b'"custom_id":"c",',
        b'"error":{},',
        b'"response":null,',
        b'"fingerprint":7,',
    ),
    *(b'"status_code":500,', b'"status_code":200.0,', b'"batchchat":{},', b'"response":{},', b"[" * 1200),
)


@pytest.mark.parametrize("form", LINES)
def test_ordinary_answers_are_taken(form):
    line = LINES[form]
    assert read_answers([line, line], form) == [("ab"[form != "flat"], bytes.fromhex(FINGERPRINT))] * 2


@pytest.mark.parametrize("id", [5, -1, 2**63, "q-17", "漢"])
def test_ids_keep_their_type(id):
    assert read_answers([answer(id)], "flat") == [(id, bytes.fromhex(FINGERPRINT))]


@pytest.mark.parametrize("form", LINES)
@settings(max_examples=150, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(st.sampled_from(BITS), st.binary(max_size=3))),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_taken_is_an_answer_when_looked_at_closely(form, edits):
    """Lines are damaged at random; one that is taken all the same must be told by ``judge`` to say the same."""
    line = LINES[form][:-1]
    for where, cut, put in edits:
        at = int(where * len(line))
        line = line[:at] + put.replace(b"\n", b"") + line[at + cut :]
    taken = read_answers([line + b"\n"], form)
    if taken:
        judged = judge(RawLine(2, 0, line, True))
        assert judged.kind == "answer"
        assert judged.stored.form == form
        assert taken == [(judged.stored.id, fingerprint_value(judged.stored.fingerprint).to_bytes(8, "big"))]


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("bits", BITS)
def test_each_oddity_at_each_place_is_left_to_the_close_look(form, bits):
    line = LINES[form][:-1]
    for at in range(len(line)):
        odd = line[:at] + bits + line[at:]
        taken = read_answers([odd], form)
        if taken:
            judged = judge(RawLine(2, 0, odd, True))
            assert judged.kind == "answer"
            assert taken == [(judged.stored.id, fingerprint_value(judged.stored.fingerprint).to_bytes(8, "big"))]


FIGURES = (
    *(
        b'"usage":{},',
        b'"usage":null,',
        b'"usage":{"input_tokens":1.0},',
        b'"usage":{"input_tokens":true},',
        b'"usage":7,',
    ),
    *(
        b'"usage":{"estimated":1},',
        b'"usage":{"output_tokens":5,"estimated":true,"more":[1]},',
        b'"model":"",',
        b'"model":5,',
    ),
    *(
        b'"input":{"model":"m"},',
        b'"input":{"model":""},',
        b'"input":{"model":5},',
        b'"input":null,',
        b'"input":"text",',
    ),
    *(b'"finished_at":"2026-11-25T10:03:11",', b'"finished_at":"2026-11-25T10:03:11+02:00",', b'"finished_at":5,'),
    *(b'"finished_at":"never",', b'"variant":{"model":"v"},', b'"reused_from":{"id":"x"},', b'"tool_calls":[1],'),
)


@pytest.mark.parametrize("bits", [*BITS, *FIGURES])
def test_figures_read_quickly_are_those_of_the_whole_outcome(bits):
    """At each place of the line and, so that the later of two keys counts, behind its last one."""
    line = LINES["flat"][:-1]
    taken = 0
    for odd in (line, *(line[:at] + bits + line[at:] for at in range(len(line))), line[:-1] + b"," + bits[:-1] + b"}"):
        if (figures := read_figures(odd)) is not None:
            judged = judge(RawLine(2, 0, odd, True))
            assert judged.kind == "answer"
            closely = figures_of(outcome_from_object(judged.obj))
            # A time with more digits than six is cut in one place and rounded in the other.
            assert abs(figures.finished_at - closely.finished_at) <= timedelta(microseconds=1)
            assert figures == closely._replace(finished_at=figures.finished_at)
            taken += 1
    assert taken


@pytest.mark.parametrize(
    "odd", [b"", b"{}", b'{"id":"a"', b"\xef\xbb\xbf" + LINES["flat"], b"\0" + LINES["flat"], BATCH]
)
def test_reading_stops_at_what_is_not_ordinary(odd):
    rest = iter([answer("a"), odd, answer("c")])
    assert [id for id, _ in read_answers(rest, "flat")] == ["a"]
    assert next(rest) == answer("c")


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    "odd", [b"\n", b"\0\n", answer("q-0"), b"garbled\n"], ids=["blank", "zero", "repeated", "garbled"]
)
def test_a_file_full_of_odd_lines_is_opened_in_a_time_that_fits_its_size(tmp_path: Path, ending, odd):
    """The work for one odd line must not grow with the lines around it."""
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[ending]

    def cpu_s(lines: int) -> float:
        path = tmp_path / f"{lines}.jsonl{ending}"
        path.write_bytes(pack(answer("q-0") + odd * lines + answer("q-1")))
        began = time.process_time()
        open_journal(run_files(str(path))).close()
        return time.process_time() - began

    assert cpu_s(20_000) < 40 * max(cpu_s(2_000), 0.005)


@pytest.mark.parametrize("form", LINES)
def test_resuming_costs_little_more_than_parsing_the_file(tmp_path: Path, form):
    """Measured as a share of the processor time of a plain read: 1.3 there, and far more allowed here."""
    path = tmp_path / "r.jsonl"
    text = 'Because the sky scatters light, and "blue" more than red. ' * 10
    make = answer if form == "flat" else lambda id, text: dump_line(outcome_to_batch_object(answered(id, text)))
    path.write_bytes(b"".join(make(f"q-{number:07}", text) for number in range(20_000)))

    def plain() -> None:
        with open(path, "rb") as lines:
            for line in lines:
                orjson.loads(line)

    def resume() -> None:
        journal = open_journal(run_files(str(path)), form=form)
        journal.close()
        assert len(journal.completed) == 20_000

    def cpu_s(work) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    assert min(cpu_s(resume) for _ in range(5)) < 2.5 * min(cpu_s(plain) for _ in range(5))
