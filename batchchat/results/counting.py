"""Counts of a results file and its errors file, line by line: what ``status`` tells and what figures are made of."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from batchchat.budget import Budget, Spent
from batchchat.compress import compression_of
from batchchat.errors import ResultsFileError
from batchchat.ids import IdTable
from batchchat.prices import PriceList
from batchchat.records import Outcome
from batchchat.results.codec import Damage, find_damage, iter_decoded
from batchchat.results.figures import AnswerFigures, figures_of, read_figures
from batchchat.results.files import RunFiles
from batchchat.results.scan import RawLine, iter_raw_lines, judge
from batchchat.results.stored import outcome_from_object

__all__ = ["AnswerCounts", "FailureCounts", "read_failure_lines", "read_lines"]

# What a line without a time that can be read has.
_NEVER = datetime.fromtimestamp(0, UTC)


class AnswerCounts:
    """Adds up the lines of a results file; further lines may come at any time.

    Args:
        running: Whether a run writes the file: a last line that is not whole is no damage then.
        prices: What tokens cost; None to count no cost.
        model: The model that was asked for where a prompt named none, None where that is not known.
        began: When the latest run began, None where that is not known.
    """

    def __init__(
        self,
        *,
        running: bool,
        prices: PriceList | None = None,
        model: str | None = None,
        began: datetime | None = None,
    ) -> None:
        self.ids = IdTable()
        self.duplicates = self.torn = self.without_usage = 0
        self.prices = prices
        self._prices, self._model = PriceList(library=False) if prices is None else prices, model
        self._spending = Budget()
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._running, self._began = running, began
        self._lately = 0

    def add(self, line: RawLine | Damage, path: str) -> AnswerFigures | None:
        """Counts one line.

        Returns:
            What was counted; None for a line that is no answer, or another one for the same id.

        Raises:
            ResultsFileError: It is JSON, but no result.
        """
        if isinstance(line, Damage):
            self.torn += not (self._running and line.kind == "cut")
            return None
        if line.ended and (figures := read_figures(line.data)) is not None:
            return self._add_answer(figures)
        judged = judge(line)
        if judged.kind == "foreign":
            raise ResultsFileError(
                f"{path}:{line.number}: expected a result with id and response, found something else"
            )
        if judged.kind == "answer":
            return self._add_answer(figures_of(outcome_from_object(judged.obj or {})))
        if judged.kind != "blank" and (line.ended or not self._running):
            self.torn += 1
        return None

    @property
    def spent(self) -> Spent:
        """What the answers cost."""
        return self._spending.spent

    def rate_per_s(self) -> float | None:
        """Answers a second of the latest run; without its start, from the first to the last."""
        if self._began is not None and self._lately and self.last is not None and self.last > self._began:
            return self._lately / (self.last - self._began).total_seconds()
        if self.first is None or self.last is None or self.last <= self.first:
            return None
        return (len(self.ids) - 1) / (self.last - self.first).total_seconds()

    def _add_answer(self, answer: AnswerFigures) -> AnswerFigures | None:
        if not self.ids.add(answer.id):
            self.duplicates += 1
            return None
        if not answer.reused:
            self._add_cost(answer)
        at = answer.finished_at
        if at > _NEVER:
            self.first = at if self.first is None or at < self.first else self.first
            self.last = at if self.last is None or at > self.last else self.last
            self._lately += self._began is not None and at >= self._began
        return answer

    def _add_cost(self, answer: AnswerFigures) -> None:
        if answer.usage is None:
            self.without_usage += 1
            return
        # The job's model is asked for where neither the line nor its variant names one.
        models = [name for name in (*answer.asked, self._model, answer.model) if name]
        self._spending.spend(answer.usage, self._prices.first_price(models or [None]), next(iter(models), None))


class FailureCounts:
    """Adds up the lines of an errors file, without those whose prompts have an answer by now."""

    def __init__(self) -> None:
        self.ids = IdTable()
        self.by_type: dict[str, int] = {}

    def add(self, line: RawLine | Damage, answered: IdTable) -> Outcome | None:
        """Counts one line; what is no failure is passed over.

        Returns:
            The failure that was counted; None for any other line.
        """
        judged = None if isinstance(line, Damage) else judge(line)
        if judged is None or judged.kind != "failure" or judged.obj is None:
            return None
        outcome = outcome_from_object(judged.obj)
        if outcome.error is None or outcome.id in answered or not self.ids.add(outcome.id):
            return None
        self.by_type[outcome.error.type] = self.by_type.get(outcome.error.type, 0) + 1
        return outcome


def read_failure_lines(files: RunFiles) -> Iterator[RawLine | Damage]:
    """Lines of the latest run's errors file."""
    for _ in range(2):  # at the end of a run, the part file may get the other name between the look and the reading
        path = files.latest_errors
        if path is None or files.errors is None:
            return
        try:
            yield from read_lines(path, files.errors)
        except ResultsFileError:
            if not os.path.exists(path):
                continue
        return


def read_lines(path: str, name: str) -> Iterator[RawLine | Damage]:
    """Lines up to where the file ends now.

    Args:
        name: Tells by its ending how the content is compressed.

    Raises:
        ResultsFileError: It cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise ResultsFileError(f"{path}: there is no such results file") from error
    except OSError as error:
        raise ResultsFileError(f"{path}: the results file cannot be read: {error.strerror}") from error
    try:
        end, kind = os.fstat(fd).st_size, compression_of(name)
        damage = find_damage(fd, kind, end=end)
        yield from iter_raw_lines(iter_decoded(fd, kind, end=end, damage=damage))
    except OSError as error:
        raise ResultsFileError(f"{path}: the results file cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
