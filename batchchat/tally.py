"""Counts of a running run, for its report."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from batchchat.budget import Spent
from batchchat.observer import ExitReason, FailureGroup, RunReport
from batchchat.pace import Pace
from batchchat.records import Outcome, PromptId

__all__ = ["Tally"]

_FIRST_ANSWERS = 3


class Tally:
    """Adds outcomes up; holds no more than the first few answers and one example of each failure.

    Attributes:
        pace: How fast outcomes come.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self.answered = self.failed = self.skipped = self.reused = 0
        self.attempts: dict[str, int] = {}
        self._groups: dict[str, FailureGroup] = {}
        self._first: list[tuple[PromptId, str]] = []
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()

    def skip(self) -> None:
        """Counts a prompt whose answer is there already; called by the one thread that reads the input."""
        self.skipped += 1

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome that is in its file."""
        self.pace.note()
        error, completion = outcome.error, outcome.completion
        if error is not None:
            self.failed += 1
            known = self._groups.get(error.type)
            self._groups[error.type] = FailureGroup(
                type=error.type,
                count=1 if known is None else known.count + 1,
                message=error.message if known is None else known.message,
                example_id=outcome.id if known is None else known.example_id,
            )
            return
        self.answered += 1
        self.reused += outcome.reused_from is not None
        if completion is not None and completion.text is not None and len(self._first) < _FIRST_ANSWERS:
            self._first.append((outcome.id, completion.text[:500]))

    def failures(self) -> Sequence[FailureGroup]:
        """Failures by type, the most frequent first."""
        return sorted(self._groups.values(), key=lambda group: -group.count)

    def report(
        self,
        *,
        exit_code: int,
        reason: ExitReason,
        message: str | None,
        total: int | None,
        answered_before: int,
        pending: int | None,
        requests: int,
        spent: Spent,
        price_sources: tuple[str, ...],
        second_attempts: int,
        concurrency: int,
    ) -> RunReport:
        """The run's report with these counts."""
        return RunReport(
            exit_code=exit_code,
            reason=reason,
            message=message,
            total=total,
            answered_before=answered_before,
            answered=self.answered,
            reused=self.reused,
            failed=self.failed,
            pending=pending,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            duration_s=round(time.monotonic() - self._started, 3),
            usage=spent.usage,
            estimated_requests=spent.estimated_requests,
            cost_usd=None if spent.cost_usd is None else round(float(spent.cost_usd), 10),
            unpriced=dict(spent.unpriced),
            price_sources=price_sources,
            attempts=dict(self.attempts),
            requests=requests,
            second_attempts=second_attempts,
            concurrency=concurrency,
            failures=self.failures(),
            first_answers=tuple(self._first),
        )
