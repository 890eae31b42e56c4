"""What an answer costs grows with its length and not with its square, whatever the network makes of it."""

import json
import random
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from batchchat.providers.ai_engine_body import AnswerReader
from batchchat.providers.openai_body import CompletionReader
from batchchat.providers.openai_responses import ResponsesReader
from batchchat.records import Completion

TEXT = 'The quick brown fox says "é".\n'
# Four times the length takes four times the work, 16 times where it grows with the square.
MOST_GROWTH = 9
NO_MATTER_S = 0.02


class Reply:
    """An exchange whose bytes are there already; they are made when they are asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self.headers, self.first_byte_s = chunks, CIMultiDict[str](), 0.5

    async def read(self) -> bytes:
        return next(self._chunks, b"")

    async def linger(self) -> None:
        pass

    def expect_end(self) -> None:
        pass


def drive(work: Coroutine[Any, Any, Completion]) -> Completion:
    """Runs a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def cut(data: bytes, length: int) -> Iterator[bytes]:
    return (data[at : at + length] for at in range(0, len(data), length))


def sse(*events: Any) -> bytes:
    return b"".join(
        b"data: " + (event if isinstance(event, bytes) else orjson.dumps(event)) + b"\n\n" for event in events
    )


def delta(text: str) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def openai_body(count: int) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": TEXT * count}, "finish_reason": "stop"}]})


def openai_event(count: int) -> bytes:
    return sse(delta(TEXT * count), FINISH, b"[DONE]")


def openai_events(count: int) -> bytes:
    return sse(*[delta(TEXT)] * count, FINISH, b"[DONE]")


def openai_odd_events(count: int) -> bytes:
    """Such as need to be looked at one by one."""
    return sse(*[delta(TEXT) | {"error": []}, delta("") | {"error": {}}] * (count // 2), FINISH, b"[DONE]")


def openai_windows_events(count: int) -> bytes:
    return openai_events(count).replace(b"\n", b"\r\n")


def responses_events(count: int) -> bytes:
    pieces = [{"type": "response.output_text.delta", "delta": TEXT}] * count
    return sse(*pieces, {"type": "response.completed", "response": {"status": "completed"}})


def engine_end(text: str) -> dict[str, Any]:
    return {"type": "end", "data": json.dumps({"success": True, "reply": text})}


def engine_body(count: int) -> bytes:
    return orjson.dumps({"success": True, "reply": TEXT * count})


def engine_event(count: int) -> bytes:
    return sse(engine_end(TEXT * count))


def engine_events(count: int) -> bytes:
    return sse(*[{"type": "live", "data": TEXT}] * count, engine_end(TEXT * count))


def chat(*, deltas: bool = False) -> CompletionReader:
    return CompletionReader(deltas=deltas)


def engine(*, deltas: bool = False) -> AnswerReader:
    return AnswerReader(deltas=deltas, model=None)


def responses(*, deltas: bool = False) -> ResponsesReader:
    return ResponsesReader(deltas=deltas)


CASES: list[tuple[Callable[..., Any], Callable[[int], bytes]]] = [
    (chat, openai_body),
    (chat, openai_event),
    (chat, openai_events),
    (chat, openai_odd_events),
    (chat, openai_windows_events),
    (responses, responses_events),
    (engine, engine_body),
    (engine, engine_event),
    (engine, engine_events),
]
NAMES = [build.__name__ for _, build in CASES]


def cpu_s(work: Callable[[], Any]) -> float:
    """Seconds of this thread's processor time, the least of a few."""
    taken = []
    for _ in range(3):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return min(taken)


@pytest.mark.parametrize("length", [37, 1448, 1 << 18])
@pytest.mark.parametrize(("reader", "build"), CASES, ids=NAMES)
def test_four_times_the_answer_takes_about_four_times_the_work(reader, build, length: int) -> None:
    short, long = build(1000 if length == 37 else 2500), build(4000 if length == 37 else 10000)

    def read(data: bytes) -> float:
        return cpu_s(lambda: drive(reader().read(Reply(cut(data, length)))))

    once = max(read(short), NO_MATTER_S / 4)
    assert read(long) < MOST_GROWTH * once


@pytest.mark.parametrize(("reader", "build"), CASES, ids=NAMES)
def test_pieces_of_any_length_make_the_same_answer(reader, build) -> None:
    data = build(50)
    lengths, chance = random.Random(build.__name__), random.Random(1)

    def pieces() -> Iterator[bytes]:
        at = 0
        while at < len(data):
            length = lengths.choice([1, 2, 3, 7, 50, 200, 1000])
            yield data[at : at + length]
            at += length

    for length in (1, 2, chance.randrange(3, 100), 256, len(data)):
        completion = drive(reader().read(Reply(cut(data, length))))
        assert completion.text is not None
        assert completion.text.count(TEXT) == (25 if build is openai_odd_events else 50), length
    for _ in range(20):
        assert drive(reader().read(Reply(pieces()))) == completion


@pytest.mark.parametrize(
    ("reader", "build"),
    [(chat, openai_body), (chat, openai_event), (engine, engine_body), (engine, engine_event)],
    ids=["openai_body", "openai_event", "engine_body", "engine_event"],
)
def test_long_reply_costs_little_more_than_its_parse(reader, build) -> None:
    """3 MB in pieces as they come from a socket: up to twice the parse. Five times would be copies too many."""
    data = build(100_000)
    body = data.split(b"\n\n")[0].removeprefix(b"data: ")
    parse = cpu_s(lambda: orjson.loads(body))
    if build is engine_event:  # JSON within JSON
        parse += cpu_s(lambda: orjson.loads(orjson.loads(body)["data"]))
    assert cpu_s(lambda: drive(reader().read(Reply(cut(data, 1 << 16))))) < 5 * parse


@pytest.mark.parametrize("reader", [chat, engine])
def test_events_are_kept_in_little_more_than_their_bytes(reader) -> None:
    """Nothing is held of events that have been read but what may be needed: the text, or the bytes of ``live`` events."""
    event = sse(delta("word ")) if reader is chat else sse({"type": "live", "data": "word "})
    count = 30_000

    def events() -> Iterator[bytes]:
        for _ in range(count):
            yield bytes(bytearray(event))  # each with memory of its own, as from a socket
        yield sse(FINISH) if reader is chat else sse(engine_end("word " * count))

    tracemalloc.start()
    try:
        completion = drive(reader().read(Reply(events())))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert completion.text == "word " * count
    assert peak < 3 * count * len(event) + (1 << 20)
