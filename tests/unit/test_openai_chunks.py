"""What is decoded together comes to the same as event by event, and what is not ordinary is not taken for it."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from batchchat.errors import ProviderError
from batchchat.providers import openai_body
from batchchat.providers.openai_body import CompletionReader
from batchchat.providers.openai_chunks import decoded_chunks

PIECES: list[Any] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], "model": "m-1"},
    {"choices": [{"index": 0, "delta": {"content": "a"}}], "model": "m-2"},
    {"choices": [{"delta": {"content": "b"}, "finish_reason": ""}], "model": ""},
    {"choices": [{"index": 1, "delta": {"content": "c"}}], "object": "chat.completion.chunk"},
    {"choices": [{"index": 0, "delta": {"content": "\u2028 d\u0085"}}, {"index": 1, "delta": {"content": "e"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [{"index": 1, "delta": None, "finish_reason": "length"}]},
    {"choices": [{"index": 0, "delta": {"refusal": "no"}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]}}]},
    {"choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "part"}]}}]},
    {"choices": [{"index": 2000, "delta": {"content": "far"}}]},
    {"choices": [{"index": True, "delta": {"content": "t"}}]},
    {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "error"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    {"choices": None},
    {"usage": None},
    {"error": {"message": "overloaded", "type": "server_error"}},
    {"error": None, "choices": [{"delta": {"content": "f"}}]},
    {"object": "error", "message": "no"},
    {"id": "unknown", "nested": [[{"content": "not this"}]], "choices": [{"delta": {"content": "g", "more": 1.5}}]},
]
RAW = [
    b"[DONE]",
    b"not JSON",
    b"[1]",
    b"null",
    b'{"choices":[{"delta":{"content":"\\ud800"}}]}',
    b'{"choices":[{"delta":{"content":"\xff"}}]}',
    b'{"choices":[{"delta":{"content":"a"}}]} {"choices":[]}',
    b'{"choices":[',
    b'{"choices":[]},{"choices":[{"delta":{"content":"two"}}]}',
    b'{"a":' + b"[" * 600 + b"]" * 600 + b"}",
    b'{"a":NaN,"choices":[{"delta":{"content":"n"}}]}',
]
EVENT = st.sampled_from([json.dumps(piece).encode() for piece in PIECES] * 2 + RAW)


class Reply:
    """An exchange whose bytes are there already."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks, self.headers, self.first_byte_s = chunks[::-1], CIMultiDict[str](), 0.5

    async def read(self) -> bytes:
        return self.chunks.pop() if self.chunks else b""

    async def linger(self) -> None:
        self.chunks.clear()

    def expect_end(self) -> None:
        pass


async def read(chunks: list[bytes], *, deltas: bool) -> tuple[Any, ...]:
    """What comes of a stream: the completion or the error, the text told on the way, the text that is left."""
    reader, told = CompletionReader(deltas=deltas, choices=1), list[str]()
    try:
        if not deltas:
            return await reader.read(Reply(chunks)), reader.partial
        async for event in reader.stream(Reply(chunks)):
            told.append(getattr(event, "text", None) or event.completion)
    except ProviderError as error:
        return error.type, error.message, told, reader.partial
    return told, reader.partial


@pytest.mark.parametrize("deltas", [False, True])
@given(events=st.lists(EVENT, max_size=8), grouped=st.lists(st.integers(1, 4), min_size=8, max_size=8))
def test_events_decoded_together_come_to_the_same_as_one_by_one(deltas, events, grouped) -> None:
    blocks = [b"data: " + event + b"\n\n" for event in events]
    chunks = []
    while blocks:
        count = grouped[len(chunks)]
        chunks.append(b"".join(blocks[:count]))
        blocks = blocks[count:]
    together = asyncio.run(read(chunks, deltas=deltas))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_body, "decoded_chunks", lambda lines: None)
        assert asyncio.run(read(chunks, deltas=deltas)) == together


@pytest.mark.parametrize("piece", [piece for piece in PIECES[:7] if piece.get("choices")])
def test_ordinary_events_are_decoded_together(piece) -> None:
    """Else the test above would compare one way with itself."""
    line = json.dumps(piece).encode()
    assert decoded_chunks(line + b"\n" + line) is not None


@pytest.mark.parametrize(
    "lines",
    [
        b'{"a":{}} {"b":1}\n{"c":',
        b'{"a":\n{"x":1}} {"b":2}',
        b'{"choices":[{}\n{}]} {}',
        b"{}\n\n{}",
        b"",
        b"{}\n",
        b"\n{}",
        b"[DONE]",
    ],
)
def test_lines_that_are_not_one_object_each_are_not_taken_for_it(lines: bytes) -> None:
    assert decoded_chunks(lines) is None
