"""Filters and orders of the table: numbers from the columns, texts from the file, a slice at a time."""

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from batchchat.view.columns import ANSWERED, KINDS, Columns
from batchchat.view.content import Content
from batchchat.view.lines import own_keys, read_object, texts_of

__all__ = ["Filter", "Search", "SortKey"]

SortKey = Literal["file", "index", "latency", "attempts", "tokens", "finished", "kind", "length"]
_SLICE_S = 0.1
_CHUNK_ROWS = 2000
_CHUNK_BYTES = 4 << 20
# A sort that took long is not done again at every line that a run adds.
_REST_FACTOR = 10


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, in which order.

    Attributes:
        text: Contained in any text of the line, whatever its case.
        kind: ``answered``, ``failed`` or an error type; empty for all.
        min_latency_s, max_latency_s, min_attempts, max_attempts: Bounds, both included.
        field: Name of a field of the input, with dots for fields in fields; its text contains ``value``.
    """

    text: str = ""
    kind: str = ""
    min_latency_s: float | None = None
    max_latency_s: float | None = None
    min_attempts: int | None = None
    max_attempts: int | None = None
    field: str = ""
    value: str = ""
    sort: SortKey = "file"
    descending: bool = False

    @property
    def reads_lines(self) -> bool:
        """Whether lines must be read to judge them."""
        return bool(self.text or self.field)

    @property
    def lets_all_in(self) -> bool:
        """Whether every row matches."""
        bounds = (self.min_latency_s, self.max_latency_s, self.min_attempts, self.max_attempts)
        return not (self.reads_lines or self.kind) and bounds == (None,) * 4


class Search:
    """The rows that match one filter, found bit by bit; used by one thread at a time.

    Attributes:
        found: Matching rows in the order of the table.
        looked_at: Rows that have been judged.
    """

    def __init__(self, columns: Columns, contents: tuple[Content, Content], wanted: Filter) -> None:
        self.columns, self.wanted = columns, wanted
        self.found = array("I")
        self.looked_at = 0
        self._contents = contents
        self._text = _TextMatch(wanted) if wanted.reads_lines else None
        self._passes = _column_test(columns, wanted)
        self._ordered: Sequence[int] = array("I")
        self._ordered_count = -1
        self._rest_until = 0.0

    @property
    def complete(self) -> bool:
        """Whether every row there is has been judged."""
        return self.wanted.lets_all_in or self.looked_at >= self.columns.count

    @property
    def matched(self) -> int:
        """Rows found so far."""
        return self.columns.count if self.wanted.lets_all_in else len(self.found)

    def advance(self) -> None:
        """Goes on for about a tenth of a second.

        Raises:
            StaleError: The file was replaced.
            ResultsFileError: It cannot be read.
        """
        give_up = time.monotonic() + _SLICE_S
        while not self.complete and time.monotonic() < give_up:
            end = self._chunk_end()
            rows: Iterator[int] = iter(range(self.looked_at, end))
            if self._passes is not None:
                rows = filter(self._passes, rows)
            if self._text is not None:
                rows = self._matching(list(rows))
            self.found.extend(rows)
            self.looked_at = end

    def rows(self) -> Sequence[int]:
        """Rows found so far in the order that is wanted."""
        wanted, count = self.wanted, self.matched
        base: Sequence[int] = range(count) if wanted.lets_all_in else self.found
        if wanted.sort == "file":
            return base[::-1] if wanted.descending else base
        if count != self._ordered_count and time.monotonic() >= self._rest_until:
            began = time.monotonic()
            key = _sort_column(self.columns, wanted.sort)
            self._ordered = array("I", sorted(base[:count], key=key.__getitem__, reverse=wanted.descending))
            self._ordered_count = count
            took_s = time.monotonic() - began
            self._rest_until = time.monotonic() + (took_s * _REST_FACTOR if took_s > 0.05 else 0)
        return self._ordered

    def _chunk_end(self) -> int:
        """End of the next rows to judge: a bounded number of bytes where lines are read, one row at least."""
        columns, begin = self.columns, self.looked_at
        end = min(columns.count, begin + _CHUNK_ROWS)
        if self._text is None:
            return min(columns.count, begin + 10 * _CHUNK_ROWS)
        left = _CHUNK_BYTES
        for row in range(begin, end):
            left -= columns.length[row]
            if left < 0:
                return row + 1
        return end

    def _matching(self, rows: list[int]) -> Iterator[int]:
        """Of these rows, those whose line matches; lines that follow each other are read at once."""
        columns = self.columns
        position = 0
        while position < len(rows):
            first = rows[position]
            source, start = columns.source[first], columns.offset[first]
            until = position
            end = start
            while until < len(rows) and columns.source[rows[until]] == source:
                row = rows[until]
                if until > position and columns.offset[row] > end + 65536:
                    break
                end = columns.offset[row] + columns.length[row]
                until += 1
            block = self._contents[source].read(start, end - start)
            yield from self._in_block(block, start, rows[position:until])
            position = until

    def _in_block(self, block: bytes, start: int, rows: list[int]) -> Iterator[int]:
        assert self._text is not None
        for row in rows:
            at = self.columns.offset[row] - start
            if self._text.fits(block[at : at + self.columns.length[row]]):
                yield row


class _TextMatch:
    """Judges a line's texts; what cannot contain them is told by its bytes, without reading it as JSON."""

    def __init__(self, wanted: Filter) -> None:
        self._text = wanted.text.casefold()
        self._value = wanted.value.casefold() if wanted.field else ""
        self._path = wanted.field.split(".") if wanted.field else []
        needles = [text for text in (self._text, self._value) if text and _stands_for_itself(text)]
        self._needles = [text.encode() for text in needles]

    def fits(self, line: bytes) -> bool:
        """Whether the line is one of those that are looked for."""
        if self._needles:
            lowered = line.lower()
            if not all(needle in lowered for needle in self._needles):
                return False
        obj = read_object(line)
        if self._text and not _contains(obj, self._text):
            return False
        return not self._path or self._field_fits(obj)

    def _field_fits(self, obj: dict[str, Any]) -> bool:
        value = own_keys(obj).get("input")
        for name in self._path:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        if isinstance(value, bool):
            return self._value in ("true" if value else "false")
        return not self._value or _contains(value, self._value)


