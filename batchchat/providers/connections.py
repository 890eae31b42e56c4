"""Which connections a request may go out on: addresses that are still right, answers that nobody asked for."""

import asyncio
import ssl
from collections import deque
from functools import partial
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler

from batchchat.providers.base import Gate

__all__ = ["Departures", "SpoiledConnectionError", "forget_addresses", "made_connector", "take_arrived"]

_ADDRESSES_S = 300


class SpoiledConnectionError(aiohttp.ClientError):
    """A connection from the pool holds bytes that answer nothing; nothing was sent on it, and it is closed."""


def made_connector(trust: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """A connection pool without a queue of its own; a name is asked for once and then as connections fail."""
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=_ADDRESSES_S, ssl=trust or True)
    made = getattr(connector, "_factory", None)
    if isinstance(made, partial) and made.func is ResponseHandler:
        connector._factory = partial(_Connection, *made.args, **made.keywords)  # type: ignore[assignment]
    return connector


class _Connection(ResponseHandler):
    """A connection that goes on reading only where reading was paused; the original goes on after each piece of a body.

    Parsing nothing and asking the transport again, ten times for a short streamed answer, costs more than taking the
    pieces does.
    """

    def resume_reading(self, *arguments: Any, **named: Any) -> None:
        if self._reading_paused:
            super().resume_reading(*arguments, **named)


def take_arrived(content: aiohttp.StreamReader) -> bytes:
    """What has come of a body so far, taken as one piece; taken piece by piece it costs several times as much.

    Raises:
        aiohttp.ClientError: The body is cut short, or is none.
    """
    pieces = getattr(content, "_buffer", None)
    if type(pieces) is deque and len(pieces) > 2:
        whole = b"".join(pieces)
        pieces.clear()
        pieces.append(whole)
    return content.read_nowait()


def forget_addresses(session: aiohttp.ClientSession, error: BaseException) -> None:
    """Has the name asked for again where no connection could be made: the service may have moved."""
    failed = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    if failed and isinstance(session.connector, aiohttp.TCPConnector):
        session.connector.clear_dns_cache()


class Departures:
    """Tells the gate of the moment when a request has its connection and goes to the wire.

    A connection that was used before must be silent until it is asked again. What came meanwhile (a second answer,
    a 408 to nobody, bytes beyond the length that was told) would be taken as this request's answer.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate, self._loop = gate, asyncio.get_running_loop()
        self._used: WeakSet[Any] = WeakSet()

    async def depart(self, protocol: Any) -> None:
        """Returns when the running task's request may go out on the connection.

        Raises:
            SpoiledConnectionError: Not on this one.
        """
        if protocol not in self._used:
            self._used.add(protocol)
        elif protocol is None or protocol.should_close:
            raise SpoiledConnectionError
        if (task := asyncio.current_task(self._loop)) and (waiting := self._gate.sent(task)) is not None:
            await waiting
            if protocol is None or protocol.should_close:
                raise SpoiledConnectionError

    def request_class(self) -> type[aiohttp.ClientRequest]:
        """For requests that a session sends."""
        depart = self.depart

        class NotedRequest(aiohttp.ClientRequest):
            async def send(self, conn: Any) -> aiohttp.ClientResponse:
                await depart(conn.protocol)
                return await super().send(conn)

        return NotedRequest
