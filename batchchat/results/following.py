"""Counts of a results file that are kept up to date: what was read once is not read again."""

import contextlib
import os
import time
from collections.abc import Iterator

from batchchat.compress import compression_of
from batchchat.errors import ResultsFileError
from batchchat.prices import PriceList
from batchchat.results.codec import Damage, iter_decoded
from batchchat.results.counting import AnswerCounts, FailureCounts
from batchchat.results.files import RunFiles
from batchchat.results.lock import Holder, is_locked, read_holder
from batchchat.results.scan import RawLine, iter_raw_lines
from batchchat.results.status import RunStatus, build_status, read_start, read_status

__all__ = ["FollowedStatus"]

# A compressed file is read anew as a whole, but takes no more than this share of the time.
_SHARE = 0.1


class FollowedStatus:
    """``read_status`` for those who ask again and again while a run writes the file; no input is compared.

    Of a plain file only what was added since is read. One that was replaced, or became shorter, is read anew. It costs
    the ids, some 32 bytes for each.

    Args:
        files: By ``name_files``.
        prices, model: See ``read_status``.
    """

    def __init__(self, files: RunFiles, *, prices: PriceList | None = None, model: str | None = None) -> None:
        self._files, self._prices, self._model = files, prices, model
        self._whole: RunStatus | None = None
        self._next_at = 0.0
        self._begin()

    def _begin(self) -> None:
        began = read_start(self._files.summary)
        self._answers = AnswerCounts(running=True, prices=self._prices, model=self._model, began=began)
        self._failures = FailureCounts()
        self._results_end, self._errors_end = _Place(), _Place()

    def read(self) -> RunStatus:
        """The counts as of now.

        Raises:
            ConfigError: Results that went to a stream leave nothing to read.
            ResultsFileError: There is no such file, or it is no results file.
        """
        files = self._files
        if files.stream or compression_of(files.results) is not None:
            return self._read_whole()
        if self._results_end.is_gone(files.results):
            self._begin()
        for line in self._results_end.new_lines(files.results):
            self._answers.add(line, files.results)
        self._read_errors()
        running = (read_holder(files.summary) or Holder()) if is_locked(files.results) else None
        return build_status(files, self._answers, self._failures, running=running)

    def _read_errors(self) -> None:
        # Looked up by its name once more where it has gone: at the end of a run, the part file gets the other name.
        for last in (False, True):
            errors = self._files.latest_errors
            if errors is None:
                return
            if self._errors_end.is_gone(errors):
                if not (last or os.path.exists(errors)):
                    continue
                self._failures, self._errors_end = FailureCounts(), _Place()
            with contextlib.suppress(ResultsFileError):
                for line in self._errors_end.new_lines(errors):
                    self._failures.add(line, self._answers.ids)
                return

    def _read_whole(self) -> RunStatus:
        began = time.monotonic()
        if self._whole is None or began >= self._next_at:
            self._whole = read_status(self._files, prices=self._prices, model=self._model)
            ended = time.monotonic()
            self._next_at = ended + (ended - began) / _SHARE
        return self._whole


class _Place:
    """How far a file has been read: behind the last line that is whole."""

    def __init__(self) -> None:
        self._offset = self._lines = 0
        self._file: tuple[int, int] | None = None

    def is_gone(self, path: str) -> bool:
        """Whether what has been read is no longer there."""
        if self._file is None:
            return False
        try:
            found = os.stat(path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._file or found.st_size < self._offset

    def new_lines(self, path: str) -> Iterator[RawLine]:
        """Lines that are whole by now and were not before.

        Raises:
            ResultsFileError: The file cannot be read.
        """
        try:
            with open(path, "rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                self._file = found.st_dev, found.st_ino
                pieces = iter_decoded(file.fileno(), None, start=self._offset, end=found.st_size)
                first_line, first_byte = self._lines, self._offset
                for line in iter_raw_lines(pieces):
                    if isinstance(line, Damage) or not line.ended:
                        return
                    self._lines, self._offset = first_line + line.number, first_byte + line.start + len(line.data) + 1
                    yield line._replace(number=self._lines, start=first_byte + line.start)
        except FileNotFoundError as error:
            raise ResultsFileError(f"{path}: there is no such results file") from error
        except OSError as error:
            raise ResultsFileError(f"{path}: the results file cannot be read: {error.strerror}") from error
