"""The border to aiohttp: one session for a run, and the ways on which its requests go out."""

import io
from collections.abc import Iterable, Mapping
from typing import Self

import aiohttp
from aiohttp import hdrs

from batchchat.deadlines import Deadlines
from batchchat.providers.base import ProviderContext
from batchchat.providers.connections import Departures, SpoiledConnectionError, made_connector
from batchchat.providers.cookies import KnownCookies
from batchchat.providers.direct import Answer, DirectSender, can_send_directly
from batchchat.providers.exchange import Exchange
from batchchat.version import VERSION

__all__ = ["Exchange", "HttpClient"]

_USER_AGENT = f"batchchat/{VERSION}"
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

    def exchange(self, url: str, *, headers: Mapping[str, str], body: bytes | None) -> Exchange:
        """A POST, to be entered with ``async with`` right after ``Gate.admit``."""
        return Exchange(self, url, headers, body)
