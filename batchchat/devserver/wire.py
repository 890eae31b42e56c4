"""Answers as bytes on a connection: framing, pace, and the ways a connection can fail for real."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Literal

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from batchchat.errors import ProviderError

__all__ = ["SERVER", "Answer", "Ending", "Pace", "Sent", "cut_answer", "send_answer", "send_live"]

SERVER = "batchchat-devserver"
# A connection dies at once, without a farewell, when its socket lingers for 0 s.
_LINGER_0 = struct.pack("ii", 1, 0)

Ending = Literal["clean", "eof", "reset", "stall"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer before it is sent.

    ``pieces`` are the events of a stream, in order, or the one body; ``trailers`` is how many of them, at the end, are
    no text of the reply. ``status`` 0: not even a head is sent. Endings: ``clean`` as HTTP wants it, ``eof`` the
    connection is closed where it is, ``reset`` by RST, ``stall`` nothing more comes.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    pieces: tuple[bytes, ...] = ()
    trailers: int = 0
    chunked: bool = True
    ending: Ending = "clean"


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer goes out, and what becomes of its connection.

    Attributes:
        interval_s: Seconds between two pieces; with 0 and no ``chunk_bytes``, all goes out in one write.
        chunk_bytes: Bytes of each HTTP chunk and each write; 0 for one event a chunk.
        announce_close: Whether the head says ``Connection: close``.
        keep_open: Whether the connection may serve another request.
    """

    interval_s: float = 0.0
    chunk_bytes: int = 0
    announce_close: bool = False
    keep_open: bool = True


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already, and whether the connection stays open."""

    def __init__(self, *, status: int, keep_open: bool) -> None:
        super().__init__(status=status or 200)
        self._keep_open = keep_open

    @property
    def prepared(self) -> bool:
        return True

    @property
    def keep_alive(self) -> bool:
        return self._keep_open

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def cut_answer(answer: Answer, fault: str) -> Answer:
    """The answer with a fault of its connection; the same one if ``fault`` is of another sort."""
    if fault in ("stall_before", "reset_before"):
        return msgspec.structs.replace(
            answer, status=0, pieces=(), ending="stall" if fault == "stall_before" else "reset"
        )
    if fault not in ("cut_no_end", "cut_reset", "cut_mid_event", "cut_mid_character", "stall_midway"):
        return answer
    texts = answer.pieces[: len(answer.pieces) - answer.trailers]
    half = max(1, len(texts) // 2)
    ending: Ending = "clean"
    if len(answer.pieces) == 1:
        body = answer.pieces[0]
        kept: tuple[bytes, ...] = (_cut_character(body) if fault == "cut_mid_character" else body[: len(body) // 2],)
    elif fault == "cut_no_end":
        kept = texts
    elif fault == "cut_mid_character":
        at = next(index for index, piece in enumerate(texts) if _character(piece) >= 0)
        kept = (*texts[:at], _cut_character(texts[at]))
    elif fault == "cut_mid_event":
        following = answer.pieces[half]
        kept = (*texts[:half], following[: len(following) // 2])
    else:
        kept = texts[:half]
    if fault != "cut_no_end":
        ending = {"cut_reset": "reset", "stall_midway": "stall"}.get(fault, "eof")  # type: ignore[assignment]
    return msgspec.structs.replace(answer, pieces=kept, ending=ending, chunked=True)


def _character(piece: bytes) -> int:
    """Where a cut falls inside a character: after a byte of several, or inside an escape; -1 for nowhere."""
    for index, byte in enumerate(piece):
        if byte >= 0x80:
            return index + 1
    escape = piece.find(b"\\u")
    return escape + 3 if escape >= 0 else -1


def _cut_character(piece: bytes) -> bytes:
    return piece[: max(_character(piece), 1)]


async def send_live(request: web.BaseRequest, answer: Answer, pieces: AsyncIterator[bytes], pace: Pace) -> Sent:
    """Writes an answer's head, then the pieces of a stream as they come; cut where they end with an exception."""
    close = pace.announce_close or not request.keep_alive
    writer = request.writer
    await writer.write(_head(answer, close))
    try:
        async for piece in pieces:
            await writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if pace.interval_s:
                await asyncio.sleep(pace.interval_s)
    except ProviderError:
        if request.transport is not None:
            request.transport.close()
        return Sent(status=answer.status, keep_open=False)
    await writer.write(b"0\r\n\r\n")
    return Sent(status=answer.status, keep_open=pace.keep_open and not close)


async def send_answer(request: web.BaseRequest, answer: Answer, pace: Pace, *, closing: asyncio.Event) -> Sent:
    """Writes an answer.

    Args:
        closing: Set when the server stops; ends a stall.

    Returns:
        What the handler gives to aiohttp.
    """
    keep_open, interval_s = pace.keep_open, pace.interval_s
    if answer.status:
        close = pace.announce_close or not request.keep_alive
        await _write(request.writer, _head(answer, close), _blocks(answer, interval_s, pace.chunk_bytes), interval_s)
        keep_open = keep_open and not close
    if answer.ending == "stall":
        await closing.wait()
    transport = request.transport
    if answer.ending == "clean" or transport is None:
        return Sent(status=answer.status, keep_open=keep_open and transport is not None)
    if answer.ending == "reset":
        # What was written must be with the client before the reset, which would take it back.
        await asyncio.sleep(0)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        transport.abort()
    else:
        transport.close()
    return Sent(status=answer.status, keep_open=False)


async def _write(
    writer: AbstractStreamWriter, head: bytes, blocks: Iterator[tuple[float, bytes]], interval_s: float
) -> None:
    held = [head]
    for pause_s, block in blocks:
        if pause_s >= 0:
            await writer.write(b"".join(held))
            held.clear()
            await asyncio.sleep(pause_s)
        held.append(block)
    await writer.write(b"".join(held))


def _blocks(answer: Answer, interval_s: float, chunk_bytes: int) -> Iterator[tuple[float, bytes]]:
    """Blocks of the framed body, each with the seconds to wait before it; -1 to write it with the one before."""
    pieces = answer.pieces if interval_s or not chunk_bytes else (b"".join(answer.pieces),)
    for number, piece in enumerate(pieces):
        pause_s = interval_s if number and interval_s else -1.0
        step = chunk_bytes or len(piece) or 1
        for start in range(0, len(piece), step):
            if start:
                pause_s = 0.0
            part = piece[start : start + step]
            yield pause_s, b"%x\r\n%b\r\n" % (len(part), part) if answer.chunked else part
    if answer.chunked and answer.ending == "clean":
        yield -1.0, b"0\r\n\r\n"


def _head(answer: Answer, close: bool) -> bytes:
    try:
        reason = HTTPStatus(answer.status).phrase
    except ValueError:
        reason = ""
    lines = [f"HTTP/1.1 {answer.status} {reason}", f"Server: {SERVER}", f"Date: {formatdate(usegmt=True)}"]
    lines.extend(f"{name}: {value}" for name, value in answer.headers)
    if answer.chunked:
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {sum(map(len, answer.pieces))}")
    lines.append("Connection: close" if close else "Connection: keep-alive")
    return "\r\n".join([*lines, "\r\n"]).encode("utf-8", "replace")
