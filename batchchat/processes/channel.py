"""How parent and child tell each other something: frames of messages in msgpack, some messages in one write."""

import asyncio
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

__all__ = ["Channel", "frame_of"]

Received = TypeVar("Received")

_HEAD = struct.Struct(">Q")
# A frame that msgpack cannot carry (whole numbers beyond 64 bits, half a surrogate pair) is JSON, marked by this bit.
_AS_JSON = 1 << 63
# More in one write saves little; it only has the other end begin later, and both wait for each other in turn.
_MOST = 8


class Channel(asyncio.Protocol, Generic[Received]):
    """One end of the socket: frames of messages, each some of what was told in one turn of the loop.

    What waits to be written is bounded by the requests in flight, as each of them is told of a few times only.

    Args:
        incoming: Type of a message from the other end.
        received: Called with the messages of frames that came together, in their order.
        lost: Called once when the other end is gone, or has nothing more to say.
    """

    def __init__(self, incoming: Any, received: Callable[[list[Received]], None], lost: Callable[[], None]) -> None:
        self._decoder: msgspec.msgpack.Decoder[list[Received]] = msgspec.msgpack.Decoder(list[incoming])
        self._incoming, self._received, self._lost = incoming, received, lost
        self._encoder = msgspec.msgpack.Encoder()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[Any] = []
        self._unread = bytearray()
        self._said_all = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)

    def eof_received(self) -> bool:
        """See ``asyncio.Protocol``; what this end has to say can still be said."""
        self._end_once()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = None
        self._end_once()

    def _end_once(self) -> None:
        lost, self._lost = self._lost, lambda: None
        lost()

    def tell(self, message: Any) -> None:
        """Sends a message, in the next turn of the loop at the latest."""
        outgoing = self._outgoing
        if not outgoing:
            self._loop.call_soon(self.flush)
        outgoing.append(message)
        if len(outgoing) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Writes what was told; to an end that is gone, and after ``end``, nothing."""
        messages, self._outgoing = self._outgoing, []
        if messages and self._transport is not None and not self._said_all:
            self._transport.write(frame_of(messages, self._encoder))

    def end(self) -> None:
        """Says that nothing more comes."""
        self.flush()
        if self._transport is not None and not self._said_all:
            self._said_all = True
            self._transport.write_eof()

    def give_up(self) -> None:
        """There is no socket after all."""
        self._transport = None
        self._end_once()

    def close(self) -> None:
        """Closes the socket; what was not written yet is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        unread = self._unread
        messages: list[Received] = []
        unread += data
        at = 0
        while len(unread) - at >= _HEAD.size:
            (head,) = _HEAD.unpack_from(unread, at)
            end = at + _HEAD.size + (head & ~_AS_JSON)
            if len(unread) < end:
                break
            with memoryview(unread) as whole:
                body = whole[at + _HEAD.size : end]
                messages += self._parsed(body, as_json=bool(head & _AS_JSON))
                body.release()
            at = end
        del unread[:at]
        if messages:
            self._received(messages)

    def _parsed(self, body: memoryview, *, as_json: bool) -> list[Received]:
        if as_json:
            found: list[Received] = msgspec.convert(json.loads(bytes(body)), list[self._incoming])  # type: ignore[name-defined]
            return found
        return self._decoder.decode(body)


def frame_of(messages: Sequence[Any], encoder: msgspec.msgpack.Encoder) -> bytes:
    """One frame: its length in 8 bytes, then the messages as one array."""
    try:
        body = encoder.encode(messages)
    except (ValueError, OverflowError):
        body = json.dumps(msgspec.to_builtins(messages)).encode()
        return _HEAD.pack(len(body) | _AS_JSON) + body
    return _HEAD.pack(len(body)) + body
