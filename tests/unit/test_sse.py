"""Events come out whole, whatever the network does to their bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.sse import SSEDecoder


def decoded(data: bytes, cuts: list[int] = []) -> list[tuple[str, bytes]]:
    decoder = SSEDecoder()
    events = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in zip(edges, edges[1:], strict=False):
        events += decoder.feed(data[start:end])
    events += decoder.finish()
    return [(event.event, event.data) for event in events]


@pytest.mark.parametrize(
    "data",
    [
        b"data: {}\n\n",
        b"data:{}\n\n",
        b"data: {}\r\n\r\n",
        b"data: {}\r\r",
        b"\xef\xbb\xbfdata: {}\n\n",
        b": keep-alive\n\ndata: {}\n\n",
        b"id: 7\nretry: 100\ndata: {}\n\n",
        b"\n\n\ndata: {}\n\n\n\n",
        b"data: {}\n",
        b"data: {}",
        b"<br />\n<b>Warning</b>: x on line 3<br />\n\ndata: {}\n\n",
        b"<b>Warning</b>: x<br />\ndata: {}\n\n",
    ],
)
def test_dialects_give_the_same_event(data: bytes) -> None:
    assert decoded(data) == [("", b"{}")]


def test_data_lines_are_joined_by_a_line_feed() -> None:
    assert decoded(b"event: message\ndata: a\ndata:  b\ndata\n\n") == [("message", b"a\n b\n")]


def test_only_lf_cr_and_crlf_end_a_line() -> None:
    """U+2028, U+2029, U+0085, vertical tab and form feed are text."""
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf".encode()
    assert decoded(b"data: " + text + b"\n\n") == [("", text)]


def test_comments_alone_give_no_event() -> None:
    assert decoded(b": ping\n\n: ping\n\n") == []


def test_long_event_in_many_chunks_costs_linear_time() -> None:
    """8 MB in 8,000 chunks: joined once, not at each chunk."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: ") == []
    for _ in range(8000):
        assert decoder.feed(b"x" * 1000) == []
    assert decoder.pending
    (event,) = decoder.feed(b"\n\n")
    assert len(event.data) == 8_000_000
    assert not decoder.pending


LINE = st.sampled_from(
    [b"data: a", b"data:b", b"data", b": c", b"event: e", b"id: 1", b"", b"junk", b"data: \xe2\x80\xa8"]
)
END = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINE, END), max_size=12), st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_any_split_of_the_bytes_gives_the_same_events(lines, cuts, bom) -> None:
    data = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in lines)
    assert decoded(data, cuts) == decoded(data)


@given(st.lists(st.tuples(LINE, END), max_size=12))
def test_line_ends_of_any_kind_give_the_same_events(lines) -> None:
    plain = b"".join(line + b"\n" for line, _ in lines)
    # A CR before an LF line end would read as one CRLF, so each file keeps to one kind here.
    for end in (b"\r\n", b"\r"):
        assert decoded(b"".join(line + end for line, _ in lines)) == decoded(plain)


@given(st.lists(st.tuples(LINE, END), max_size=12), st.booleans())
def test_plain_chunk_is_one_whose_events_are_single_lines(lines, ended) -> None:
    """Whatever is taken for plain comes to the same events as feeding it; the decoder holds nothing afterwards."""
    data = b"".join(line + end for line, end in lines) + (b"\n" if ended else b"")
    plain = SSEDecoder().plain_lines(data)
    fed = SSEDecoder()
    events = [event.data for event in fed.feed(data)]
    if plain is not None:
        assert plain.split(b"\n") == events
        assert not fed.pending


def test_ordinary_chunks_are_plain_and_others_are_not() -> None:
    assert SSEDecoder().plain_lines(b"data: a\n\ndata: b\n\n") == b"a\nb"
    for data in (
        b"data: a\r\n\r\n",
        b"data: a\ndata: b\n\n",
        b"data: a\n\nid: 1\n\n",
        b"data: a\n\ndata:b\n\n",
        b": c\n\ndata: a\n\n",
        b"data: a\n\ndata: b\n",
        b"data: a\n\n\ndata: b\n\n",
        b"\xef\xbb\xbfdata: a\n\n",
    ):
        assert SSEDecoder().plain_lines(data) is None
    cut = SSEDecoder()
    cut.feed(b"da")
    assert cut.plain_lines(b"data: b\n\n") is None
