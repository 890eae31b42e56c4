"""One exchange for an attempt, every fault as one of our errors."""

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import aiohttp

from batchchat.deadlines import Deadlines, Limit
from batchchat.errors import AttemptTimeoutError, ProtocolError, ProviderError
from batchchat.providers.base import ProviderContext
from batchchat.providers.connections import forget_addresses, take_arrived
from batchchat.providers.direct import Answer
from batchchat.providers.network_errors import raise_network_error

__all__ = ["Exchange"]

# After the last event the end of the body normally follows at once and makes the connection reusable;
# a server that leaves it open for longer than this costs one connection instead of a worker's time.
_LINGER_S = 0.5
# Usage and the like may follow the end of an answer; not worth a long wait.
_TRAILER_S = 2.0
_MOST_TRAILING_READS = 4096
# Loops that count whole milliseconds wake up to one too early.
_TICK_S = 0.002


class _Client(Protocol):
    """What an exchange needs of the run's ``HttpClient``."""

    context: ProviderContext
    answered: bool

    @property
    def session(self) -> aiohttp.ClientSession: ...

    @property
    def deadlines(self) -> Deadlines: ...

    async def post(self, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer: ...


class Exchange:
    """One POST and its answer, read by chunks, under the attempt's clocks.

    The attempt's time starts when it is entered. Until the first byte of the body only that counts, as services
    stay silent until the first token; afterwards silence is bounded as well. The clocks run only while this waits
    for the network, never while whoever reads a stream is at work, and no more once the answer is whole.
    """

    __slots__ = (
        "_began_at",
        "_body",
        "_client",
        "_deadline",
        "_ending",
        "_headers",
        "_idle_s",
        "_loop",
        "_received",
        "_response",
        "_started",
        "_task",
        "_url",
        "first_byte_s",
    )

    def __init__(self, client: _Client, url: str, headers: Mapping[str, str], body: bytes | None) -> None:
        self._client, self._url, self._headers, self._body = client, url, headers, body
        self._idle_s = client.context.idle_s
        self._received = 0
        self._ending = False
        self._response: Answer | None = None
        self.first_byte_s: float | None = None

    async def __aenter__(self) -> Self:
        context = self._client.context
        self._loop = self._client.deadlines.loop  # asking for the running one costs a system call
        self._started = self._loop.time()
        self._began_at = time.monotonic()  # some loops count whole milliseconds only
        self._deadline = self._started + context.attempt_s if context.attempt_s else None
        self._task = asyncio.current_task(self._loop)
        if self._task is not None:
            context.gate.begin(self._task)
        try:
            self._response = await self._post()
        except BaseException:
            self._leave(whole=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(whole=error is None)

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer, looked up without regard to case."""
        return self._answer.headers

    @property
    def begun(self) -> bool:
        """Whether any byte of the body has arrived."""
        return self._received > 0

    async def read(self) -> bytes:
        """The next bytes of the body, as they came from the network; empty at its end."""
        chunk = await self._next_chunk()
        if chunk:
            if not self._received:
                self.first_byte_s = round(time.monotonic() - self._began_at, 6)
            self._received += len(chunk)
            if self._received > self._client.context.max_response_bytes and not self._ending:
                raise ProtocolError(
                    f"the answer is longer than {self._client.context.max_response_bytes} bytes "
                    "(--max-response-bytes); it was not read to its end"
                )
        return chunk

    async def read_whole(self) -> bytes:
        """The body to its end."""
        parts = []
        while chunk := await self.read():
            parts.append(chunk)
        return b"".join(parts)

    def expect_end(self) -> None:
        """The answer is whole and only trimmings may follow.

        From now on silence, a lost connection and the end of the task are the body's end: what has arrived is
        kept whatever happens to the rest. Whoever owns the task sees by ``Task.cancelling`` that it was to end.
        """
        if not self._ending:
            self._ending, self._deadline = True, self._loop.time() + _TRAILER_S

    async def linger(self) -> None:
        """Reads the rest of the body, briefly, so that the connection can serve the next prompt."""
        self._ending = True
        content = self._answer.content
        if content.at_eof():
            return
        try:
            async with asyncio.timeout(_LINGER_S):
                for _ in range(_MOST_TRAILING_READS):
                    if not await content.readany():
                        return
        except (TimeoutError, aiohttp.ClientError, OSError, asyncio.CancelledError):
            self._answer.close()

    async def _post(self) -> Answer:
        limit = self._client.deadlines.until(self._deadline, self._task)
        try:
            with limit:
                return await self._client.post(self._url, self._headers, self._body)
        except (aiohttp.ClientError, OSError) as error:  # OSError includes TimeoutError
            if limit.expired:
                raise self._timed_out() from None
            forget_addresses(self._client.session, error)
            raise_network_error(error, self._url, begun=False, known=self._client.answered)
        finally:
            self._put_off(limit)

    async def _next_chunk(self) -> bytes:
        content = self._answer.content
        limit: Limit | None = None
        if self._ending and self._enough():
            self._answer.close()
            return b""
        try:
            # What is here already needs no clock.
            if chunk := take_arrived(content):
                return chunk
            if content.at_eof():
                return b""
            limit = self._client.deadlines.until(self._due())
            with limit:
                return await content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if self._ending:
                self._answer.close()
                return b""
            if limit is not None and limit.expired:
                raise self._timed_out() from None
            raise_network_error(error, self._url, begun=self.begun)
        except asyncio.CancelledError:
            if not self._ending:
                raise
            self._answer.close()
            return b""
        finally:
            if limit is not None:
                self._put_off(limit)

    def _put_off(self, limit: Limit) -> None:
        """Time in which this process was held up counts for no limit."""
        if limit.held_s and self._deadline is not None:
            self._deadline += limit.held_s

    def _enough(self) -> bool:
        """Whether what follows a whole answer has had its time and its bytes."""
        late = self._deadline is not None and self._loop.time() >= self._deadline
        return late or self._received > self._client.context.max_response_bytes

    def _due(self) -> float | None:
        """Loop time at which waiting for more of the body ends."""
        now = self._loop.time()
        if self._ending or not self._received or not self._idle_s:
            return self._deadline
        idle_at = now + self._idle_s
        return idle_at if self._deadline is None else min(idle_at, self._deadline)

    @property
    def _answer(self) -> Answer:
        if self._response is None:
            raise RuntimeError("the exchange is used outside its 'async with'")
        return self._response

    def _leave(self, *, whole: bool) -> None:
        """Gives the connection back, or closes it where something of the answer may still come."""
        if self._task is not None:
            self._client.context.gate.left(self._task)
        if self._response is not None:
            if whole and self._response.content.at_eof():
                self._response.release()
            else:
                self._response.close()

    def _timed_out(self) -> ProviderError:
        waited = self._loop.time() - self._started
        if self._received and (self._deadline is None or self._loop.time() + _TICK_S < self._deadline):
            return AttemptTimeoutError(f"the answer stopped for {self._idle_s:g} s in its middle (--idle-timeout)")
        what = "no whole answer" if self._received else "no answer"
        return AttemptTimeoutError(f"{what} within {waited:.3g} s (--timeout)")
