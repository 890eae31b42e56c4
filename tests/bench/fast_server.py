"""A canned chat server that costs next to nothing: ``python -m tests.bench.fast_server '{"latency_ms": 200}'``.

It speaks the chat of OpenAI (streamed or whole) and of AI Engine, prints its port, and tells at ``GET /stats`` what it saw.
One process, keep-alive, no HTTP library: it reads what the clients of this benchmark send, and nothing else.
"""

import asyncio
import json
import re
import resource
import signal
import sys
from bisect import bisect_right
from collections import deque
from typing import Any

import msgspec
import uvloop

from tests.bench.canned import Behaviour, Canned, latency_s, plain

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb"id=(\d{9})")
_STREAM = re.compile(rb'"stream": ?true')
_BUSY = {"error": {"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"}}
_NONE = {"error": {"message": "no such path", "type": "invalid_request_error", "code": "404"}}
_SESSION = plain("200 OK", b'{"success":true,"sessionId":"N\\/A","restNonce":"0123456789"}')


class State:
    """What the server counts, and the limits that it keeps."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour, self.canned = behaviour, Canned(behaviour)
        self.requests = self.ok = self.refused = self.sessions = self.connections = self.active = self.peak = 0
        self.first_at = self.last_at = self.last_in = self.peak_at = 0.0
        self.tries: dict[int, int] = {}
        self._let_in: list[deque[float]] = [deque() for _ in behaviour.rates]
        self._most = [0] * len(behaviour.rates)
        self.queue: deque[Any] = deque()
        self.working = 0

    def lets_in(self, now: float) -> bool:
        """Whether every sliding window has room for one more; if so, it is counted."""
        room = True
        for log, (count, per_s) in zip(self._let_in, self.behaviour.rates, strict=True):
            while log and log[0] <= now - per_s:
                log.popleft()
            room = room and len(log) < count
        if room:
            self.last_in = now
            for log in self._let_in:
                log.append(now)
        return room

    def capacity(self, now: float) -> int | None:
        """How many it works on at once now; None for any number."""
        steps = self.behaviour.capacity
        if not steps:
            return None
        return steps[max(0, bisect_right([at for at, _ in steps], now - self.first_at) - 1)][1]

    def stats(self) -> bytes:
        """The counts as JSON; ``span_s`` from the first request to the last answer, ``let_in_s`` to the last let in."""
        names = ("requests", "ok", "refused", "sessions", "connections", "peak")
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return json.dumps(
            {name: getattr(self, name) for name in names}
            | {"span_s": max(0.0, self.last_at - self.first_at), "let_in_s": max(0.0, self.last_in - self.first_at)}
            | {"peak_s": max(0.0, self.peak_at - self.first_at)}
            | {"asked_again": sum(self.tries.values()) - len(self.tries), "cpu_s": usage.ru_utime + usage.ru_stime}
        ).encode()


class Connection(asyncio.Protocol):
    """Requests of one client, one after the other."""

    def __init__(self, state: State, loop: asyncio.AbstractEventLoop) -> None:
        self._state, self._loop, self._data = state, loop, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._state.connections += 1

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._data, 0, end)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._data) < whole:
                return
            path = self._data[: self._data.find(b" HTTP/")].partition(b" ")[2]
            body, self._data = self._data[end + 4 : whole], self._data[whole:]
            self._answer(path, body)

    def _answer(self, path: bytes, body: bytes) -> None:
        if path == b"/v1/chat/completions":
            self._chat(False, body)
        elif path == b"/wp-json/mwai-ui/v1/chats/submit":
            self._chat(True, body)
        elif path == b"/wp-json/mwai/v1/start_session":
            self._state.sessions += 1
            self._transport.write(_SESSION)
        elif path == b"/stats":
            self._transport.write(plain("200 OK", self._state.stats()))
        else:
            self._transport.write(plain("404 Not Found", json.dumps(_NONE).encode()))

    def _chat(self, engine: bool, body: bytes) -> None:
        state, now = self._state, self._loop.time()
        state.requests += 1
        state.first_at = state.first_at or now
        found = _NUMBER.search(body)
        number = int(found[1]) if found else 0
        attempt = state.tries[number] = state.tries.get(number, 0) + 1
        busy = (capacity := state.capacity(now)) is not None and state.working >= capacity
        if (state.behaviour.rates and not state.lets_in(now)) or (busy and state.behaviour.over_capacity == "refuse"):
            state.refused += 1
            retry = b"Retry-After: 1\r\n" if state.behaviour.rates else b""
            self._transport.write(plain("429 Too Many Requests", json.dumps(_BUSY).encode(), retry))
            return
        state.active += 1
        if state.active > state.peak:
            state.peak, state.peak_at = state.active, now
        stream = engine or _STREAM.search(body) is not None
        if busy:
            state.queue.append((self, engine, stream, number, attempt))
        else:
            self.begin(engine, stream, number, attempt)

    def begin(self, engine: bool, stream: bool, number: int, attempt: int) -> None:
        """Works on a request for as long as it takes."""
        self._state.working += 1
        if self._state.behaviour.latency_ms:
            delay_s = latency_s(self._state.behaviour, number, attempt - 1)
            self._loop.call_later(delay_s, self._finish, engine, stream, number)
        else:
            self._finish(engine, stream, number)

    def _finish(self, engine: bool, stream: bool, number: int) -> None:
        state = self._state
        state.working -= 1
        state.active -= 1
        if not self._transport.is_closing():
            self._transport.write(state.canned.response(engine, stream, number))
            state.ok += 1
            state.last_at = self._loop.time()
        while state.queue and state.working < (state.capacity(self._loop.time()) or 0):
            connection, *rest = state.queue.popleft()
            connection.begin(*rest)


async def serve(behaviour: Behaviour) -> None:
    """Serves until SIGTERM."""
    loop = asyncio.get_running_loop()
    state = State(behaviour)
    server = await loop.create_server(lambda: Connection(state, loop), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(serve(msgspec.json.decode(sys.argv[1], type=Behaviour)))
