"""Keeps books up to date while somebody looks: one task, whose waits are all bounded."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from batchchat.control.client import ask_live
from batchchat.control.messages import live_object
from batchchat.results.summary import read_summary
from batchchat.view.book import Book
from batchchat.view.columns import ANSWERED, KINDS

__all__ = ["Keeper"]

# How long a change may go unseen.
_LOOK_EVERY_S = 0.4
_SEEN_FOR_S = 10.0
# For which a run may leave its page without an answer.
_LIVE_S = 1.0


class Keeper:
    """Reads on in one task, and tells everyone who listens how things stand.

    Attributes:
        books: The run's, and that of another one to compare with.
        state: What is told: one object for each book, as ``_state_of`` makes it.
    """

    def __init__(self, books: Sequence[Book]) -> None:
        self.books = books
        self.state: list[dict[str, Any]] = []
        self.version = 0
        self._changed = asyncio.Condition()
        self._asked = asyncio.Event()
        self._seen_until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep())
        self.touch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def touch(self) -> None:
        """Somebody looks: for some seconds the files are looked at again and again."""
        self._seen_until = asyncio.get_running_loop().time() + _SEEN_FOR_S
        self._asked.set()

    async def wait_for(self, version: int, timeout_s: float) -> bool:
        """Waits for a state later than ``version``; whether there is one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.version > version)
        return self.version > version

    async def states(self, *, quiet_s: float) -> AsyncGenerator[list[dict[str, Any]] | None, None]:
        """Each new state; None after ``quiet_s`` seconds without one."""
        version = 0
        while True:
            self.touch()
            if await self.wait_for(version, quiet_s):
                version = self.version
                yield self.state
            else:
                yield None

    async def _keep(self) -> None:
        while True:
            more = await asyncio.to_thread(self._look)
            state = await asyncio.to_thread(lambda: [_state_of(book) for book in self.books])
            if state != self.state:
                async with self._changed:
                    self.state, self.version = state, self.version + 1
                    self._changed.notify_all()
            if more:
                continue
            if asyncio.get_running_loop().time() > self._seen_until:
                self._asked.clear()
                await self._asked.wait()
            else:
                await asyncio.sleep(_LOOK_EVERY_S)

    def _look(self) -> bool:
        more = False
        for book in self.books:
            book.refresh()
            more = book.advance() or more
        return more


def _state_of(book: Book) -> dict[str, Any]:
    """How a run stands: counts of its rows, how far they are read, and what the run or its summary tells."""
    columns = book.columns
    failures = {kind: count for kind, count in zip(KINDS, columns.by_kind, strict=True) if count}
    summary = read_summary(book.files.summary) if book.files.summary else None
    live = ask_live(book.files.results, wait_s=_LIVE_S) if book.running else None
    return {
        "name": book.name,
        "generation": book.generation,
        "rows": columns.count,
        "odd": columns.odd,
        "read_bytes": book.read_bytes,
        "size_bytes": book.size_bytes,
        "answered": failures.pop(KINDS[ANSWERED], 0),
        "failures": failures,
        "running": book.running,
        "trouble": book.trouble,
        "counted_bytes": book.counted_bytes,
        **_figures(book),
        "live": None if live is None else live_object(live),
        "summary": _summary(summary),
    }


def _figures(book: Book) -> dict[str, Any]:
    """What the figures add to the counts of rows."""
    status = book.fold.status()
    usage = status.usage
    known = usage.input_tokens is not None or usage.output_tokens is not None
    return {
        "tokens": [usage.input_tokens or 0, usage.output_tokens or 0] if known else None,
        "cost_usd": status.cost_usd,
        "rate_per_s": status.rate_per_s,
    }


def _summary(summary: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of the latest run's summary."""
    if summary is None:
        return None
    shown = ("reason", "message", "exit_code", "total", "pending", "started_at", "finished_at", "cost_usd", "usage")
    found = {key: summary.get(key) for key in shown}
    settings = summary.get("settings")
    found["rate"] = settings.get("rate") if isinstance(settings, dict) else None
    plain = msgspec.to_builtins(found)
    return plain if isinstance(plain, dict) else None
