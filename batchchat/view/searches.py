"""Searches that the page has asked for, each going on only while it is asked: nothing runs for who has left."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import msgspec

from batchchat.view.book import Book
from batchchat.view.search import Filter, Search

__all__ = ["Page", "Searches"]

_MOST_KEPT = 4


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the rows that match.

    Attributes:
        rows: Numbers of rows, from the offset that was asked for.
        matched: Rows that match, as far as is known.
        looked_at: Rows that have been judged, of ``total``.
    """

    rows: list[int]
    matched: int
    looked_at: int
    total: int
    complete: bool
    generation: int


class Searches:
    """The latest few searches in a book; each is used by one thread at a time."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._kept: OrderedDict[tuple[int, Filter], tuple[Search, threading.Lock]] = OrderedDict()

    async def page(self, wanted: Filter, offset: int, limit: int, *, wait_s: float) -> Page:
        """Rows ``offset`` to ``offset + limit`` of those that match, as far as found within ``wait_s`` seconds.

        Raises:
            StaleError: The file was replaced while it was read.
            ResultsFileError: It cannot be read.
        """
        generation = self._book.generation
        search, lock = self._search(wanted)
        give_up = time.monotonic() + wait_s
        while not search.complete:
            await asyncio.to_thread(_advance, search, lock)
            if time.monotonic() >= give_up:
                break
        rows = await asyncio.to_thread(_slice, search, lock, offset, limit)
        return Page(
            rows=rows,
            matched=search.matched,
            looked_at=search.columns.count if search.complete else search.looked_at,
            total=search.columns.count,
            complete=search.complete,
            generation=generation,
        )

    async def flags(self, wanted: Filter, *, wait_s: float) -> tuple[bytearray, bool]:
        """For each row, whether it is known to match, and whether all have been judged; raises as ``page``."""
        page = await self.page(wanted, 0, 0, wait_s=wait_s)
        search, lock = self._search(wanted)
        return await asyncio.to_thread(_flags, search, lock), page.complete

    async def all_rows(self, wanted: Filter) -> Sequence[int]:
        """Every row that matches now; takes as long as it takes.

        Raises:
            StaleError: The file was replaced while it was read.
            ResultsFileError: It cannot be read.
        """
        search, lock = self._search(wanted)
        while not search.complete:
            await asyncio.to_thread(_advance, search, lock)
        return await asyncio.to_thread(_slice, search, lock, 0, search.columns.count)

    def _search(self, wanted: Filter) -> tuple[Search, threading.Lock]:
        key = (self._book.generation, wanted)
        found = self._kept.pop(key, None)
        if found is None:
            found = Search(self._book.columns, self._book.contents, wanted), threading.Lock()
        self._kept[key] = found
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return found


def _advance(search: Search, lock: threading.Lock) -> None:
    with lock:
        search.advance()


def _slice(search: Search, lock: threading.Lock, offset: int, limit: int) -> list[int]:
    with lock:
        rows = search.rows()
        return list(_from(rows, offset, limit))


def _flags(search: Search, lock: threading.Lock) -> bytearray:
    with lock:
        flags = bytearray(search.columns.count)
        for row in search.found:
            flags[row] = 1
        return flags


def _from(rows: Sequence[int], offset: int, limit: int) -> Iterator[int]:
    yield from rows[offset : offset + limit]
