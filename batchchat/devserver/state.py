"""What the server remembers of a run: requests, attempts, windows, and who waits for them."""

import asyncio
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from batchchat.devserver.backend import Backend
from batchchat.devserver.nonces import NonceBook
from batchchat.devserver.scenario import Scenario, parse_rate

__all__ = ["RequestKind", "RequestRecord", "ServerState", "worst_window"]

RequestKind = Literal["session", "chat", "models", "other"]


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request as it arrived, and what the server decided to do with it.

    ``time_s`` is the arrival on the monotonic clock; ``headers`` have lower-case names; ``body`` is the parsed JSON,
    None where there is none. ``prompt`` is the text of the last user message, ``attempt`` counts from 1 the times this
    text got past the doors (nonce, key, limits); 0 for a request that did not. ``status`` 0: not even a head is sent.
    ``fault`` is the fault or the rule that shaped the answer, None for a plain one. ``delivered`` turns true when
    all there was to send has been written to a connection that was still there and ended as HTTP wants it.
    """

    number: int
    time_s: float
    kind: RequestKind
    method: str
    path: str
    headers: dict[str, str]
    body: Any = None
    nonce: str | None = None
    prompt: str | None = None
    attempt: int = 0
    status: int = 0
    fault: str | None = None
    delivered: bool = False


class ServerState:
    """Everything that outlives one request; of one event loop.

    Args:
        scenario: May be replaced at any time; a request keeps the one it arrived under.
        keep_requests: Whether ``requests`` grows; off for a server that may run for days.
        log_path: A file that gets one JSON line for each request, before its answer begins.
        log_ends: Whether it gets another when the answer is over: ``number``, ``kind``, ``time_s``, ``delivered``.
        backend: What answers; the echo where None.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        keep_requests: bool = True,
        log_path: str | None = None,
        log_ends: bool = False,
        backend: Backend | None = None,
    ) -> None:
        self.scenario = scenario
        self.backend = backend
        self.nonce = NonceBook(scenario.seed)
        self.requests: list[RequestRecord] = []
        self.request_count = 0
        self.answered = 0
        self.sent = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.admitted = self.taken = 0
        self.closing = asyncio.Event()
        self._keep_requests, self._log_ends = keep_requests, log_ends
        self._attempts: dict[bytes, int] = {}
        self._admissions: deque[float] = deque()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if log_path else None

    def close(self) -> None:
        """Ends stalls and closes the log."""
        self.closing.set()
        if self._log is not None:
            os.close(self._log)
            self._log = None

    @contextmanager
    def flight(self) -> Iterator[None]:
        """Counts a chat request as in flight."""
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def admission(self, *, counts: bool) -> Iterator[None]:
        """Counts an admitted chat request, where it is one, against ``concurrency_limit`` and ``slow_above``."""
        self.admitted += counts
        self.taken += counts
        try:
            yield
        finally:
            self.admitted -= counts

    def next_number(self) -> int:
        """The number of a request that has arrived, from 1."""
        self.request_count += 1
        return self.request_count

    def next_attempt(self, prompt: str) -> int:
        """The number of this attempt of a prompt text, from 1."""
        key = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._attempts[key] = attempt = self._attempts.get(key, 0) + 1
        return attempt

    def over_rate(self, rate: str, now_s: float) -> float | None:
        """Admits a request within a sliding window, or tells the seconds until one would be.

        Requests that were refused take no room in the window.
        """
        most, unit_s = parse_rate(rate)
        while self._admissions and now_s - self._admissions[0] >= unit_s:
            self._admissions.popleft()
        if len(self._admissions) >= most:
            return unit_s - (now_s - self._admissions[-most])
        self._admissions.append(now_s)
        return None

    def rate_left(self, rate: str, now_s: float) -> tuple[int, int, float]:
        """The whole of a rate, what is left of it, and the seconds until it is whole again."""
        most, unit_s = parse_rate(rate)
        inside = sum(now_s - moment < unit_s for moment in self._admissions)
        until_s = unit_s - (now_s - self._admissions[-1]) if inside else 0.0
        return most, most - inside, max(0.0, until_s)

    def record(self, record: RequestRecord) -> None:
        """Keeps and logs a request, and wakes those who wait for it."""
        if self._keep_requests:
            self.requests.append(record)
        if self._log is not None:
            os.write(self._log, _log_line(record))
        for waiter in [waiter for waiter in self._waiters if waiter[0] <= self.request_count]:
            self._waiters.remove(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)

    def ended(self, record: RequestRecord) -> None:
        """Logs that the answer to a request is over, where that is asked for."""
        if self._log is not None and self._log_ends:
            told = {
                "kind": "end",
                "number": record.number,
                "time_s": time.monotonic(),
                "delivered": record.delivered,
            }
            os.write(self._log, json.dumps(told).encode() + b"\n")

    async def wait_for_requests(self, count: int) -> None:
        """Returns when that many requests have arrived since the start."""
        if self.request_count >= count:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((count, waiter))
        await waiter


def worst_window(times_s: list[float], seconds: float) -> int:
    """The most requests that any window of that many seconds holds (its end excluded)."""
    ordered = sorted(times_s)
    worst = start = 0
    for end, moment in enumerate(ordered):
        while moment - ordered[start] >= seconds:
            start += 1
        worst = max(worst, end - start + 1)
    return worst


def _log_line(record: RequestRecord) -> bytes:
    told = {
        "number": record.number,
        "at": time.time(),
        "time_s": record.time_s,
        "kind": record.kind,
        "method": record.method,
        "path": record.path,
        "nonce": record.nonce,
        "prompt": record.prompt,
        "attempt": record.attempt,
        "status": record.status,
        "fault": record.fault,
    }
    return json.dumps(told).encode() + b"\n"
