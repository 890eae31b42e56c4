"""One run's files as a table that grows: what is in them, read in slices, for one thread at a time."""

import contextlib
import os
import threading
import time
from collections.abc import Callable

from batchchat.errors import ResultsFileError
from batchchat.insight.fold import RunFold
from batchchat.prices import PriceList
from batchchat.results.files import RunFiles
from batchchat.results.lock import is_locked
from batchchat.results.scan import RawLine
from batchchat.view.columns import Columns, Source
from batchchat.view.content import Content, StaleError

__all__ = ["Book"]

_PIECE_BYTES = 1 << 20
_SLICE_S = 0.1
_MOST_LINE_BYTES = 1 << 30


class Book:
    """Rows of a run's results and errors file.

    Args:
        files: By ``name_files``.
        prices: What tokens cost; None to count no cost.
        model: The model that was asked for where a prompt named none, None where that is not known.
        name: What the user calls the results, where that is not their path.

    Attributes:
        columns: The table; another one from each ``generation`` on.
        fold: The figures, which follow the table; another one from each ``generation`` on.
        generation: Changes when rows that were known no longer hold: a file was cut or replaced.
        running: Whether a run held the results file when it was looked at last.
        trouble: Why a file cannot be read now; empty for none.
        lock: Held while figures change; for whoever reads ``fold`` from another thread.
    """

    def __init__(
        self, files: RunFiles, *, prices: PriceList | None = None, model: str | None = None, name: str | None = None
    ) -> None:
        self.files, self.name = files, name or files.results
        self._prices, self._model = prices, model
        self.lock = threading.Lock()
        self.generation, self.running, self.trouble = 1, False, ""
        errors = files.errors or os.devnull
        self.contents = (Content(files.results), Content(errors, errors))
        self._begin()

    def close(self) -> None:
        """Gives temporary files back."""
        for content in self.contents:
            content.close()

    def check(self) -> None:
        """Sees that there is something to show.

        Raises:
            ResultsFileError: There is no such file, or it cannot be read.
        """
        if not os.path.exists(self.files.results):
            raise ResultsFileError(f"{self.files.results}: there is no such results file")
        if os.path.isdir(self.files.results):
            raise ResultsFileError(f"{self.files.results} is a folder, expected a results file")
        self.contents[0].refresh()

    @property
    def size_bytes(self) -> int:
        """Bytes of content that are known."""
        return sum(content.size for content in self.contents)

    @property
    def read_bytes(self) -> int:
        """Of these, how many have been read into the table."""
        return sum(cursor.position for cursor in self._cursors)

    @property
    def counted_bytes(self) -> int:
        """Of these, how many are in the figures."""
        return sum(cursor.position for cursor in self._counters)

    def refresh(self) -> None:
        """Looks at the files again; reads no line."""
        with self.lock:
            self._refresh()

    def _refresh(self) -> None:
        try:
            # Asked before the sizes: what a run adds later is whole or the last line.
            self.running = is_locked(self.files.results)
            errors = self.contents[1]
            errors.path = self.files.latest_errors or os.devnull
            whole = [content.refresh() for content in self.contents]
            if not all(whole):
                self.generation += 1
                self._begin()
            self.trouble = ""
        except ResultsFileError as error:
            self.trouble = str(error)

    def advance(self) -> bool:
        """Reads on for about a tenth of a second; whether there is more to read."""
        with self.lock:
            return self._advance(time.monotonic() + _SLICE_S)

    def _advance(self, give_up: float) -> bool:
        try:
            # The table first: people look at rows while the figures are counted.
            for cursor in (*self._cursors, *self._counters):
                while cursor.step(final=not self.running):
                    if time.monotonic() >= give_up:
                        return True
        except (StaleError, ResultsFileError) as error:
            self.trouble = str(error)
        return False

    def line(self, row: int) -> bytes:
        """The line of a row.

        Raises:
            StaleError: The file has been replaced.
            ResultsFileError: It cannot be read.
        """
        columns = self.columns
        return self.contents[columns.source[row]].read(columns.offset[row], columns.length[row])

    def _begin(self) -> None:
        self.columns = Columns()
        self.fold = RunFold(self.files, running=self.running, prices=self._prices, model=self._model)
        results, errors = self.contents
        self._cursors = [Cursor(results, _row_taker(self.columns, 0)), Cursor(errors, _row_taker(self.columns, 1))]
        adders = (self.fold.add_answer_line, self.fold.add_failure_line)
        self._counters = [Cursor(results, _counter(adders[0])), Cursor(errors, _counter(adders[1]))]


def _row_taker(columns: Columns, source: Source) -> Callable[[RawLine], None]:
    return lambda line: columns.add(source, line.start, line.data)


def _counter(add: Callable[[RawLine], bool]) -> Callable[[RawLine], None]:
    def take(line: RawLine) -> None:
        with contextlib.suppress(ResultsFileError):  # no result; the table tells how many there are
            add(line)

    return take


class Cursor:
    """Hands on the lines of a content one after another, as far as they are whole.

    Attributes:
        position: Bytes that have been handed on.
    """

    def __init__(self, content: Content, take: Callable[[RawLine], None]) -> None:
        self.position = 0
        self._content, self._take = content, take
        self._number = 1
        self._want = _PIECE_BYTES

    def step(self, *, final: bool) -> bool:
        """Hands on the lines of one piece; False where there is no more for now.

        Args:
            final: Nobody writes the file: a last line without a line end is whole.
        """
        left = self._content.size - self.position
        if left <= 0:
            return False
        data = self._content.read(self.position, min(self._want, left))
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) < left:
                self._want = min(self._want * 2, _MOST_LINE_BYTES)
                return True
            if not final:
                return False
            self._hand_on(data, ended=False)
            return False
        self._want = _PIECE_BYTES
        self._hand_on(data[:end], ended=True)
        return True

    def _hand_on(self, data: bytes, *, ended: bool) -> None:
        start, number, take = self.position, self._number, self._take
        lines = data.split(b"\n")
        if ended:
            lines.pop()
        for line in lines:
            take(RawLine(number, start, line, ended))
            number += 1
            start += len(line) + 1
        self._number, self.position = number, self.position + len(data)
