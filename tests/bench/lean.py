"""The yardstick: the least that a client on aiohttp can do. One session, N workers over one iterator, answers parsed.

No pacing, no retries, no deadlines, no checks, no resuming: what batchchat costs beyond this is the price of those. With
``--processes N`` each process takes every N-th prompt; with ``--rate`` requests go out on a grid of 99 % of it.
"""

import argparse
import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop

from tests.bench.peers.arguments import parse_arguments

Options = argparse.Namespace


def reply_of(raw: bytes, engine: bool) -> str:
    """The reply in a streamed answer."""
    parts, done = [], False
    for event in raw.split(b"\n\n"):
        data = event[6:]
        if not event.startswith(b"data: "):
            continue
        if engine:
            found = orjson.loads(data)
            if found["type"] == "end":
                return orjson.loads(found["data"])["reply"]
            parts.append(found["data"])
        elif data == b"[DONE]":
            done = True
        elif "content" in (delta := orjson.loads(data)["choices"][0]["delta"]):
            parts.append(delta["content"])
    if not done:
        raise ValueError("cut")
    return "".join(parts)


class Grid:
    """Lets requests out at even times."""

    def __init__(self, per_s: float) -> None:
        self._gap_s, self._next = 1 / (per_s * 0.99), 0.0

    async def wait(self) -> None:
        now = asyncio.get_running_loop().time()
        at = self._next = max(now, self._next + self._gap_s)
        if at > now:
            await asyncio.sleep(at - now)


def rows(path: str, part: int, parts: int) -> Iterator[dict[str, Any]]:
    """Every ``parts``-th line of the input."""
    with open(path, "rb") as source:
        for number, line in enumerate(source):
            if number % parts == part:
                yield orjson.loads(line)


def body_of(prompt: str, engine: bool) -> bytes:
    """The request."""
    if engine:
        return orjson.dumps({"botId": "default", "session": "N/A", "chatId": "x", "newMessage": prompt, "stream": True})
    return orjson.dumps({"model": "canned", "messages": [{"role": "user", "content": prompt}], "stream": True})


async def work(options: Options, output: str, part: int, parts: int) -> None:
    """All prompts of one process."""
    engine = options.provider == "ai-engine"
    url = options.base_url + ("/wp-json/mwai-ui/v1/chats/submit" if engine else "/v1/chat/completions")
    concurrency = max(1, options.concurrency // parts)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer dummy"}
    grid = Grid(options.rate / parts) if options.rate else None
    with open(output, "wb", buffering=1 << 16) as sink:
        connector = aiohttp.TCPConnector(limit=concurrency)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(connector=connector, headers=headers, cookie_jar=jar) as session:
            nonce = {}
            if engine:
                async with session.post(options.base_url + "/wp-json/mwai/v1/start_session") as response:
                    nonce = {"X-WP-Nonce": (await response.json())["restNonce"]}
            todo = rows(options.input, part, parts)

            async def worker() -> None:
                for row in todo:
                    body = body_of(row["prompt"], engine)
                    while True:
                        if grid is not None:
                            await grid.wait()
                        async with session.post(url, data=body, headers=nonce) as response:
                            if response.status == 200:
                                reply = reply_of(await response.read(), engine)
                                break
                            await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
                    sink.write(orjson.dumps({"id": row["id"], "reply": reply}) + b"\n")

            await asyncio.gather(*(worker() for _ in range(concurrency)))


def main(options: Options) -> None:
    """One process, or as many as asked for and their outputs put together."""
    parts = options.processes
    if parts == 1:
        uvloop.run(work(options, options.output, 0, 1))
        return
    children = []
    for part in range(parts):
        if not (child := os.fork()):
            uvloop.run(work(options, f"{options.output}.{part}", part, parts))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    with open(options.output, "wb") as whole:
        for part in range(parts):
            path = Path(f"{options.output}.{part}")
            with path.open("rb") as piece:
                shutil.copyfileobj(piece, whole)
            path.unlink()


if __name__ == "__main__":
    main(parse_arguments())
