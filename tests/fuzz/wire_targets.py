"""Targets for what services send: event streams, bodies, headers."""

import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from multidict import CIMultiDict

from batchchat.errors import ProtocolError, ProviderError
from batchchat.jsonl import dump_line
from batchchat.providers.ai_engine import nonce_in
from batchchat.providers.ai_engine_body import AnswerReader
from batchchat.providers.ai_engine_errors import refusal_error
from batchchat.providers.base import StreamEnd, StreamEvent, TextDelta
from batchchat.providers.nonce import is_nonce
from batchchat.providers.openai_body import CompletionReader
from batchchat.providers.openai_errors import object_error
from batchchat.providers.openai_responses import ResponsesReader
from batchchat.providers.text import load_lenient, plain_text
from batchchat.rate_headers import parse_rate_headers, parse_reset
from batchchat.records import Completion
from batchchat.retry import parse_retry_after, requested_wait_s
from batchchat.sse import SSEDecoder
from batchchat.surrogates import without_surrogates
from tests.fuzz.checks import check_completion, check_failure, check_message, check_wait, split
from tests.fuzz.oracles import http_date, sse_events

# Every cut is tried of an example this long; of a longer one, pieces of a few lengths.
_SHORT_BYTES = 256
_LENGTHS = (7, 1000)
_NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def sse(data: bytes) -> None:
    """The events of the standard, whatever the network does to the bytes."""
    expected = sse_events(data)
    for chunks in chunkings(data):
        decoder = SSEDecoder()
        events = [event for chunk in chunks for event in decoder.feed(chunk)]
        events += decoder.finish()
        assert [(event.event, event.data) for event in events] == expected
        assert not decoder.pending


def ai_engine(data: bytes) -> None:
    """An answer of AI Engine, streamed or whole."""
    _check_reader(data, lambda deltas: AnswerReader(deltas=deltas, model=None))


def chat(data: bytes) -> None:
    """A chat completion of the OpenAI protocol, streamed or whole."""
    _check_reader(data, lambda deltas: CompletionReader(deltas=deltas))


def choices(data: bytes) -> None:
    """A chat completion of which two choices were asked for."""
    _check_reader(data, lambda deltas: CompletionReader(deltas=deltas, choices=2))


def responses(data: bytes) -> None:
    """A response of the Responses API, streamed or whole."""
    _check_reader(data, lambda deltas: ResponsesReader(deltas=deltas))


def error_bodies(data: bytes) -> None:
    """A refusal's body with any status, of both protocols; a first line that is a number is the status."""
    head, _, body = data.partition(b"\n")
    status = 201 + int(head) % 399 if head.isascii() and head.isdigit() and len(head) < 9 else 400
    try:
        parsed = load_lenient(body)
    except ProtocolError as error:
        check_failure(error)
        return
    except ValueError:
        parsed = None
    headers = CIMultiDict[str]({"Retry-After": "3"})
    check_failure(refusal_error(status, body, parsed, headers))
    check_failure(object_error(status, body, parsed, headers))


def nonce(data: bytes) -> None:
    """A body of ``start_session``: a nonce that may go into a header, or a refusal."""
    try:
        found = nonce_in(data)
    except ProtocolError as error:
        check_failure(error)
    else:
        assert is_nonce(found)
        assert found.isascii()
        assert found.isalnum()


def headers(data: bytes) -> None:
    """Retry-After, retry-after-ms and Date."""
    after, milliseconds, date = (_header(part) for part in split(data, most=3))
    parsed = parse_retry_after(after, _NOW)
    check_wait(parsed)
    if (moment := http_date(after)) is not None and not _is_number(after):
        seconds = (moment - _NOW).total_seconds()
        assert parsed == seconds or (parsed is None and not 0 < seconds < 3e9)
    for given in ({"Retry-After": after}, {"retry-after-ms": milliseconds}, {"Retry-After": after, "Date": date}):
        check_wait(requested_wait_s(CIMultiDict(given)))
    every = {"Retry-After": after, "retry-after-ms": milliseconds, "Date": date}
    check_wait(requested_wait_s(CIMultiDict(every)))


