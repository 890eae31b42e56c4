"""What a results file holds and what is left to do, read without disturbing a run that writes it."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from batchchat.budget import Budget, Spent
from batchchat.compress import compression_of
from batchchat.errors import ConfigError, ResultsFileError
from batchchat.ids import IdTable
from batchchat.prices import PriceList
from batchchat.records import InputFault, Prompt, Usage
from batchchat.results.codec import Damage, find_damage, iter_decoded
from batchchat.results.figures import AnswerFigures, figures_of, read_figures
from batchchat.results.files import RunFiles
from batchchat.results.lock import Holder, is_locked, read_holder
from batchchat.results.scan import RawLine, iter_raw_lines, judge
from batchchat.results.stored import outcome_from_object
from batchchat.results.summary import read_summary

__all__ = ["RunStatus", "read_answered", "read_status"]

# What a line without a time that can be read has.
_NEVER = datetime.fromtimestamp(0, UTC)


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one results file and the errors file beside it.

    Where the input is given, ``total`` = ``completed`` + ``failed`` + ``pending``; else these two count ids.

    Attributes:
        total: Prompts and faulty lines of the input; None where no input is given.
        completed: Answered prompts.
        failed: Prompts that failed in the latest run and have no answer.
        pending: The rest; None where no input is given.
        unknown_ids: Answers whose id is not in the input; None where no input is given.
        duplicate_ids: Lines whose id another line before them has; 0 in every file that a run has mended.
        torn_lines: Lines and stretches that the next run will move to the torn file.
        failures: Failed prompts by error type, the most frequent first.
        usage: Sum over all answers that tell of it.
        estimated_answers: Answers any part of whose usage is an estimate.
        answers_without_usage: Answers that tell of none; they are in no cost.
        cost_usd: US dollars for ``usage``; None where no prices are asked for, or a model has none.
        unpriced: Models without a price, the empty name where none is told; each with its number of answers.
        price_sources: Where the prices come from.
        rate_per_s: Answers a second of the latest run, from its start to its last answer; where no summary tells of it,
            between the first and the last one; None where there are fewer than two.
        first_finished_at: UTC.
        last_finished_at: UTC.
        running: The run that holds the file now, its fields None where the summary does not tell; None for no run.
    """

    results: str
    total: int | None
    completed: int
    failed: int
    pending: int | None
    unknown_ids: int | None
    duplicate_ids: int
    torn_lines: int
    failures: dict[str, int]
    usage: Usage
    estimated_answers: int
    answers_without_usage: int
    cost_usd: float | None
    unpriced: dict[str, int]
    price_sources: tuple[str, ...]
    rate_per_s: float | None
    first_finished_at: datetime | None
    last_finished_at: datetime | None
    running: Holder | None


def read_status(
    files: RunFiles,
    prompts: Iterable[Prompt | InputFault] | None = None,
    *,
    prices: PriceList | None = None,
    model: str | None = None,
) -> RunStatus:
    """Reads results and errors once, and the input if there is one; a run that goes on meanwhile is not disturbed.

    Args:
        files: By ``name_files``.
        prompts: The whole input.
        prices: What tokens cost; None to count no cost.
        model: The model that was asked for where a prompt named none, None where that is not known.

    Raises:
        ConfigError: Results that went to a stream leave nothing to read.
        ResultsFileError: There is no such file, or it is no results file.
        PromptFileError: The input cannot be read.
    """
    if files.stream:
        raise ConfigError(f"{files.results} is no file; expected the path of a results file")
    # Asked before reading: lines that a run adds later are whole or the last.
    locked = is_locked(files.results)
    answers = _Answers(running=locked, prices=prices, model=model, began=_latest_start(files.summary))
    for line in _read_lines(files.results, files.results):
        answers.add(line, files.results)
    failures = _read_failures(files, answers.ids)
    cost = answers.spent.cost_usd
    total = completed = failed = None
    if prompts is not None:
        total, completed, failed = _compare(prompts, answers.ids, failures.ids)
    return RunStatus(
        results=files.results,
        total=total,
        completed=len(answers.ids) if completed is None else completed,
        failed=len(failures.ids) if failed is None else failed,
        pending=None if total is None or completed is None or failed is None else total - completed - failed,
        unknown_ids=None if completed is None else len(answers.ids) - completed,
        duplicate_ids=answers.duplicates,
        torn_lines=answers.torn,
        failures=dict(sorted(failures.by_type.items(), key=lambda pair: -pair[1])),
        usage=answers.spent.usage,
        estimated_answers=answers.spent.estimated_requests,
        answers_without_usage=answers.without_usage,
        cost_usd=None if prices is None or cost is None else round(float(cost), 10),
        unpriced={} if prices is None else dict(answers.spent.unpriced),
        price_sources=() if prices is None else prices.sources,
        rate_per_s=answers.rate_per_s(),
        first_finished_at=answers.first,
        last_finished_at=answers.last,
        running=(read_holder(files.summary) or Holder()) if locked else None,
    )


