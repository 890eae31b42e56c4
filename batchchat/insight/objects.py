"""A run as one JSON object, for programs; its keys are told in docs/report.md."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from batchchat.insight.figures import Figures, first_failures
from batchchat.insight.histogram import Histogram
from batchchat.insight.notable import Notable
from batchchat.insight.reading import LatestRun, RunInsight
from batchchat.insight.series import Column, cut_into_stretches
from batchchat.insight.words import run_state
from batchchat.surrogates import without_surrogates
from batchchat.version import VERSION

__all__ = ["insight_object", "render_json", "timeline_objects"]

_MOST_FAILED = 100


def render_json(insight: RunInsight) -> str:
    """The object with a line end behind it, as UTF-8 can hold it."""
    return without_surrogates(json.dumps(insight_object(insight), indent=2, ensure_ascii=False)) + "\n"


def insight_object(insight: RunInsight) -> dict[str, Any]:
    """All figures as plain values; times as text, what is not known as None."""
    status, figures = insight.status, insight.figures
    usage = dict.fromkeys(("input_tokens", "output_tokens")) | msgspec.to_builtins(status.usage)
    return {
        "results": status.results,
        "read_at": _time(insight.read_at),
        "version": VERSION,
        "state": run_state(insight),
        "run": None if insight.run is None else _run_object(insight.run),
        "running": None if status.running is None else msgspec.to_builtins(status.running),
        "total": insight.total,
        "answered": status.completed,
        "failed": status.failed,
        "pending": insight.pending,
        "reused": figures.reused,
        "unknown_ids": status.unknown_ids,
        "duplicate_ids": status.duplicate_ids,
        "torn_lines": status.torn_lines,
        "rate_per_s": status.rate_per_s,
        "first_finished_at": _time(status.first_finished_at),
        "last_finished_at": _time(status.last_finished_at),
        "usage": usage,
        "estimated_answers": status.estimated_answers,
        "answers_without_usage": status.answers_without_usage,
        "cost_usd": status.cost_usd,
        "unpriced": status.unpriced,
        "price_sources": list(status.price_sources),
        "latency_s": _spread(figures.latency),
        "first_delta_s": _spread(figures.first_delta),
        "requests": figures.requests,
        "attempts": {str(number): count for number, count in sorted(figures.attempts.items())},
        "failed_attempts": dict(sorted(figures.failed_attempts.items(), key=lambda pair: -pair[1])),
        "models": dict(sorted(figures.models.items(), key=lambda pair: -pair[1])),
        "failures": _failure_objects(figures),
        "timeline": timeline_objects(figures),
        "slowest": [_notable_object(one) for one in figures.slowest],
        "failed_prompts": [_notable_object(one) for one in first_failures(figures, _MOST_FAILED)],
    }


def timeline_objects(figures: Figures) -> list[dict[str, Any]]:
    """What ended in each step of time, the earliest first; steps in which nothing did are left out."""
    stretches = cut_into_stretches(figures.timeline)
    return [
        _column_object(column)
        for stretch in stretches
        for column in stretch.columns
        if column.bucket.ended or column.bucket.failed_attempts
    ]


def _column_object(column: Column) -> dict[str, Any]:
    bucket = column.bucket
    return {
        "start": _unix(column.start_s),
        "duration_s": column.end_s - column.start_s,
        "answered": bucket.answered,
        "failed": dict(bucket.failed),
        "failed_attempts": dict(bucket.failed_attempts),
        "requests": bucket.requests,
        "input_tokens": bucket.input_tokens,
        "output_tokens": bucket.output_tokens,
        "latency_s": {f"p{percent}": _rounded(bucket.latency.percentile(percent)) for percent in (50, 90, 99)},
    }


def _run_object(run: LatestRun) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.asdict(run))
    found["rates"] = [str(rate) for rate in run.rates]
    found["rate_per_s"] = _rounded(run.rate_per_s)
    return found


def _failure_objects(figures: Figures) -> list[dict[str, Any]]:
    found = sorted(figures.failures.items(), key=lambda pair: -pair[1].count)
    return [
        {
            "type": kind,
            "count": each.count,
            "statuses": {str(status): count for status, count in sorted(each.statuses.items())},
            "first_id": each.first[0].id if each.first else None,
            "first_message": each.first[0].message.text if each.first and each.first[0].message else None,
        }
        for kind, each in found
    ]


def _notable_object(one: Notable) -> dict[str, Any]:
    return {
        "id": one.id,
        "index": one.index,
        "error": one.error,
        "status": one.status,
        "attempts": one.attempts,
        "latency_s": one.latency_s,
        "finished_at": _time(one.finished_at),
        "message": _excerpt(one, "message"),
        "prompt": _excerpt(one, "prompt"),
        "response": _excerpt(one, "response"),
    }


def _excerpt(one: Notable, name: str) -> dict[str, Any] | None:
    found = getattr(one, name)
    return None if found is None else {"text": found.text, "characters": found.chars}


def _spread(values: Histogram) -> dict[str, Any] | None:
    if not values.total:
        return None
    percents = {f"p{percent}": _rounded(values.percentile(percent)) for percent in (50, 90, 95, 99)}
    return {
        "count": values.total,
        "mean": _rounded(values.mean()),
        "least": _rounded(values.least_s),
        **percents,
        "most": _rounded(values.most_s),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unix(seconds: float) -> str | None:
    try:
        return _time(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return None