def rates(data: bytes) -> None:
    """The x-ratelimit headers."""
    remaining, limit, reset = (_header(part) for part in split(data, most=3))
    _check_reset(parse_reset(reset, 1.8e9))
    for unit in ("", "-requests", "-tokens"):
        named = {f"x-ratelimit-remaining{unit}": remaining, f"x-ratelimit-limit{unit}": limit}
        told = parse_rate_headers(CIMultiDict(named | {f"x-ratelimit-reset{unit}": reset}))
        for quota in (told.requests, told.tokens) if told is not None else ():
            if quota is not None:
                assert quota.remaining >= 0
                assert quota.limit is None or quota.limit >= quota.remaining
                _check_reset(quota.reset_s)


def _check_reset(seconds: float | None) -> None:
    """Who uses it has a bound of its own."""
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0), seconds


def previews(data: bytes) -> None:
    """Previews of bodies and texts with halves of surrogate pairs."""
    for limit in (8, 200):
        shown = plain_text(data, limit)
        assert len(shown) <= limit
        if shown:
            check_message(shown)
    text = data.decode("utf-16-le", "surrogatepass" if len(data) % 2 == 0 else "replace")
    whole = without_surrogates(text)
    whole.encode()
    assert dump_line({"text": text}) == dump_line({"text": whole}) or "\ufffd" in whole


def chunkings(data: bytes) -> list[list[bytes]]:
    """The example in one piece, cut in two at each place, and in pieces of equal length."""
    made = [[data]] if data else [[]]
    if len(data) <= _SHORT_BYTES:
        made += [[data[:cut], data[cut:]] for cut in range(len(data) + 1)]
        made.append([data[at : at + 1] for at in range(len(data))])
    for length in _LENGTHS:
        made.append([data[at : at + length] for at in range(0, len(data), length)])
    return made


class _Reply:
    """An exchange whose bytes are there already."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = [chunk for chunk in chunks if chunk][::-1]
        self.headers = CIMultiDict[str]({"Retry-After": "2"})
        self.status, self.first_byte_s = 200, 0.5

    async def read(self) -> bytes:
        return self._chunks.pop() if self._chunks else b""

    async def linger(self) -> None:
        self._chunks.clear()

    def expect_end(self) -> None:
        pass


class _Read:
    """What reading came to: an answer or an error, and the texts on the way."""

    def __init__(self, make: Callable[[bool], Any], chunks: Sequence[bytes], *, deltas: bool = False) -> None:
        reader = make(deltas)
        self.texts: list[str] = []
        self.completion: Completion | None = None
        self.error: ProviderError | None = None
        try:
            _drive(self._collect(reader.stream(_Reply(chunks))) if deltas else self._read(reader, _Reply(chunks)))
        except ProviderError as error:
            self.error = error
        self.partial = reader.partial
        assert (self.completion is None) == (self.error is not None), "neither an answer nor an error"
        assert reader.finished == (self.completion is not None)

    async def _read(self, reader: Any, reply: "_Reply") -> None:
        self.completion = await reader.read(reply)

    async def _collect(self, events: AsyncGenerator[StreamEvent]) -> None:
        async for event in events:
            assert self.completion is None, "an event behind the end"
            if isinstance(event, TextDelta):
                self.texts.append(event.text)
            elif isinstance(event, StreamEnd):
                self.completion = event.completion

    def facts(self) -> tuple[Any, ...]:
        error = self.error
        told = None if error is None else (type(error), error.message, error.retry_limit, error.stops_run)
        return self.completion, told, self.partial


def _drive(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def _check_reader(data: bytes, make: Callable[[bool], Any]) -> None:
    expected = _Read(make, [data])
    if expected.completion is not None:
        check_completion(expected.completion)
    if expected.error is not None:
        check_failure(expected.error)
    expected.partial.encode()
    for chunks in chunkings(data):
        assert _Read(make, chunks).facts() == expected.facts(), chunks[:99]
    # Whoever wants the text as it streams is told of an event that cannot be read; who waits for the end need not be.
    told = _Read(make, [data], deltas=True)
    assert told.completion in (expected.completion, None)
    assert told.completion is not None or told.error is not None


def _header(part: bytes) -> str:
    """Bytes as a header's value, as aiohttp makes text of them."""
    return part.replace(b"\r", b"").replace(b"\n", b"").decode("utf-8", "surrogateescape")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
