"""What a results file holds and what is left to do, read without disturbing a run that writes it."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from batchchat.ids import IdTable
from batchchat.prices import PriceList
from batchchat.records import InputFault, Prompt, Usage
from batchchat.results.counting import AnswerCounts, FailureCounts, read_failure_lines, read_lines
from batchchat.results.files import RunFiles
from batchchat.results.lock import Holder, is_locked, read_holder
from batchchat.results.summary import read_summary

__all__ = ["RunStatus", "build_status", "read_answered", "read_start", "read_status"]


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
    files.need_file()
    # Asked before reading: lines that a run adds later are whole or the last.
    locked = is_locked(files.results)
    answers = AnswerCounts(running=locked, prices=prices, model=model, began=read_start(files.summary))
    for line in read_lines(files.results, files.results):
        answers.add(line, files.results)
    failures = FailureCounts()
    for line in read_failure_lines(files):
        failures.add(line, answers.ids)
    running = (read_holder(files.summary) or Holder()) if locked else None
    return build_status(files, answers, failures, prompts, running=running)


def build_status(
    files: RunFiles,
    answers: AnswerCounts,
    failures: FailureCounts,
    prompts: Iterable[Prompt | InputFault] | None = None,
    *,
    running: Holder | None = None,
) -> RunStatus:
    """What was counted, as one value.

    Raises:
        PromptFileError: The input cannot be read.
    """
    spent, prices = answers.spent, answers.prices
    cost = spent.cost_usd
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
        usage=spent.usage,
        estimated_answers=spent.estimated_requests,
        answers_without_usage=answers.without_usage,
        cost_usd=None if prices is None or cost is None else round(float(cost), 10),
        unpriced={} if prices is None else dict(spent.unpriced),
        price_sources=() if prices is None else prices.sources,
        rate_per_s=answers.rate_per_s(),
        first_finished_at=answers.first,
        last_finished_at=answers.last,
        running=running,
    )


def read_answered(files: RunFiles) -> IdTable:
    """Ids of the answers that a results file holds; a run that goes on meanwhile is not disturbed.

    Raises:
        ResultsFileError: There is no such file, or it is no results file.
    """
    answers = AnswerCounts(running=is_locked(files.results))
    for line in read_lines(files.results, files.results):
        answers.add(line, files.results)
    return answers.ids


def read_start(summary: str | None) -> datetime | None:
    """When the latest run began, as its summary tells."""
    started = (read_summary(summary) or {}).get("started_at") if summary is not None else None
    try:
        at = datetime.fromisoformat(started) if isinstance(started, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


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
