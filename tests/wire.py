"""A server for tests that answers with given bytes, and the ``openai`` provider asking it."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

from batchchat.errors import ProviderError
from batchchat.providers.base import ChatRequest, ProviderContext
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig

HELLO = ChatRequest(messages=[{"role": "user", "content": "hi"}], given=1)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> str:
    if content is not None:
        delta["content"] = content
    return json.dumps({"model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


class Wire:
    """A server that notes what it is sent and answers with what it is given, one answer a request."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.base_url = ""
        self.hold = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = head.split("\r\n")
                headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((lines[0].split(" ")[1], headers, json.loads(body)))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                await writer.drain()
                if b"Content-Length" not in answer or b"Content-Length: 100\r" in answer or b": 9999\r" in answer:
                    if answer.endswith(b"HOLD"):
                        await self.hold.wait()
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def stream(*events: str, end: str = "\n\n", field: str = "data: ") -> bytes:
    body = "".join(f"{field}{event}{end}" for event in events)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body.encode()


def whole(body: Any, status: str = "200 OK", extra: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{extra}\r\n".encode() + data


@asynccontextmanager
async def wired(*answers: bytes):
    wire = Wire(*answers)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    async with server:
        wire.base_url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        yield wire
        wire.hold.set()


async def ask(*answers: bytes, request: ChatRequest = HELLO, path: str = "", **settings: Any):
    context = settings.pop("context", ProviderContext(environ={"KEY": "sk-1"}))
    async with wired(*answers) as wire:
        config = OpenAIChatConfig(**{"base_url": wire.base_url + path, "model": "m", **settings})
        async with OpenAIChat(config, context) as provider:
            try:
                return await provider.complete(request), wire
            except ProviderError as error:
                return error, wire
