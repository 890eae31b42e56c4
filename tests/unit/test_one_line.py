"""Text from anywhere stays on its line of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.errors import ConfigError, PromptFileError, ResultsFileError, ServerError
from batchchat.one_line import MOST_MESSAGE_CHARS, one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain — 日本 🙂👩\u200d👧", "plain — 日本 🙂👩\u200d👧"),
        ("a\nb\r\tc\x1b[31m", "a\\nb\\r\\tc\\x1b[31m"),
        ("\x7f\x85\x9b\u2028\u202e\u2066", "\\x7f\\x85\\x9b\\u2028\\u202e\\u2066"),
        ("half \ud83d", "half \\ud83d"),
        ("", ""),
    ],
)
def test_only_what_spoils_a_line_is_escaped(text: str, expected: str) -> None:
    assert one_line(text) == expected


@given(st.text())
def test_any_text_is_one_line_of_utf8(text: str) -> None:
    made = one_line(text)
    made.encode()
    assert len(made.splitlines()) <= 1
    assert one_line(made) == made


def test_long_text_is_cut() -> None:
    assert one_line("x" * 10**6) == "x" * (MOST_MESSAGE_CHARS - 1) + "…"


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("a\nb", path="j\x1b.yaml", line=1, key="k\r"),
        PromptFileError("in\n.jsonl", "a\x1b", 2),
        ResultsFileError("a\nb"),
        ServerError("a\u2028b"),
    ],
)
def test_errors_are_one_line_whatever_stands_in_them(error: Exception) -> None:
    assert str(error) == one_line(str(error))
    assert len(str(error).splitlines()) == 1