def _stands_for_itself(text: str) -> bool:
    """Whether a text is in the bytes of every line that contains it: nothing of it is ever escaped or folded."""
    return text.isascii() and text.isprintable() and not set(text) & set('"\\/&<>')


def _contains(value: Any, folded: str) -> bool:
    return any(folded in text.casefold() for text in texts_of(value))


def _column_test(columns: Columns, wanted: Filter) -> Callable[[int], bool] | None:
    """What tells from the columns whether a row can match; None where it always can."""
    tests: list[Callable[[int], bool]] = []
    kinds, latency, attempts = columns.kind, columns.latency_s, columns.attempts
    if wanted.kind == "failed":
        tests.append(lambda row: kinds[row] != ANSWERED)
    elif wanted.kind:
        code = KINDS.index(wanted.kind)
        tests.append(lambda row: kinds[row] == code)
    if (least_s := wanted.min_latency_s) is not None:
        tests.append(lambda row: latency[row] >= least_s)
    if (most_s := wanted.max_latency_s) is not None:
        tests.append(lambda row: 0 <= latency[row] <= most_s)
    if (least := wanted.min_attempts) is not None:
        tests.append(lambda row: attempts[row] >= least)
    if (most := wanted.max_attempts) is not None:
        tests.append(lambda row: attempts[row] <= most)
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda row: all(test(row) for test in tests)


def _sort_column(columns: Columns, key: SortKey) -> Sequence[Any]:
    named: dict[str, Sequence[Any]] = {
        "index": columns.index,
        "latency": columns.latency_s,
        "attempts": columns.attempts,
        "tokens": columns.tokens,
        "finished": columns.finished,
        "kind": columns.kind,
        "length": columns.length,
    }
    return named[key]
