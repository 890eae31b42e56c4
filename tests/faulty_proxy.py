"""A proxy before an object store that misbehaves as it is told: each fault hits the next requests that fit it."""

import asyncio
import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web
from yarl import URL

What = Literal["slow down", "fail", "cut", "cut request", "lose answer", "hide", "stall"]
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>as told</Message></Error>'
_ANSWERS = {"slow down": (503, "SlowDown"), "fail": (500, "InternalError"), "hide": (404, "NoSuchKey")}


@dataclass
class Fault:
    """What happens to how many requests.

    Attributes:
        method: ``GET``, ``PUT``, ``POST``, ``HEAD`` …
        key: Part of the path and query.
        skip: Requests that fit and go through before.
    """

    what: What
    method: str
    key: str = ""
    times: int = 1
    skip: int = 0
    after: Callable[[], object] | None = None


@dataclass
class FaultyProxy:
    """The proxy's address, and what it was asked.

    Attributes:
        asked: Method, path with query, and status of each request; 0 for one that got no answer.
    """

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def count(self, method: str, key: str = "", status: int | None = None) -> int:
        """How many requests of a kind there were."""
        return sum(m == method and key in path and status in (None, s) for m, path, s in list(self.asked))

    def reset(self) -> None:
        """Forgets faults and requests."""
        self.faults.clear()
        self.asked.clear()

    def _next(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and fault.key in path:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None


@contextlib.contextmanager
def faulty_proxy(behind: str) -> Iterator[FaultyProxy]:
    """A proxy before the service at an address, on a thread of its own."""
    proxy = FaultyProxy()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, aiohttp.ClientSession]:
        session = aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("User-Agent", "Accept-Encoding"))
        application = web.Application(client_max_size=1 << 30)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await _handle(request, behind, session, proxy)

        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = "http://127.0.0.1:%d" % runner.addresses[0][1]
        return runner, session

    async def stop(runner: web.AppRunner, session: aiohttp.ClientSession) -> None:
        await session.close()
        await runner.cleanup()

    runner, session = asyncio.run_coroutine_threadsafe(start(), loop).result(50)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(stop(runner, session), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _handle(
    request: web.Request, behind: str, session: aiohttp.ClientSession, proxy: FaultyProxy
) -> web.StreamResponse:
    fault = proxy._next(request.method, request.raw_path)
    what = None if fault is None else fault.what
    told = len(proxy.asked)
    proxy.asked.append((request.method, request.raw_path, 0))
    if what == "cut request":
        await request.content.readany()
        return _cut(request)
    data = await request.read()
    if what == "stall":
        await asyncio.sleep(3600)
    if what in _ANSWERS:
        status, code = _ANSWERS[what]
        proxy.asked[told] = (request.method, request.raw_path, status)
        return web.Response(status=status, text=_ERROR.format(code), content_type="application/xml")
    # The signature covers the host that the client asked.
    async with session.request(
        request.method,
        URL(behind + request.raw_path, encoded=True),
        headers={
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("transfer-encoding", "expect")
        },
        data=io.BytesIO(data) if data else None,
    ) as answer:
        body = await answer.read()
        if fault is not None and fault.after is not None:
            await asyncio.to_thread(fault.after)
        if what == "lose answer":
            return _cut(request)
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
        proxy.asked[told] = (request.method, request.raw_path, answer.status)
        if request.method == "HEAD":
            return web.Response(status=answer.status, headers=headers)
        headers["Content-Length"] = str(len(body))
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        if what == "cut":
            await response.write(body[: len(body) // 2])
            return _cut(request)
        await response.write(body)
        await response.write_eof()
        return response


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError
