"""The page's server: a guard before every request, headers that let in nothing from elsewhere, and the routes."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

from batchchat.errors import BatchchatError, ConfigError
from batchchat.insight.reading import read_latest_run
from batchchat.view.answers import Answers, read_filter
from batchchat.view.book import Book
from batchchat.view.compare import VERDICTS
from batchchat.view.content import StaleError
from batchchat.view.downloads import csv_pieces, jsonl_pieces
from batchchat.view.keeper import Keeper
from batchchat.view.lines import settings_rows
from batchchat.view.plots import PLOT_CSS, PlotBoard
from batchchat.web_guard import Guard
from batchchat.web_runner import end_runner

__all__ = ["ViewServer"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PLOT_CSS = "plots.css"
_STATIC = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "app.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_QUIET_S = 10.0
_MOST_LISTENERS = 100


class ViewServer:
    """Serves the page of one run, or of two side by side, to this machine.

    Args:
        books: One or two.
        host: A loopback address.
        port: 0 for any free one.

    Raises:
        ConfigError: ``host`` is no loopback address, or (on entering) the port cannot be had.
    """

    def __init__(self, books: Sequence[Book], host: str = "127.0.0.1", port: int = 0) -> None:
        self._guard = Guard(host)
        self._host, self._port = host, port
        self._books = books
        self._keeper = Keeper(books)
        self._answers = Answers(books)
        self._runner: web.AppRunner | None = None
        self._listeners = 0
        self._boards = [PlotBoard(book) for book in books]
        self._static = {
            name: resources.files("batchchat.view").joinpath("static", name).read_bytes() for name in _STATIC
        }
        self.address = ""

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._let_in])
        app.router.add_get("/", self._page)
        app.router.add_get("/static/{name}", self._file)
        app.router.add_get("/api/events", self._events)
        app.router.add_get("/api/rows", self._rows)
        app.router.add_get("/api/row/{row:[0-9]{1,12}}", self._row)
        app.router.add_get("/api/line/{row:[0-9]{1,12}}", self._line)
        app.router.add_get("/api/fields", self._fields)
        app.router.add_get("/api/pairs", self._pairs)
        app.router.add_get("/api/plots", self._plots)
        app.router.add_get("/api/settings", self._settings)
        app.router.add_get("/api/download", self._download)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            reason = error.strerror or str(error)
            raise ConfigError(
                f"{self._host}:{self._port} cannot be listened on: {reason}; choose another port with --port"
            ) from error
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"http://{host}:{self._runner.addresses[0][1]}/"
        await self._keeper.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._keeper.__aexit__(kind, error, trace)
        runner, self._runner = self._runner, None
        if runner is not None:
            await end_runner(runner)

    @web.middleware
    async def _let_in(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuses strangers, and makes a sentence of everything that a request or a file can cause."""
        refusal = self._guard.refusal(request.method, request.headers)
        if refusal is not None:
            return _told(refusal.message, refusal.status)
        self._keeper.touch()
        try:
            response = await self._answered(request, handler)
        except web.HTTPException as error:
            return _told(f"{error.status}: {error.reason}", error.status)
        except StaleError:
            return _told("the file was replaced; ask again", 409)
        except ConfigError as error:
            return _told(str(error), 400)
        except BatchchatError as error:
            return _told(str(error), 500)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _answered(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Asks again where a file turned out to be another one: a run that ends renames its errors file."""
        try:
            return await handler(request)
        except StaleError:
            for book in self._books:
                await asyncio.to_thread(book.refresh)
            return await handler(request)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(body=self._static["index.html"], content_type="text/html", charset="utf-8")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == _PLOT_CSS:
            return web.Response(text=PLOT_CSS, content_type="text/css", charset="utf-8")
        if name not in self._static:
            raise web.HTTPNotFound
        return web.Response(body=self._static[name], content_type=_STATIC[name], charset="utf-8")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Each new state as an event; a comment now and then, so that whoever has left is noticed."""
        if self._listeners >= _MOST_LISTENERS:
            return _told(f"{_MOST_LISTENERS} pages are listening already; close some", 503)
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
        self._listeners += 1
        try:
            with contextlib.suppress(ConnectionError):  # the page was closed
                await response.prepare(request)
                async with contextlib.aclosing(self._keeper.states(quiet_s=_QUIET_S)) as states:
                    async for state in states:
                        text = b": \n\n" if state is None else b"data: " + _json(state) + b"\n\n"
                        await response.write(text)
        finally:
            self._listeners -= 1
        return response

    async def _rows(self, request: web.Request) -> web.Response:
        query = request.query
        found = await self._answers.rows(
            self._book_number(request), read_filter(query), _number(query, "offset"), _number(query, "limit", 100)
        )
        return _answer(found)

    async def _row(self, request: web.Request) -> web.Response:
        found = await self._answers.detail(self._book_number(request), int(request.match_info["row"]))
        if found is None:
            return _told("there is no such row", 404)
        return _answer(found)

    async def _line(self, request: web.Request) -> web.Response:
        """The line of a row, byte for byte."""
        book, row = self._books[self._book_number(request)], int(request.match_info["row"])
        if row >= book.columns.count:
            return _told("there is no such row", 404)
        data = await asyncio.to_thread(book.line, row)
        name = f'attachment; filename="row-{row}.jsonl"'
        return web.Response(body=data + b"\n", content_type="application/jsonl", headers={"Content-Disposition": name})

    async def _fields(self, request: web.Request) -> web.Response:
        return _answer(await self._answers.fields(self._book_number(request)))

    async def _pairs(self, request: web.Request) -> web.Response:
        if len(self._books) < 2:
            return _told("there is one file; start with two to compare them", 404)
        query = request.query
        verdicts = frozenset(query.get("verdict", "").split(",")) - {""}
        if not verdicts <= set(VERDICTS):
            raise ConfigError(f"verdict: expected some of {', '.join(VERDICTS)}")
        text = query.get("text", "")
        return _answer(
            await self._answers.pairs(verdicts, text, _number(query, "offset"), _number(query, "limit", 100))
        )

    async def _plots(self, request: web.Request) -> web.Response:
        number = self._book_number(request)
        state = self._keeper.state[number] if self._keeper.state else {}
        live = state.get("live")
        rates = None if live is None else tuple(live["rates"])
        return _answer(await asyncio.to_thread(self._boards[number].plots, rates))

    async def _settings(self, request: web.Request) -> web.Response:
        """Settings of the latest run, as its summary has them: secrets as ``***``."""
        run = await asyncio.to_thread(read_latest_run, self._books[self._book_number(request)].files)
        return _answer([] if run is None else settings_rows(run.settings))

    async def _download(self, request: web.Request) -> web.StreamResponse:
        """The rows that match as they are now, streamed."""
        form = request.query.get("form", "jsonl")
        if form not in ("jsonl", "csv"):
            raise ConfigError(f"form: found {form!r}, expected jsonl or csv")
        number = self._book_number(request)
        rows = await self._answers.all_rows(number, read_filter(request.query))
        kind = "application/jsonl" if form == "jsonl" else "text/csv"
        name = f'attachment; filename="rows.{form}"'
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Disposition": name}
        )
        pieces = (jsonl_pieces if form == "jsonl" else csv_pieces)(self._books[number], rows)
        first = await asyncio.to_thread(next, pieces, b"")
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, StaleError, BatchchatError):
            await response.write(first)
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await response.write(piece)
            await response.write_eof()
            return response
        # Cut off, so that nobody takes a part for the whole.
        if request.transport is not None:
            request.transport.abort()
        return response

    def _book_number(self, request: web.Request) -> int:
        return min(_number(request.query, "file"), len(self._books) - 1)


def _number(query: Any, name: str, default: int = 0) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise ConfigError(f"{name}: found {text!r}, expected a number from 0 on")
    return int(text)


def _answer(value: Any) -> web.Response:
    return web.Response(body=_json(value), content_type="application/json")


def _told(message: str, status: int) -> web.Response:
    return web.Response(body=_json({"error": message}), content_type="application/json", status=status, headers=HEADERS)


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bit, half an emoji
        return json.dumps(value).encode()
