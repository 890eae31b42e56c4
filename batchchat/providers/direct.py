"""The ordinary request straight to a connection of aiohttp's pool, past what its session does for others.

A session makes for each request what here is the same for all of a run: address, headers, timers, cookies, redirects.
That costs as much as sending the request and reading the answer do. Connecting, TLS, reuse and reading stay aiohttp's.
"""

import asyncio
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import aiohttp
from aiohttp import client
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from batchchat.providers.connections import Departures

__all__ = ["Answer", "DirectSender", "can_send_directly"]

_MOST_HEADS = 64  # a new nonce makes a new one
_NOT_YET = range(100, 200)
_SWITCHING = 101
_FRAMING = ("Content-Length", "Transfer-Encoding")


class Answer(Protocol):
    """What is used of an answer, whichever way its request went."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...

    @property
    def content(self) -> aiohttp.StreamReader: ...

    @property
    def connection(self) -> Connection | None: ...

    def release(self) -> Any:
        """Gives the connection back; only after the body's end."""

    def close(self) -> None:
        """Closes the connection."""


class _Head(NamedTuple):
    """What is the same for all requests with the same address and headers."""

    request: aiohttp.ClientRequest
    start: bytes


class _DirectAnswer:
    __slots__ = ("connection", "content", "headers", "status")

    def __init__(self, connection: Connection, message: Any, content: aiohttp.StreamReader) -> None:
        self.connection, self.content = connection, content
        self.status: int = message.code
        self.headers: CIMultiDictProxy[str] = message.headers

    def release(self) -> None:
        """See ``Answer``."""
        self.connection.release()

    def close(self) -> None:
        """See ``Answer``."""
        self.connection.close()


def can_send_directly(session: aiohttp.ClientSession) -> bool:
    """Whether nobody looks on or stands in for the session's requests, and this aiohttp has what is used of it here.

    Tracing counts as looking on, and a test that answers in the place of a service stands in for the session.
    """
    own = all(_is_of(client, call) for call in (aiohttp.ClientSession._request, aiohttp.ClientSession.post))
    if session.trace_configs or not own:
        return False
    try:
        connect = inspect.signature(aiohttp.TCPConnector.connect).parameters
        begin = inspect.signature(ResponseHandler.set_response_params).parameters
    except (AttributeError, ValueError):
        return False
    return list(connect) == ["self", "req", "traces", "timeout"] and "read_until_eof" in begin


def _is_of(module: ModuleType, function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == module.__file__


class DirectSender:
    """Sends POST requests of bytes, without proxy, cookies or a user name in the address.

    Args:
        session: Whose connections and default headers are used.
        connect_s: Seconds for making a connection; 0 for no limit.
        departures: Told of each request that goes to the wire.
    """

    def __init__(self, session: aiohttp.ClientSession, connect_s: float, departures: Departures) -> None:
        if session.connector is None:
            raise RuntimeError("the session is closed")
        self._loop = asyncio.get_running_loop()
        self._session, self._connector, self._departures = session, session.connector, departures
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_s or None)
        self._heads: dict[tuple[Any, ...], _Head | None] = {}

    def head(self, url: str, headers: Mapping[str, str]) -> _Head | None:
        """What such a request begins with; None where it is the session's to send."""
        key = (url, *headers.items())
        try:
            return self._heads[key]
        except KeyError:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            made = self._heads[key] = self._made_head(URL(url), headers)
            return made

    async def post(self, head: _Head, body: bytes) -> Answer:
        """The answer to a request, once its headers are there.

        Raises:
            aiohttp.ClientError, OSError: As the session's ``post``.
            SpoiledConnectionError: Nothing was sent.
        """
        request = head.request
        try:
            connection = await self._connector.connect(request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {request.url}") from error
        try:
            protocol = connection.protocol
            if protocol is None:
                raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
            protocol.set_response_params(read_until_eof=True)
            await self._departures.depart(protocol)
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
            transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head.start, len(body), body))
            message, content = await protocol.read()
            while message.code in _NOT_YET and message.code != _SWITCHING:
                message, content = await protocol.read()
        except HttpProcessingError as error:
            connection.close()
            raise aiohttp.ClientResponseError(
                request.request_info, (), status=error.code, message=error.message, headers=error.headers
            ) from error
        except BaseException:
            connection.close()
            raise
        return _DirectAnswer(connection, message, content)

    def _made_head(self, url: URL, headers: Mapping[str, str]) -> _Head | None:
        if url.user is not None or url.password is not None:
            return None
        merged = CIMultiDict(self._session.headers)
        merged.update(headers)
        request = aiohttp.ClientRequest("POST", url, headers=merged, session=self._session, loop=self._loop)
        lines = [f"{name}: {value}" for name, value in request.headers.items() if name not in _FRAMING]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header holds the end of a line")
        return _Head(request, "\r\n".join([f"POST {url.raw_path_qs} HTTP/1.1", *lines, ""]).encode())
