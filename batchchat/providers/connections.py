"""Which connections a request may go out on: addresses that are still right, answers that nobody asked for."""

import asyncio
import ssl
from typing import Any
from weakref import WeakSet

import aiohttp

from batchchat.providers.base import Gate

__all__ = ["Departures", "SpoiledConnectionError", "forget_addresses", "made_connector"]

_ADDRESSES_S = 300


class SpoiledConnectionError(aiohttp.ClientError):
    """A connection from the pool holds bytes that answer nothing; nothing was sent on it, and it is closed."""


def made_connector(trust: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """A connection pool without a queue of its own; a name is asked for once and then as connections fail."""
    return aiohttp.TCPConnector(limit=0, ttl_dns_cache=_ADDRESSES_S, ssl=trust or True)


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
