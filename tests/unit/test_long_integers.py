"""Integers of any length, there and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.jsonl import dump_line, parse_object
from batchchat.long_integers import integer_digits, parse_integer


@pytest.mark.parametrize("digits", [1, 19, 20, 1999, 2000, 2001, 4000, 4300, 4301, 12_345])
@settings(deadline=None)
@given(data=st.data())
def test_digits_are_the_same_after_a_round_trip(digits: int, data: st.DataObject) -> None:
    piece = data.draw(st.text("0123456789", min_size=1, max_size=30))
    text = data.draw(st.sampled_from("123456789")) + (piece * digits)[: digits - 1]
    for written in (text, f"-{text}"):
        number = parse_integer(written)
        assert number % 1_000_007 == _remainder(written)
        assert integer_digits(number) == written


def _remainder(text: str) -> int:
    """By long division, which needs no long integer."""
    rest = 0
    for digit in text.removeprefix("-"):
        rest = (rest * 10 + int(digit)) % 1_000_007
    return -rest % 1_000_007 if text.startswith("-") else rest


def test_million_digits_are_read_and_written_in_seconds() -> None:
    """With the square of the number it would take minutes, far beyond the time of a test."""
    line = b'{"n":-' + b"1234567890" * 100_000 + b"}"
    assert dump_line(parse_object(line)) == line + b"\n"
