"""Answers that are odd but whole, and such that are none at all."""

import gzip
import zlib
from collections.abc import Awaitable, Callable

from tests.chaos.raw_answers import answer_body, chunked, http, wire_headers
from tests.chaos.raw_server import Ask

__all__ = ["CHUNKED", "NONE", "TAKEN", "body_of"]

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Bad = Callable[[Ask], Awaitable[None]]


def body_of(ask: Ask) -> bytes:
    return answer_body(ask.text, ask.body)


def _says(make: Callable[[Ask], bytes], *, close: bool = False) -> Bad:
    async def say(ask: Ask) -> None:
        await ask.send(make(ask))
        if close:
            ask.close()

    return say


def _head(ask: Ask, *lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", wire_headers(ask.body), *lines, "", ""]).encode()


# Oddities around a whole right answer.
TAKEN: dict[str, Callable[[Ask], bytes]] = {
    "an early 100": lambda ask: b"HTTP/1.1 100 Continue\r\n\r\n" + ask.good,
    "early hints, twice": lambda ask: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2 + ask.good,
    "gzip": lambda ask: http(200, gzip.compress(body_of(ask)), wire_headers(ask.body), "Content-Encoding: gzip"),
    "deflate": lambda ask: http(200, zlib.compress(body_of(ask)), wire_headers(ask.body), "Content-Encoding: deflate"),
    "gzip in chunks": lambda ask: chunked(
        gzip.compress(body_of(ask)), wire_headers(ask.body), "Content-Encoding: gzip", size=7
    ),
    "chunks with extensions": lambda ask: (
        CHUNKED + b"%x;a=b;c\r\n%b\r\n0;z\r\n\r\n" % (len(body_of(ask)), body_of(ask))
    ),
    "trailers": lambda ask: (
        CHUNKED + b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n" % (len(body_of(ask)), body_of(ask))
    ),
    "another charset told": lambda ask: chunked(body_of(ask), "Content-Type: text/event-stream; charset=utf-16"),
    "no such charset": lambda ask: chunked(body_of(ask), "Content-Type: text/plain; charset=klingon"),
    "a picture told": lambda ask: chunked(body_of(ask), "Content-Type: image/png"),
    "many cookies": lambda ask: http(
        200, body_of(ask), *(f"Set-Cookie: c{number}={'x' * 40}; Path=/" for number in range(60))
    ),
    "no coding": lambda ask: http(200, body_of(ask), wire_headers(ask.body), "Content-Encoding: identity"),
    "a cookie for elsewhere": lambda ask: http(200, body_of(ask), "Set-Cookie: a=b; Domain=example.com; Secure"),
    "HTTP/1.0 until the end": lambda ask: b"HTTP/1.0 200 OK\r\n\r\n" + body_of(ask),
    "the connection closes": lambda ask: http(200, body_of(ask), "Connection: close"),
}
# Answers that are none: any of these types, after its retries.
NONE: dict[str, Bad] = {
    "no content": _says(lambda ask: b"HTTP/1.1 204 No Content\r\n\r\n"),
    "reset content": _says(lambda ask: b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
    "not modified": _says(lambda ask: b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "no status": _says(lambda ask: b"HTTP/1.1 \r\n\r\n", close=True),
    "a word as status": _says(lambda ask: http("fine", body_of(ask)), close=True),
    "another protocol": _says(lambda ask: b"220 smtp.example.org ESMTP ready\r\n", close=True),
    "nothing but zeros": _says(lambda ask: bytes(5000), close=True),
    "a negative length": _says(lambda ask: http(200, body_of(ask), length=-1), close=True),
    "two lengths": _says(lambda ask: http(200, body_of(ask), "Content-Length: 5"), close=True),
    "a length and chunks": _says(lambda ask: _head(ask, "Content-Length: 5", "Transfer-Encoding: chunked") + b"zz"),
    "a length too long": _says(lambda ask: http(200, body_of(ask)[:40], length=4000), close=True),
    "a length too short": _says(lambda ask: http(200, body_of(ask), length=40), close=True),
    "a chunk of no size": _says(lambda ask: CHUNKED + b"xyz\r\n" + body_of(ask), close=True),
    "a chunk of -1": _says(lambda ask: CHUNKED + b"-1\r\n" + body_of(ask), close=True),
    "a chunk beyond 64 bits": _says(lambda ask: CHUNKED + b"f" * 17 + b"\r\n" + body_of(ask), close=True),
    "no gzip": _says(lambda ask: http(200, body_of(ask), "Content-Encoding: gzip")),
    "gzip that ends early": _says(lambda ask: http(200, gzip.compress(body_of(ask))[:30], "Content-Encoding: gzip")),
    "a coding that nobody asked for": _says(lambda ask: http(200, body_of(ask), "Content-Encoding: br")),
    "another one": _says(lambda ask: http(200, body_of(ask), "Content-Encoding: zstd")),
    "10,000 headers": _says(lambda ask: http(200, body_of(ask), *(f"X-{n}: y" for n in range(10_000))), close=True),
    "a header of 1 MB": _says(lambda ask: http(200, body_of(ask), "X-A: " + "y" * (1 << 20)), close=True),
}
