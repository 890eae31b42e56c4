"""What the page asks for, worked out: rows of the table, one prompt as a whole, pairs of two runs."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from batchchat.errors import ConfigError
from batchchat.view.book import Book
from batchchat.view.columns import KINDS
from batchchat.view.compare import NONE, VERDICTS, Comparison
from batchchat.view.lines import own_keys, preview, read_object, whole
from batchchat.view.search import Filter
from batchchat.view.searches import Searches

__all__ = ["MOST_ROWS", "Answers", "read_filter"]

MOST_ROWS = 500
_WAIT_S = 0.5
# Of a longer line, the table shows no text: a screenful of rows must not read gigabytes.
_MOST_PREVIEWED_BYTES = 1 << 20
_FIELD_LINES = 100
_MOST_FIELDS = 200
_REST_FACTOR = 10


def read_filter(query: Mapping[str, str]) -> Filter:
    """The filter of a request's parameters.

    Raises:
        ConfigError: A parameter is not what it should be.
    """
    names = {field.name for field in msgspec.structs.fields(Filter)}
    given = {name: value for name, value in query.items() if name in names and value != ""}
    try:
        wanted = msgspec.convert(given, Filter, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the filter cannot be read: {error}") from error
    if wanted.kind not in ("", "failed", *KINDS):
        raise ConfigError(f"kind: found {wanted.kind!r}, expected answered, failed or an error type")
    return wanted


class Answers:
    """Answers to the page's questions; everything that reads files does so in a thread."""

    def __init__(self, books: Sequence[Book]) -> None:
        self.books = books
        self._searches = [Searches(book) for book in books]
        self._comparison: Comparison | None = None
        self._compared: tuple[int, ...] = ()
        self._rest_until = 0.0
        self._comparing = asyncio.Lock()

    async def rows(self, number: int, wanted: Filter, offset: int, limit: int) -> dict[str, Any]:
        """A page of the table of book ``number``.

        Raises:
            StaleError: The file was replaced while it was read.
            ResultsFileError: It cannot be read.
        """
        page = await self._searches[number].page(wanted, offset, min(limit, MOST_ROWS), wait_s=_WAIT_S)
        book = self.books[number]
        shown = await asyncio.to_thread(lambda: [_row(book, row) for row in page.rows])
        return {**msgspec.structs.asdict(page), "rows": shown}

    async def all_rows(self, number: int, wanted: Filter) -> Sequence[int]:
        """Every row of book ``number`` that matches; raises as ``rows``."""
        return await self._searches[number].all_rows(wanted)

    async def detail(self, number: int, row: int) -> dict[str, Any] | None:
        """Everything about one row, None where there is no such row; raises as ``rows``."""
        book = self.books[number]
        if not 0 <= row < book.columns.count:
            return None
        data = await asyncio.to_thread(book.line, row)
        shown = await asyncio.to_thread(whole, data)
        return {"row": row, "generation": book.generation, "bytes": len(data), **_figures(book, row), **shown}

    async def fields(self, number: int) -> list[str]:
        """Names of the input's fields, as the first rows have them; raises as ``rows``."""
        book = self.books[number]
        return await asyncio.to_thread(_fields, book)

    async def pairs(self, verdicts: frozenset[str], text: str, offset: int, limit: int) -> dict[str, Any]:
        """A page of the comparison, of pairs in one of whose lines ``text`` is; raises as ``rows``."""
        async with self._comparing:
            comparison, generations = await self._current_comparison()
        flags, complete = None, True
        if text:
            left, right = [await each.flags(Filter(text=text), wait_s=_WAIT_S / 2) for each in self._searches]
            flags, complete = (left[0], right[0]), left[1] and right[1]
        limit = min(limit, MOST_ROWS)

        def page() -> dict[str, Any]:
            chosen = comparison.chosen(verdicts, flags)
            return {
                "rows": [self._pair(comparison, at) for at in chosen[offset : offset + limit]],
                "matched": len(chosen),
                "total": len(comparison.verdict),
                "counts": comparison.counts,
                "complete": complete,
                "generation": list(generations),
            }

        return await asyncio.to_thread(page)

    async def _current_comparison(self) -> tuple[Comparison, tuple[int, ...]]:
        key = tuple(n for book in self.books for n in (book.generation, book.columns.count))
        began = time.monotonic()
        old = self._comparison is None or key[::2] != self._compared[::2]
        if old or (key != self._compared and began >= self._rest_until):
            tables = [book.columns for book in self.books]
            self._comparison = await asyncio.to_thread(lambda: Comparison(tables[0], tables[1]))
            self._compared = key
            self._rest_until = time.monotonic() + _REST_FACTOR * (time.monotonic() - began)
        if self._comparison is None:
            raise RuntimeError("a comparison was made and is gone")
        return self._comparison, key[::2]

    def _pair(self, comparison: Comparison, at: int) -> dict[str, Any]:
        rows = (comparison.left[at], comparison.right[at])
        sides = [None if row == NONE else _row(book, row) for book, row in zip(self.books, rows, strict=True)]
        return {"left": sides[0], "right": sides[1], "verdict": VERDICTS[comparison.verdict[at]]}


def _row(book: Book, row: int) -> dict[str, Any]:
    columns = book.columns
    if columns.length[row] > _MOST_PREVIEWED_BYTES:
        size = f"{columns.length[row] / 1e6:,.1f} MB: open it to see it"
        shown: dict[str, Any] = {"id": "", "prompt": "", "response": size, "model": ""}
    else:
        shown = preview(book.line(row))
    return {"row": row, **shown, **_figures(book, row)}


def _figures(book: Book, row: int) -> dict[str, Any]:
    columns = book.columns
    latency_s = columns.latency_s[row]
    return {
        "index": columns.index[row],
        "kind": KINDS[columns.kind[row]],
        "attempts": columns.attempts[row],
        "latency_s": None if latency_s < 0 else latency_s,
        "tokens": columns.tokens[row] or None,
        "finished_ms": columns.finished[row] or None,
    }


def _fields(book: Book) -> list[str]:
    names: dict[str, None] = {}
    for row in range(min(_FIELD_LINES, book.columns.count)):
        if book.columns.length[row] > _MOST_PREVIEWED_BYTES:
            continue
        given = own_keys(read_object(book.line(row))).get("input")
        if isinstance(given, dict):
            names |= dict.fromkeys(str(name)[:100] for name in given)
    return list(names)[:_MOST_FIELDS]
