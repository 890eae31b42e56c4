"""The border to aiohttp: one session for a run, one exchange for an attempt, every fault as one of our errors."""

import asyncio
import io
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import hdrs

from batchchat.deadlines import Deadlines, Limit
from batchchat.errors import AttemptTimeoutError, ProtocolError, ProviderError
from batchchat.providers.base import ProviderContext
from batchchat.providers.connections import (
    Departures,
    SpoiledConnectionError,
    forget_addresses,
    made_connector,
    take_arrived,
)
from batchchat.providers.cookies import KnownCookies
from batchchat.providers.direct import Answer, DirectSender, can_send_directly
from batchchat.providers.network_errors import raise_network_error
from batchchat.version import VERSION

__all__ = ["Exchange", "HttpClient"]

_USER_AGENT = f"batchchat/{VERSION}"
# After the last event the end of the body normally follows at once and makes the connection reusable;
# a server that leaves it open for longer than this costs one connection instead of a worker's time.
_LINGER_S = 0.5
# Usage and the like may follow the end of an answer; not worth a long wait.
_TRAILER_S = 2.0
_MOST_TRAILING_READS = 4096
# Loops that count whole milliseconds wake up to one too early.
_TICK_S = 0.002
_LARGE_BODY_BYTES = 1 << 20


class HttpClient:
    """One connection pool for a whole run; it has no queue of its own, workers bound the connections.

    Args:
        context: Time limits, admission and proxy of the run.
        cookies: Whether cookies that the service sets go back to it.

    Attributes:
        answered: Whether the service has answered at all.
    """

    def __init__(self, context: ProviderContext, *, cookies: bool = False) -> None:
        self.context = context
        self._cookies = cookies
        self._jar: KnownCookies | None = None
        self._session: aiohttp.ClientSession | None = None
        self._direct: DirectSender | None = None
        self._deadlines: Deadlines | None = None
        self._once_only = False
        self.answered = False

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session; using it outside ``async with`` is a bug."""
        if self._session is None:
            raise RuntimeError("the provider is used outside its 'async with'")
        return self._session

    @property
    def deadlines(self) -> Deadlines:
        """The clock of all exchanges."""
        if self._deadlines is None:
            raise RuntimeError("the provider is used outside its 'async with'")
        return self._deadlines

    @property
    def cookie_values(self) -> Iterable[str]:
        """The newest values of cookies that the service set and got back."""
        return self._jar.values if self._jar is not None else ()

    async def __aenter__(self) -> Self:
        self._jar = KnownCookies() if self._cookies else None
        departures = Departures(self.context.gate)
        self._session = aiohttp.ClientSession(
            connector=made_connector(self.context.tls),
            timeout=aiohttp.ClientTimeout(total=None, connect=self.context.connect_s or None),
            cookie_jar=aiohttp.DummyCookieJar() if self._jar is None else self._jar,
            headers={"User-Agent": _USER_AGENT},
            proxy=self.context.proxy,
            request_class=departures.request_class(),
        )
        if self.context.proxy is None and can_send_directly(self._session):
            self._direct = DirectSender(self._session, self.context.connect_s, departures)
        self._deadlines = Deadlines()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._direct = None
        if self._deadlines is not None:
            self._deadlines.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """The answer to one request, once its headers are there.

        Raises:
            aiohttp.ClientError, OSError: There is none.
        """
        while True:
            try:
                answer = await self._sent(url, headers, body)
            except SpoiledConnectionError:
                self._once_only = True  # this service says more than it was asked for
                continue
            self.answered = True
            self._note_reuse(answer)
            return answer

    async def _sent(self, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        if self._once_only:
            headers = {**headers, "Connection": "close"}
        if body is not None and len(body) > _LARGE_BODY_BYTES:
            # aiohttp writes bytes at once, however many; of a file it takes pieces, so that the loop goes on.
            return await self._sent_by_session(url, headers, io.BytesIO(body))
        head = None
        if self._direct is not None and not self._jar:  # cookies are the session's to send
            head = self._direct.head(url, headers)
        if head is None or self._direct is None or body is None:
            return await self._sent_by_session(url, headers, body)
        answer = await self._direct.post(head, body)
        if self._jar is not None:
            self._jar.take(answer.headers, url)
        return answer

    async def _sent_by_session(self, url: str, headers: Mapping[str, str], data: bytes | io.BytesIO | None) -> Answer:
        return await self.session.post(url, data=data, headers=headers, allow_redirects=False)

    def _note_reuse(self, answer: Answer) -> None:
        """Uses no connection twice of a server that is known to close it without a word.

        llama.cpp's server announces keep-alive and closes after each stream; the request that goes out meanwhile on
        the same connection would be lost.
        """
        if answer.headers.get(hdrs.SERVER) == "llama.cpp":
            self._once_only = True
            if answer.connection is not None and answer.connection.protocol is not None:
                answer.connection.protocol.force_close()

    def exchange(self, url: str, *, headers: Mapping[str, str], body: bytes | None) -> "Exchange":
        """A POST, to be entered with ``async with`` right after ``Gate.admit``."""
        return Exchange(self, url, headers, body)


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

    def __init__(self, client: HttpClient, url: str, headers: Mapping[str, str], body: bytes | None) -> None:
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