def read_answered(files: RunFiles) -> IdTable:
    """Ids of the answers that a results file holds; a run that goes on meanwhile is not disturbed.

    Raises:
        ResultsFileError: There is no such file, or it is no results file.
    """
    answers = _Answers(running=is_locked(files.results))
    for line in _read_lines(files.results, files.results):
        answers.add(line, files.results)
    return answers.ids


class _Answers:
    """Adds up the lines of a results file."""

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
        self._prices, self._model = PriceList(library=False) if prices is None else prices, model
        self._spending = Budget()
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._running, self._began = running, began
        self._lately = 0

    def add(self, line: RawLine | Damage, path: str) -> None:
        """Counts one line.

        Raises:
            ResultsFileError: It is JSON, but no result.
        """
        if isinstance(line, Damage):
            self.torn += not (self._running and line.kind == "cut")
            return
        if line.ended and (figures := read_figures(line.data)) is not None:
            self._add_answer(figures)
            return
        judged = judge(line)
        if judged.kind == "foreign":
            raise ResultsFileError(
                f"{path}:{line.number}: expected a result with id and response, found something else"
            )
        if judged.kind == "answer":
            self._add_answer(figures_of(outcome_from_object(judged.obj or {})))
        elif judged.kind != "blank" and (line.ended or not self._running):
            self.torn += 1

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

    def _add_answer(self, answer: AnswerFigures) -> None:
        if not self.ids.add(answer.id):
            self.duplicates += 1
            return
        if not answer.reused:
            self._add_cost(answer)
        at = answer.finished_at
        if at > _NEVER:
            self.first = at if self.first is None or at < self.first else self.first
            self.last = at if self.last is None or at > self.last else self.last
            self._lately += self._began is not None and at >= self._began

    def _add_cost(self, answer: AnswerFigures) -> None:
        if answer.usage is None:
            self.without_usage += 1
            return
        # The job's model is asked for where neither the line nor its variant names one.
        models = [name for name in (*answer.asked, self._model, answer.model) if name]
        self._spending.spend(answer.usage, self._prices.first_price(models or [None]), next(iter(models), None))


class _Failures:
    """Adds up the lines of an errors file, without those whose prompts have an answer by now."""

    def __init__(self) -> None:
        self.ids = IdTable()
        self.by_type: dict[str, int] = {}

    def add(self, line: RawLine | Damage, answered: IdTable) -> None:
        """Counts one line; what is no failure is passed over."""
        judged = None if isinstance(line, Damage) else judge(line)
        if judged is None or judged.kind != "failure" or judged.obj is None:
            return
        outcome = outcome_from_object(judged.obj)
        if outcome.error is not None and outcome.id not in answered and self.ids.add(outcome.id):
            self.by_type[outcome.error.type] = self.by_type.get(outcome.error.type, 0) + 1


def _latest_start(summary: str | None) -> datetime | None:
    """When the latest run began, as its summary tells."""
    started = (read_summary(summary) or {}).get("started_at") if summary is not None else None
    try:
        at = datetime.fromisoformat(started) if isinstance(started, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def _read_failures(files: RunFiles, answered: IdTable) -> _Failures:
    """Failures of the latest run: while it goes on, and after a crash, they are in the part file."""
    failures = _Failures()
    path = files.errors
    if path is None:
        return failures
    part = f"{path}.part"
    with contextlib.suppress(ResultsFileError):
        for line in _read_lines(part if os.path.exists(part) else path, path):
            failures.add(line, answered)
    return failures


def _compare(prompts: Iterable[Prompt | InputFault], answered: IdTable, failed: IdTable) -> tuple[int, int, int]:
    """Prompts of the input: all, those with an answer, those that failed."""
    total = with_answer = with_failure = 0
    for prompt in prompts:
        total += 1
        if prompt.id in answered:
            with_answer += 1
        elif prompt.id in failed:
            with_failure += 1
    return total, with_answer, with_failure


def _read_lines(path: str, name: str) -> Iterator[RawLine | Damage]:
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
