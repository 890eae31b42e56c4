"""What holds for every value and every way of cutting a stream."""

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchchat.jsonl import dump_canonical, dump_line, iter_lines, parse_object

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ANY_TEXTS = st.text(st.characters())
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def objects(texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    scalars = st.none() | st.booleans() | st.integers() | st.integers(-(10**40), 10**40) | FLOATS | texts
    values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12)
    return st.dictionaries(texts, values)


class Chunks(io.RawIOBase):
    """A stream that gives its bytes in pieces of chosen lengths."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes = data, sizes

    def read(self, size: int = -1) -> bytes:
        count = self._sizes.pop() if self._sizes else len(self._data)
        piece, self._data = self._data[:count], self._data[count:]
        return piece


@given(objects(TEXTS))
def test_dump_then_parse_is_identity(value: dict[str, Any]) -> None:
    assert parse_object(dump_line(value)[:-1]) == value


@given(objects(ANY_TEXTS))
def test_every_written_line_is_one_line_of_strict_json(value: dict[str, Any]) -> None:
    line = dump_line(value)
    text = line.decode()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    json.loads(text, parse_constant=lambda name: 1 / 0)
    assert list(iter_lines(io.BytesIO(line))) == [(1, line[:-1])]


@given(objects(TEXTS))
def test_canonical_form_depends_on_the_value_alone(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert dump_canonical(turned) == dump_canonical(value)
    assert parse_object(dump_canonical(value)) == value


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b" ", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"{}"])),
    st.lists(st.integers(1, 5)),
)
def test_lines_are_the_same_however_the_stream_is_cut(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"".join(pieces)
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = [(number, line.removesuffix(b"\r")) for number, line in enumerate(lines, 1) if line.strip()]
    assert list(iter_lines(Chunks(data, sizes))) == expected


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u0d8NaInfity1e9.-', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_a_sentence(line: bytes) -> None:
    try:
        value = parse_object(line)
    except ValueError as error:
        assert "expected" in str(error)
    else:
        assert dump_line(value)
