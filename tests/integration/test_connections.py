"""Connections that are used again, and names that move: no answer goes to a prompt that it is not for."""

import asyncio
import contextlib
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp.client_proto import ResponseHandler
from aiohttp.resolver import ThreadedResolver

from tests.integration.test_bad_servers import RawServer, ask, plain
from tests.runs import read_lines

PROVIDERS = ["ai-engine", "openai"]


def whole(text: str, provider: str) -> bytes:
    told: Any = {"success": True, "reply": text}
    if provider == "openai":
        told = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return plain(200, json.dumps(told))


class EchoServer(RawServer):
    """Answers each prompt with its own text and says ``behind`` at once, or ``late`` when nobody asks any more."""

    def __init__(self, provider: str, behind: bytes = b"", late: bytes = b"", host: str = "127.0.0.1") -> None:
        super().__init__(b"")
        self.provider, self.behind, self.late = provider, behind, late
        self.connections = 0

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
                body = json.loads(await reader.readexactly(length))
                if b"start_session" in head:
                    writer.write(self.session)
                    continue
                self.chats += 1
                text = body.get("newMessage") or body["messages"][-1]["content"]
                writer.write(whole(text, self.provider) + self.behind)
                if self.late:
                    await asyncio.sleep(0.02)
                    writer.write(self.late)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def texts(folder: Path) -> dict[str, str]:
    return {line["id"]: line["prompt"] for line in read_lines(folder / "prompts.jsonl")}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_second_answer_behind_the_first_is_no_other_prompts_answer(
    tmp_path: Path, provider: str, concurrency: int
) -> None:
    async with EchoServer(provider, behind=whole("smuggled", provider)) as server:
        code, answers, errors, _ = await ask(server, tmp_path, provider, count=12, concurrency=concurrency)
    assert (code, errors) == (0, [])
    assert {line["id"]: line["response"] for line in answers} == texts(tmp_path)
    assert server.chats == 12, "a connection that is given up costs no second request"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "late",
    [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-", b"\0\xff nonsense"],
)
async def test_what_comes_while_a_connection_is_idle_is_nobodys_answer(
    tmp_path: Path, provider: str, late: bytes
) -> None:
    async with EchoServer(provider, late=late) as server:
        code, answers, errors, _ = await ask(server, tmp_path, provider, count=4, concurrency=1, rate=["5/s"])
    assert (code, errors) == (0, [])
    assert {line["id"]: line["response"] for line in answers} == texts(tmp_path)
    assert server.chats == 4


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_quiet_connection_is_used_again(tmp_path: Path, provider: str) -> None:
    async with EchoServer(provider) as server:
        code, *_ = await ask(server, tmp_path, provider, count=12, concurrency=2)
    assert code == 0
    assert server.connections <= 2


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_name_is_asked_for_again_when_its_address_refuses(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name stands for an address where nobody is (any more); the next attempt finds the new one."""
    asked: list[str] = []

    async def resolve(self: ThreadedResolver, host: str, port: int = 0, **_: Any) -> list[dict[str, Any]]:
        asked.append(host)
        address = "127.0.0.9" if len(asked) == 1 else "127.0.0.1"
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    async with EchoServer(provider) as server:
        url = server.url.replace("127.0.0.1", "service.test")
        code, answers, errors, _ = await ask(url, tmp_path, provider, count=3, concurrency=1, retry__retries=1)
    assert (code, errors, len(answers)) == (0, [], 3)
    assert asked == ["service.test"] * 2, "once for each address, not for each request"


class Tls:
    """Speaks TLS and answers once a connection; connections numbered in ``plain`` get an answer without TLS."""

    def __init__(self, context: ssl.SSLContext, *plain: int) -> None:
        self.context, self.plain, self.connections = context, plain, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            if self.connections in self.plain:
                writer.write(plain(400, "The plain HTTP request was sent to HTTPS port"))
                await writer.drain()
            else:
                await writer.start_tls(self.context)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(whole("hello", "openai"))
                await writer.drain()
        writer.close()


@pytest.mark.parametrize(("plain_ones", "code"), [((2,), 0), ((1, 2, 3), 4)])
async def test_plain_answer_to_a_handshake_ends_a_run_only_where_tls_never_worked(
    tmp_path: Path, plain_ones: tuple[int, ...], code: int
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(Tls(context, *plain_ones).serve, "127.0.0.1", 0)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ca_file = str(tmp_path / "authority.pem")
        found, *_ = await ask(url, tmp_path, "openai", count=4, concurrency=1, retry__retries=1, ca_file=ca_file)
    assert found == code


def in_chunks(body: bytes, size: int) -> bytes:
    """A streamed answer; so many chunks wait to be taken, where they are small, that aiohttp pauses reading."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("pause", [False, True])
async def test_pieces_of_an_answer_cost_no_second_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: bool
) -> None:
    """Where nothing was paused there is nothing to go on with; where it was, the rest of the answer comes."""
    looks: list[bytes] = []
    received = ResponseHandler.data_received

    def look(self: ResponseHandler, data: bytes) -> None:
        looks.append(data)
        received(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", look)
    piece = "x" * (10_000 if pause else 4)
    events = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for _ in range(40)]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
    async with RawServer(in_chunks(stream, 4 if pause else 100)) as server:
        code, answers, errors, _ = await ask(server, tmp_path, "openai", count=1)
    assert (code, errors) == (0, [])
    assert [line["response"] for line in answers] == [40 * piece]
    assert any(data == b"" for data in looks) == pause
