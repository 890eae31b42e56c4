"""The figures of a run: outcomes added up one at a time, in bounded memory; two of them can be added up."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import get_args

import msgspec

from batchchat.errors import ErrorType
from batchchat.insight.histogram import Histogram
from batchchat.insight.notable import Notable, notable_of
from batchchat.insight.timeline import Timeline
from batchchat.records import Outcome, Usage
from batchchat.results.figures import AnswerFigures, FailedAttempt, failed_attempts_of
from batchchat.surrogates import without_surrogates

__all__ = ["FailureKind", "Figures", "first_failures"]

_MOST_SLOW = 50
_MOST_FAILED_A_TYPE = 100
_MOST_NAMES = 30
_MOST_NAME_CHARS = 100
_MOST_ATTEMPTS = 100
_MOST_TOKENS = 10**12  # beyond, a count is nonsense
_OTHERS = "others"
_TYPES = frozenset(get_args(ErrorType))
# No prompt goes on for longer; what tells so is damaged, and must not stretch the time that plots show.
_MOST_BEFORE_S = 30 * 86400.0
_NEVER = datetime.fromtimestamp(0, UTC)


class FailureKind(msgspec.Struct, gc=False):
    """Failures of one type.

    Attributes:
        statuses: HTTP status to how many had it.
        first: The first of them in the file, at most 100.
    """

    count: int = 0
    statuses: dict[int, int] = msgspec.field(default_factory=dict)
    first: list[Notable] = msgspec.field(default_factory=list)

    def merge(self, other: "FailureKind") -> None:
        """Counts what the other one has counted."""
        self.count += other.count
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.first = [*self.first, *other.first][:_MOST_FAILED_A_TYPE]


class Figures(msgspec.Struct, gc=False):
    """Counts of outcomes; about 2 MB at most, whatever their number.

    Attributes:
        reused: Answers that were not asked for, among ``answered``.
        requests: Attempts of all prompts.
        attempts: Number of attempts to how many prompts had so many; 100 stands for that and more.
        latency, first_delta: Of the answers.
        models: Model that answered to how many answers; ``others`` beyond 30 names.
        failed_attempts: Error type to how many attempts came to it, retried ones included, as far as lines tell.
        failures: By error type.
        slowest: At most 50, the slowest first.
        input_tokens, output_tokens: Of the answers that were asked for.
    """

    answered: int = 0
    failed: int = 0
    reused: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    attempts: dict[int, int] = msgspec.field(default_factory=dict)
    latency: Histogram = msgspec.field(default_factory=Histogram)
    first_delta: Histogram = msgspec.field(default_factory=Histogram)
    models: dict[str, int] = msgspec.field(default_factory=dict)
    failed_attempts: dict[str, int] = msgspec.field(default_factory=dict)
    failures: dict[str, FailureKind] = msgspec.field(default_factory=dict)
    slowest: list[Notable] = msgspec.field(default_factory=list)
    timeline: Timeline = msgspec.field(default_factory=Timeline)

    def add_answer(self, answer: AnswerFigures, whole: Callable[[], Outcome]) -> None:
        """Counts one answer.

        Args:
            whole: Reads all of it; called only for one that is among the slowest.
        """
        self.answered += 1
        self.reused += answer.reused
        made = self._add_attempts(answer.attempts)
        if answer.model:
            _count_name(self.models, answer.model)
        latency_s = answer.latency_s
        if latency_s is not None:
            self.latency.add(latency_s)
            if len(self.slowest) < _MOST_SLOW or latency_s > (self.slowest[-1].latency_s or 0.0):
                self._add_slow(whole())
        if answer.first_delta_s is not None:
            self.first_delta.add(answer.first_delta_s)
        sent, received = (0, 0) if answer.reused else _tokens(answer.usage)
        self.input_tokens += sent
        self.output_tokens += received
        if answer.failed_attempts:
            self._add_failed_attempts(answer.failed_attempts, answer.finished_at, latency_s)
        if answer.finished_at > _NEVER:
            bucket = self.timeline.at(answer.finished_at.timestamp())
            bucket.answered += 1
            bucket.requests += made
            bucket.input_tokens += sent
            bucket.output_tokens += received
            if latency_s is not None:
                bucket.latency.add(latency_s)

    def add_failure(self, outcome: Outcome) -> None:
        """Counts one failure; an outcome without an error is none."""
        if outcome.error is None:
            return
        self.failed += 1
        made = self._add_attempts(outcome.attempts)
        kind = self.failures.setdefault(outcome.error.type, FailureKind())
        kind.count += 1
        if (status := outcome.error.status) is not None:
            status = max(-1, min(status, 1000))
            kind.statuses[status] = kind.statuses.get(status, 0) + 1
        if len(kind.first) < _MOST_FAILED_A_TYPE:
            kind.first.append(notable_of(outcome))
        if outcome.latency_s is not None:
            self._add_slow(outcome)
        failed = failed_attempts_of(outcome) or ([FailedAttempt(outcome.error.type)] if outcome.attempts else ())
        self._add_failed_attempts(failed, outcome.finished_at, outcome.latency_s)
        if outcome.finished_at > _NEVER:
            bucket = self.timeline.at(outcome.finished_at.timestamp())
            bucket.failed[outcome.error.type] = bucket.failed.get(outcome.error.type, 0) + 1
            bucket.requests += made

    def merge(self, other: "Figures") -> None:
        """Counts what the other one has counted, which stays as it is."""
        for name in ("answered", "failed", "reused", "requests", "input_tokens", "output_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for number, count in other.attempts.items():
            self.attempts[number] = self.attempts.get(number, 0) + count
        for kind, count in other.failed_attempts.items():
            _count_name(self.failed_attempts, kind, count)
        for model, count in other.models.items():
            _count_name(self.models, model, count)
        for kind, failures in other.failures.items():
            self.failures.setdefault(kind, FailureKind()).merge(failures)
        self.latency.merge(other.latency)
        self.first_delta.merge(other.first_delta)
        self.timeline.merge(other.timeline)
        self.slowest = sorted([*self.slowest, *other.slowest], key=_slowness)[:_MOST_SLOW]

    def _add_attempts(self, attempts: int) -> int:
        made = max(0, min(attempts, _MOST_ATTEMPTS))
        self.attempts[made] = self.attempts.get(made, 0) + 1
        self.requests += made
        return made

    def _add_failed_attempts(
        self, failed: Sequence[FailedAttempt], finished_at: datetime, latency_s: float | None
    ) -> None:
        """Counts attempts when they failed; those of which a line does not tell it, when their prompt ended."""
        for attempt in failed:
            kind = attempt.type if attempt.type in _TYPES else _OTHERS
            self.failed_attempts[kind] = self.failed_attempts.get(kind, 0) + 1
            if finished_at > _NEVER:
                before_s = 0.0 if latency_s is None or attempt.after_s is None else latency_s - attempt.after_s
                moment = finished_at.timestamp() - min(max(before_s, 0.0), _MOST_BEFORE_S)
                failures = self.timeline.at(moment).failed_attempts
                failures[kind] = failures.get(kind, 0) + 1

    def _add_slow(self, outcome: Outcome) -> None:
        latency_s = outcome.latency_s
        full = len(self.slowest) >= _MOST_SLOW
        if latency_s is None or not 0 <= latency_s < float("inf"):
            return
        if full and latency_s <= (self.slowest[-1].latency_s or 0.0):
            return
        self.slowest.append(notable_of(outcome))
        self.slowest.sort(key=_slowness)
        del self.slowest[_MOST_SLOW:]


def first_failures(figures: Figures, most: int) -> list[Notable]:
    """The first failures of each type, in fair shares, at most so many; those of one type together."""
    kinds = sorted(figures.failures.values(), key=lambda kind: -kind.count)
    shares = [0] * len(kinds)
    room = most
    while room > 0 and any(share < len(kind.first) for share, kind in zip(shares, kinds, strict=True)):
        for place, kind in enumerate(kinds):
            if room > 0 and shares[place] < len(kind.first):
                shares[place] += 1
                room -= 1
    return [one for share, kind in zip(shares, kinds, strict=True) for one in kind.first[:share]]


def _slowness(one: Notable) -> float:
    return -(one.latency_s or 0.0)


def _tokens(usage: Usage | None) -> tuple[int, int]:
    if usage is None:
        return 0, 0
    sent, received = usage.input_tokens or 0, usage.output_tokens or 0
    return sent if 0 <= sent <= _MOST_TOKENS else 0, received if 0 <= received <= _MOST_TOKENS else 0


def _count_name(names: dict[str, int], name: str, count: int = 1) -> None:
    name = without_surrogates(name[:_MOST_NAME_CHARS])
    if name not in names and len(names) >= _MOST_NAMES:
        name = _OTHERS
    names[name] = names.get(name, 0) + count
