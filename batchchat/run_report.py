"""How a run ended: its exit code, its reason and its counts."""

from typing import Any

from batchchat.observer import RunReport
from batchchat.stopping import StopReason
from batchchat.survey import Survey
from batchchat.tally import Tally

__all__ = ["EXIT_CODES", "final_report"]

EXIT_CODES = {"service": 4, "limit": 5, "results": 6, "input": 3, "interrupted": 130, "terminated": 143}


def final_report(
    tally: Tally,
    survey: Survey | None,
    *,
    reason: StopReason | None,
    exit_code: int | None,
    total: int | None,
    **figures: Any,
) -> RunReport:
    """The report of a run that is over.

    Args:
        survey: What was known of the input beforehand, if anything.
        reason: What stopped the run; None where it came to its end.
        exit_code: In the place of the reason's own.
        total: Prompts of an input that was counted beside the run.
        figures: See ``Tally.report``.
    """
    pending = None
    before = survey.completed if survey is not None else tally.skipped
    done = before + tally.answered + tally.failed
    if survey is not None:
        total = survey.total
    if total is not None:
        total = max(total, done)  # an input may have grown since
        pending = total - done
    if survey is None and reason is None:
        total, pending = done, 0
    if reason is not None:
        code = exit_code or EXIT_CODES[reason.kind]
    else:
        code = 1 if tally.failed else 0
    return tally.report(
        exit_code=code,
        reason=reason.kind if reason else "failures" if tally.failed else "completed",
        message=(reason.message or None) if reason else None,
        total=total,
        answered_before=before,
        pending=pending,
        **figures,
    )
