"""A server of which a case decides every byte, in a thread of the suite; its log has the development server's form."""

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.chaos.raw_answers import good_answer, http
from tests.chaos.world import World

__all__ = ["Answer", "Ask", "RawServer"]

Answer = Callable[["Ask"], Awaitable[None]]
NONCE = "5b1d0e7c42"
_LEFT = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, OSError)


@dataclass
class Ask:
    """One request, and the connection that its answer goes to.

    Attributes:
        kind: ``session``, ``chat`` or ``connect`` (to a proxy).
        text: The prompt's text.
        attempt: How often this text has been sent, from 1.
        number: Of this request among the chats, from 1.
        rng: Chance that depends on the world's seed, the text and the attempt only.
        delivered: Whether a whole right answer was sent; a case that sends one by itself sets it.
    """

    server: "RawServer"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    kind: str
    target: str
    headers: dict[str, str]
    body: Any = None
    text: str = ""
    attempt: int = 0
    number: int = 0
    rng: random.Random = field(default_factory=random.Random)
    delivered: bool = False

    @property
    def good(self) -> bytes:
        """The right answer as bytes, head and body."""
        return good_answer(self.text, self.body)

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, data: bytes | None = None) -> None:
        """A whole right answer; ``data`` where it has a form of its own."""
        await self.send(self.good if data is None else data)
        self.delivered = True

    async def drip(self, data: bytes, *, size: int = 1, every_s: float = 0.05) -> None:
        """The bytes in pieces of ``size``, one each ``every_s`` seconds."""
        for at in range(0, len(data), size):
            await self.send(data[at : at + size])
            await asyncio.sleep(every_s)

    async def silence(self) -> None:
        """Nothing, until the client goes away."""
        while await self.reader.read(65536):
            pass
        raise ConnectionResetError("the client went away")

    def close(self) -> None:
        """Ends the connection in order (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Ends the connection at once (RST)."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawServer:
    """Listens while it is entered, and makes itself the service of the world.

    Args:
        answer: What answers a chat.
        session: What answers ``start_session``, and ``connect`` what answers a CONNECT; a nonce, and 405, if None.
        tls: Speaks TLS.
    """

    def __init__(
        self,
        world: World,
        answer: Answer,
        *,
        session: Answer | None = None,
        connect: Answer | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.world, self._answers = world, {"chat": answer, "session": session, "connect": connect}
        self.host, self.port, self._tls = host, port, tls
        self.asked: Counter[str] = Counter()
        self.chats = self.sessions = self.connections = self.in_flight = 0
        self.faults: list[str] = []
        self._log_path = world.folder / f"raw-{len(world.logs)}.log"
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._log = os.open(self._log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.world.logs.append(self._log_path)
        self._thread.start()
        assert self._started.wait(30), "the server did not start"
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.world.base_url = f"{'https' if self._tls else 'http'}://{host}:{self.port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        os.close(self._log)
        for fault in self.faults:
            self.world.verdict.blame("wrong", f"the suite's own server failed: {fault}")

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(
            self._accept, self.host, self.port, ssl=self._tls, limit=1 << 20, backlog=1024
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                ask = await self._read(reader, writer)
                await self._serve(ask)
        except (*_LEFT, asyncio.CancelledError):  # the client, or the server itself, is at its end
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ask:
        start = await reader.readexactly(1)
        if not start.isalpha():  # TLS, as it seems
            writer.write(http(400, "no HTTP"))
            raise ConnectionResetError("the client does not speak HTTP")
        head = start + await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        kind = "connect" if method == "CONNECT" else "session" if "start_session" in target else "chat"
        ask = Ask(self, reader, writer, kind, target, headers)
        if kind == "chat":
            self.chats += 1
            ask.number, ask.body = self.chats, json.loads(body)
            ask.text = ask.body["newMessage"] if "newMessage" in ask.body else ask.body["messages"][-1]["content"]
            self.asked[ask.text] += 1
            ask.attempt = self.asked[ask.text]
            ask.rng = random.Random(f"{self.world.seed}/{ask.text}/{ask.attempt}")
        self.sessions += kind == "session"
        return ask

    async def _serve(self, ask: Ask) -> None:
        self._numbers += 1
        number = self._numbers
        about = {"number": number, "nonce": ask.headers.get("x-wp-nonce"), "prompt": ask.text or None}
        self._note(kind=ask.kind, status=200, fault=None, **about)
        answer = self._answers[ask.kind] or _USUAL[ask.kind]
        self.in_flight += ask.kind == "chat"
        try:
            await answer(ask)
        except _LEFT:
            ask.writer.close()
        except Exception as error:  # a case's own mistake
            self.faults.append(repr(error))
            ask.writer.close()
        finally:
            self.in_flight -= ask.kind == "chat"
            self._note(kind="end", number=number, delivered=ask.delivered)

    def _note(self, **told: Any) -> None:
        with contextlib.suppress(OSError):  # after the end
            os.write(self._log, json.dumps({**told, "time_s": time.monotonic()}).encode() + b"\n")


async def _session(ask: Ask) -> None:
    await ask.send(http(200, json.dumps({"success": True, "sessionId": "s", "restNonce": NONCE})))


async def _no_proxy(ask: Ask) -> None:
    await ask.send(http(405, "no proxy"))


_USUAL: dict[str, Answer] = {"session": _session, "connect": _no_proxy}
