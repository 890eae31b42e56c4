"""Text that fits its width, with every figure whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.text_layout import columns_of, cut, flow

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
PARTS = st.lists(st.lists(WORDS, min_size=1, max_size=5).map(" ".join), max_size=8)


@given(PARTS, st.integers(30, 120), st.sampled_from([", ", " · "]), st.sampled_from(["", "  "]))
def test_no_line_is_too_wide_and_no_word_is_cut(parts: list[str], columns: int, between: str, indent: str) -> None:
    lines = flow(parts, columns, between=between, indent=indent)
    assert all(columns_of(line) <= columns for line in lines)
    words = [word for line in lines for word in line.replace(between.strip(), " ").split()]
    assert "".join(words) == "".join(parts).replace(" ", "").replace(between.strip(), "")


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (80, ["12.3/s of 20/s, about 7m left, 3 retrying"]),
        (31, ["12.3/s of 20/s, about 7m left,", "3 retrying"]),
        (16, ["12.3/s of 20/s,", "about 7m left,", "3 retrying"]),
        (10, ["12.3/s of", "20/s,", "about 7m", "left,", "3 retrying"]),
    ],
)
def test_parts_take_as_few_lines_as_they_need(columns: int, lines: list[str]) -> None:
    assert flow(["12.3/s of 20/s", "about 7m left", "3 retrying"], columns) == lines


def test_nothing_is_one_empty_line() -> None:
    assert flow([], 20) == [""]


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("short", 5, "short"),
        ("longer", 5, "long…"),
        ("日本語の文", 5, "日本…"),
        ("שלום", 3, "של…"),
        ("e\u0301e", 2, "e\u0301e"),
    ],
)
def test_text_is_cut_by_the_columns_that_it_takes(text: str, columns: int, expected: str) -> None:
    assert cut(text, columns) == expected
    assert columns_of(cut(text, columns)) <= columns
