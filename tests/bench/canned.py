"""What the fast server says and when: functions of a prompt's number, so that every client meets the same."""

import heapq
import json
import math
from statistics import NormalDist
from typing import Any

import msgspec

__all__ = ["Behaviour", "Canned", "expected_reply", "ideal_makespan_s", "latency_s", "prompt_text"]

_WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo", "lima")
_MASK = (1 << 64) - 1
_INVERSE = NormalDist().inv_cdf
_NUMBER = "@@@@@@@@@"  # stands for the nine digits in a template

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How the server behaves.

    Attributes:
        latency_ms: Mean time before an answer, log-normal with ``sigma``; 0 answers at once.
        sigma: Of the logarithm; 0 makes every latency the mean.
        rates: ``[count, seconds]`` each: no sliding window of that many seconds holds more; what does not fit is refused.
        capacity: Requests that it works on at once, ``[from second, number]`` each, counted from the first request.
        over_capacity: What becomes of the others: refused with 429, or they wait their turn.
        events: Pieces of text in a streamed answer.
        reply_bytes: Length of the reply's text, at least; 0 leaves it at the pieces.
    """

    latency_ms: float = 0.0
    sigma: float = 0.5
    rates: list[tuple[int, float]] = []
    capacity: list[tuple[float, int]] = []
    over_capacity: str = "refuse"
    events: int = 8
    reply_bytes: int = 0
    seed: int = 1


def prompt_text(number: int) -> str:
    """The prompt that asks for reply ``number``."""
    return f"Say the line of id={number:09d} and nothing else, please."


def _pieces(behaviour: Behaviour) -> list[str]:
    """The reply after its ten characters of number; the last piece is " END"."""
    count = max(2, behaviour.events)
    filler = "x" * max(0, -(-(behaviour.reply_bytes - 10 * count) // (count - 1)))
    return [f" {_WORDS[i % len(_WORDS)]}{filler}" for i in range(count - 2)] + [" END"]


def expected_reply(number: int, behaviour: Behaviour) -> str:
    """The whole right answer to prompt ``number``."""
    return f"R{number:09d}" + "".join(_pieces(behaviour))


def latency_s(behaviour: Behaviour, number: int, attempt: int = 0) -> float:
    """Seconds for which the server holds this attempt."""
    mean = behaviour.latency_ms / 1000
    if not mean or not behaviour.sigma:
        return mean
    drawn = _INVERSE(_uniform(behaviour.seed, number, attempt))
    return mean * math.exp(behaviour.sigma * drawn - behaviour.sigma**2 / 2)


def ideal_makespan_s(behaviour: Behaviour, prompts: int, concurrency: int) -> float:
    """Seconds that the prompts take if every slot begins the next one at once."""
    free = [0.0] * concurrency
    for number in range(prompts):
        heapq.heapreplace(free, free[0] + latency_s(behaviour, number))
    return max(free)


def _uniform(seed: int, number: int, attempt: int) -> float:
    """In (0, 1), of the arguments only (splitmix64)."""
    z = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + attempt * 0x8CB92BA72F3D8DD7) & _MASK
    for _ in range(2):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        z ^= z >> 31
    return ((z >> 11) + 0.5) / (1 << 53)


def plain(status: str, body: bytes, headers: bytes = b"") -> bytes:
    """A whole response with a JSON body."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode()
    return head + headers + b"\r\n" + body


def _chunked(events: list[Any]) -> bytes:
    """Events as one chunked body, [DONE] as it is."""
    data = [b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events]
    return STREAM_HEAD + b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in data) + b"0\r\n\r\n"


class Canned:
    """Whole responses as templates."""

    def __init__(self, behaviour: Behaviour) -> None:
        parts = ["R" + _NUMBER, *_pieces(behaviour)]
        text = "".join(parts)
        usage = {"prompt_tokens": 12, "completion_tokens": len(parts), "total_tokens": 12 + len(parts)}
        base = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1700000000, "model": "canned"}
        deltas = [{"role": "assistant", "content": parts[0]}, *({"content": part} for part in parts[1:])]
        events = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        end = {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
        message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        whole = {**base, "object": "chat.completion", "choices": [message], "usage": usage}
        self._stream = _chunked([*events, end, b"[DONE]"])
        self._whole = plain("200 OK", json.dumps(whole).encode())
        reply = json.dumps({"success": True, "reply": text})
        live = [{"type": "live", "data": part} for part in parts]
        self._engine = _chunked([*live, {"type": "end", "data": reply}])

    def response(self, engine: bool, stream: bool, number: int) -> bytes:
        """The whole response to prompt ``number``."""
        template = self._engine if engine else self._stream if stream else self._whole
        return template.replace(_NUMBER.encode(), b"%09d" % number)
