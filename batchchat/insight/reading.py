"""What there is to show of a run: its figures, its counts, and what its summary tells."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from batchchat.durations import Rate, limit_per_s, parse_rate
from batchchat.insight.figures import Figures
from batchchat.insight.fold import RunFold
from batchchat.prices import PriceList
from batchchat.records import InputFault, Prompt
from batchchat.results.files import RunFiles
from batchchat.results.lock import Holder, is_locked, read_holder
from batchchat.results.status import RunStatus
from batchchat.results.summary import read_summary

__all__ = ["LatestRun", "RunInsight", "read_insight", "read_latest_run", "read_rates", "with_live_counts"]


class LatestRun(msgspec.Struct, frozen=True, kw_only=True):
    """What the summary tells of the latest run; None for what it does not tell.

    Attributes:
        state: ``running`` or ``finished``; a run that was killed stays ``running``.
        reason: As in ``RunReport``, and so are ``message``, ``exit_code``, ``total`` and ``pending``.
        started_at, finished_at: UTC.
        requests: All that were let out, fetches of nonces included.
        attempts: By what came of them.
        rates: Limits on requests; none where there was no limit, or it is not known.
        settings: As the job had them, secrets as ``***``.
    """

    state: str | None = None
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None
    total: int | None = None
    pending: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_s: float | None = None
    requests: int | None = None
    attempts: dict[str, int] = {}
    cost_usd: float | None = None
    rates: tuple[Rate, ...] = ()
    provider: str | None = None
    version: str | None = None
    settings: dict[str, Any] = {}

    @property
    def rate_per_s(self) -> float | None:
        """Requests a second that all limits together allow over time; None for no limit."""
        return limit_per_s(self.rates)


class RunInsight(msgspec.Struct, frozen=True, kw_only=True):
    """All that there is to show of a run.

    Attributes:
        read_at: When the files were read, UTC.
        run: What the summary tells; None where there is none.
    """

    read_at: datetime
    status: RunStatus
    figures: Figures
    run: LatestRun | None

    @property
    def total(self) -> int | None:
        """Prompts of the input: counted in it where it was given, else as the summary tells."""
        if self.status.total is not None or self.run is None:
            return self.status.total
        return self.run.total

    @property
    def pending(self) -> int | None:
        """Prompts without an outcome; None where the total is not known."""
        if self.status.pending is not None or self.total is None:
            return self.status.pending
        return max(0, self.total - self.status.completed - self.status.failed)


def read_insight(
    files: RunFiles,
    prompts: Iterable[Prompt | InputFault] | None = None,
    *,
    prices: PriceList | None = None,
    model: str | None = None,
) -> RunInsight:
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
    fold = RunFold(files, running=locked, prices=prices, model=model)
    fold.read()
    running = (read_holder(files.summary) or Holder()) if locked else None
    return RunInsight(
        read_at=datetime.now(UTC),
        status=fold.status(prompts, running=running),
        figures=fold.figures(),
        run=read_latest_run(files),
    )


def with_live_counts(insight: RunInsight, *, total: int | None, rates: tuple[str, ...]) -> RunInsight:
    """The same with what the running process tells, which its summary does not yet.

    Args:
        rates: Limits that are in force now.
    """
    run = insight.run or LatestRun()
    run = msgspec.structs.replace(run, total=run.total if total is None else total, rates=read_rates(list(rates)))
    return msgspec.structs.replace(insight, run=run)


def read_latest_run(files: RunFiles) -> LatestRun | None:
    """What the summary beside the results tells; None where there is none. Keys that are odd count as not told."""
    found = None if files.summary is None else read_summary(files.summary)
    if found is None:
        return None
    settings = found.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    provider = settings.get("provider")
    attempts = found.get("attempts")
    return LatestRun(
        state=_typed(found, "state", str),
        reason=_typed(found, "reason", str),
        message=_typed(found, "message", str),
        exit_code=_typed(found, "exit_code", int),
        total=_typed(found, "total", int),
        pending=_typed(found, "pending", int),
        started_at=_moment(found.get("started_at")),
        finished_at=_moment(found.get("finished_at")),
        duration_s=_typed(found, "duration_s", float),
        requests=_typed(found, "requests", int),
        attempts={kind: count for kind, count in attempts.items() if type(count) is int}
        if isinstance(attempts, dict)
        else {},
        cost_usd=_typed(found, "cost_usd", float),
        rates=read_rates(settings.get("rate")),
        provider=_typed(provider, "name", str) if isinstance(provider, dict) else None,
        version=_typed(found, "version", str),
        settings=settings,
    )


def _typed(found: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    value = found.get(key)
    if kind is float and type(value) is int:
        return float(value) if abs(value) < 1e15 else None
    return value if type(value) is kind else None


def _moment(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return None if at.tzinfo is None else at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def read_rates(texts: Any) -> tuple[Rate, ...]:
    """Rates of a list of texts; what is none counts as not told."""
    found = []
    for text in texts if isinstance(texts, list) else ():
        try:
            found.append(parse_rate(text))
        except (TypeError, ValueError, AttributeError):
            continue
    return tuple(found)
