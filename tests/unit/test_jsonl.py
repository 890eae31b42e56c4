"""JSON Lines: what is read, what is refused and why, what is written."""

import io
import json
import os
import threading

import pytest

from batchchat import jsonl
from batchchat.jsonl import dump_canonical, dump_line, iter_lines, parse_object


def lines_of(data: bytes, **limits: int) -> list[tuple[int, bytes]]:
    return list(iter_lines(io.BytesIO(data), **limits))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"\xef\xbb\xbfa\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"\xef\xbb\xbf\na", [(2, b"a")]),
        (b"\n \t\r\na\n\n\nb\n\n", [(3, b"a"), (6, b"b")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        ("a\u2028b\x85c\nd".encode(), [(1, "a\u2028b\x85c".encode()), (2, b"d")]),
        (b"a\n\xef\xbb\xbfb", [(1, b"a"), (2, b"\xef\xbb\xbfb")]),
    ],
)
def test_only_lf_ends_a_line_and_blank_lines_only_count(data: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert lines_of(data) == expected


def test_lines_longer_than_a_chunk_come_out_whole() -> None:
    long = b"x" * 700_000
    assert lines_of(b"a\n" + long + b"\nb") == [(1, b"a"), (2, long), (3, b"b")]


def test_a_line_over_the_limit_is_cut_and_the_next_one_found() -> None:
    assert lines_of(b"x" * 900_000 + b"\nok\n", max_line_bytes=10) == [(1, b"x" * 11), (2, b"ok")]
    assert lines_of(b"a\n" + b"x" * 900_000, max_line_bytes=300_000) == [(1, b"a"), (2, b"x" * 300_001)]


def test_a_line_cut_at_the_limit_is_refused() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return jsonl.MAX_LINE_BYTES + 1

    with pytest.raises(ValueError, match="more than 256 MiB"):
        parse_object(Long(b"{}"))


def test_lines_of_a_pipe_come_out_before_its_end() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream:
        lines = iter_lines(stream)
        os.write(writing, b'{"a":1}\n{"b"')
        assert next(lines) == (1, b'{"a":1}')
        writer = threading.Thread(target=lambda: (os.write(writing, b":2}\n"), os.close(writing)))
        writer.start()
        assert list(lines) == [(2, b'{"b":2}')]
        writer.join()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "expected a JSON object, found a list"),
        (b"3", "expected a JSON object, found an integer"),
        (b"1.5", "expected a JSON object, found a number"),
        (b'"x"', "expected a JSON object, found text"),
        (b"null", "expected a JSON object, found null"),
        (b"true", "expected a JSON object, found true"),
        (b'{"a":1', "found invalid JSON at character 7 (Expecting ',' delimiter), expected a JSON object"),
        (b'{"a":1}{', "found invalid JSON at character 8 (Extra data), expected a JSON object"),
        (b"\x00\x00\x00", "found invalid JSON at character 1 (Expecting value), expected a JSON object"),
        (b'{"a":NaN}', "found NaN, expected a JSON value; JSON has no NaN"),
        (b'{"a":-Infinity}', "found -Infinity, expected a JSON value; JSON has no -Infinity"),
        (b'{"a":1e999}', "found 1e999, expected a number that a double can hold"),
        (b'{"a":1e999,"n":12345678901234567890}', "found 1e999, expected a number that a double can hold"),
        (b'{"a":NaN,"n":12345678901234567890}', "found NaN, expected a JSON value; JSON has no NaN"),
        (
            b'{"a":"\xff"}',
            "found a byte that is not UTF-8 (0xff, byte 7 of the line), expected UTF-8 text",
        ),
    ],
)
def test_refusals_say_what_was_found_and_expected(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_object(line)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "line",
    [
        rb'{"a":"\ud83d"}',
        rb'{"a":"x\udc00y"}',
        rb'{"\ud83d":1}',
        rb'{"n":12345678901234567890123,"a":["\ud83d"]}',
        b'{"a":"\xed\xa0\x80"}',
    ],
)
def test_halves_of_surrogate_pairs_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"surrogate pair|not UTF-8"):
        parse_object(line)


def test_whole_surrogate_pairs_are_read_also_beside_long_integers() -> None:
    assert parse_object(rb'{"a":"\ud83d\ude00","n":12345678901234567890123}')["a"] == "\U0001f600"


@pytest.mark.parametrize(
    "number", [1234567890123456789, 2**63, -(2**63) - 1, 2**64, 10**40, -(10**400), 10**5000], ids=int.bit_length
)
def test_integers_of_any_size_survive_reading_and_writing(number: int) -> None:
    line = dump_line({"n": number, "list": [number]})
    assert parse_object(line[:-1]) == {"n": number, "list": [number]}


def test_floats_with_many_digits_stay_floats() -> None:
    assert parse_object(b'{"x":0.12345678901234567890123}') == {"x": 0.12345678901234568}


def test_nesting_beyond_the_limit_is_refused_not_a_crash() -> None:
    deep = 5000
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_object(b'{"a":' * deep + b"1" + b"}" * deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_object(b'{"n":12345678901234567890,"a":' + b"[" * deep + b"]" * deep + b"}")


def test_nesting_that_is_read_is_written_again() -> None:
    line = b'{"a":' * 1000 + b"1" + b"}" * 1000
    assert dump_line(parse_object(line)) == line + b"\n"


def test_written_line_is_one_line_for_every_reader() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\nj\rk"
    line = dump_line({text: text})
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == {text: text}
    assert b"\\u2028" in line
    assert b"\\u2029" in line
    assert b"\\u0085" in line


def test_line_separators_are_escaped_on_the_careful_way_too() -> None:
    assert dump_line({"a": "\u2028", "n": 2**70}) == b'{"a":"\\u2028","n":1180591620717411303424}\n'


def test_half_of_a_pair_is_replaced_and_the_rest_kept() -> None:
    assert json.loads(dump_line({"a": "x\ud83dy", "\udc00": ["\ud83d\ude00"]})) == {
        "a": "x\ufffdy",
        "\ufffd": ["\U0001f600"],
    }


def test_what_json_does_not_know_becomes_text_or_null() -> None:
    line = dump_line({1: float("nan"), None: float("inf"), False: {2}, "e": ValueError("bad"), "t": ()})
    assert json.loads(line) == {"1": None, "null": None, "false": "{2}", "e": "bad", "t": []}


def test_canonical_form_knows_no_order_of_keys() -> None:
    plain = {"b": 1, "a": {"d": [1, "x"], "c": None}}
    assert dump_canonical(plain) == b'{"a":{"c":null,"d":[1,"x"]},"b":1}'
    big = {"b": 2**70, "a": {"d": "\ud800", "c": 1}}
    assert dump_canonical(big) == '{"a":{"c":1,"d":"\ufffd"},"b":1180591620717411303424}'.encode()
