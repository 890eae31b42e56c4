"""What there is to say of a run in words and few numbers, the same on paper, on a page and in a log."""

import re
from datetime import datetime

import msgspec

from batchchat.durations import render_duration, render_speed
from batchchat.insight.axes import render_seconds
from batchchat.insight.notable import Excerpt
from batchchat.insight.reading import RunInsight
from batchchat.prices import money

__all__ = ["Figure", "figure_rows", "render_time", "run_sentence", "run_state", "shown", "shown_excerpt"]

# What acts on terminals, pages and readers without being seen, but line ends and tabs: control characters, halves of
# surrogate pairs, marks that turn the direction of what follows.
_SPOILING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_REASONS = {
    "completed": "Finished, every prompt was answered",
    "failures": "Finished, some prompts failed",
    "service": "Stopped by the service",
    "limit": "Stopped by a limit of the job",
    "results": "Stopped, as results could not be written",
    "input": "Stopped by a faulty input",
    "interrupted": "Interrupted",
    "terminated": "Terminated",
}


class Figure(msgspec.Struct, frozen=True):
    """One number with its name and what else there is to say of it."""

    name: str
    value: str
    note: str = ""


def run_state(insight: RunInsight) -> str:
    """A word: ``running``, ``done`` (nothing failed or is left), ``failed``, ``stopped`` or ``unknown``."""
    run = insight.run
    if insight.status.running is not None:
        return "running"
    if run is None or run.state != "finished":
        return "unknown" if run is None else "stopped"
    if run.reason == "completed":
        return "done"
    return "failed" if run.reason == "failures" else "stopped"


def run_sentence(insight: RunInsight) -> str:
    """How the latest run stands or ended, without a full stop; what stopped it is ``insight.run.message``."""
    run, running = insight.run, insight.status.running
    if running is not None:
        who = str(running)
        return f"A run is going on{f' ({shown(who)})' if who else ''}"
    if run is None:
        return "No summary is beside the results; this is what they hold"
    if run.state != "finished":
        return "The latest run ended without a word, as one that is killed"
    return _REASONS.get(run.reason or "", "Finished")


def figure_rows(insight: RunInsight) -> list[Figure]:
    """The figures at the top; what is not known is left out."""
    status, figures, total = insight.status, insight.figures, insight.total
    done = status.completed + status.failed
    found = [
        Figure("answered", f"{status.completed:,}", "" if total is None else f"of {total:,}"),
        Figure("failed", f"{status.failed:,}", _share(status.failed, done)),
    ]
    if insight.pending is not None:
        found.append(Figure("pending", f"{insight.pending:,}"))
    if status.rate_per_s is not None:
        found.append(Figure("rate", _speed(status.rate_per_s), _limit(insight)))
    latency, first = figures.latency, figures.first_delta
    if (usual := latency.percentile(50)) is not None:
        high = render_seconds(latency.percentile(99) or 0.0)
        found.append(Figure("latency", render_seconds(usual), f"median; p99 {high}"))
    if (usual := first.percentile(50)) is not None:
        found.append(Figure("first text", render_seconds(usual), "median"))
    ended = figures.answered + figures.failed - figures.attempts.get(0, 0)
    if figures.requests:
        found.append(Figure("attempts", f"{figures.requests:,}", f"{figures.requests / max(1, ended):.3g} a prompt"))
    found += _token_rows(insight)
    if (run := insight.run) is not None and run.duration_s is not None:
        found.append(Figure("latest run", render_duration(run.duration_s)))
    return found


def _token_rows(insight: RunInsight) -> list[Figure]:
    status, usage = insight.status, insight.status.usage
    found = []
    estimated = f"{status.estimated_answers:,} estimated" if status.estimated_answers else ""
    for name, count in (("input tokens", usage.input_tokens), ("output tokens", usage.output_tokens)):
        if count is not None:
            found.append(Figure(name, f"{count:,}" if abs(count) < 10**15 else "beyond reason", estimated))
    if status.price_sources and (usage.input_tokens or usage.output_tokens):
        models = ", ".join(sorted(shown(name)[:40] or "a model that nobody names" for name in status.unpriced))
        unknown = Figure("cost", "unknown", f"no price for {models[:120]}" if models else "")
        found.append(unknown if status.cost_usd is None else Figure("cost", money(status.cost_usd)))
    return found


def render_time(moment: datetime | None) -> str:
    """``2026-11-25 10:03:11 UTC``; a dash for None."""
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def shown(text: str) -> str:
    """The text with every character that would act unseen as its number, as in ``\\x1b``."""
    return _SPOILING.sub(_escaped, text)


def shown_excerpt(excerpt: Excerpt | None) -> str:
    """The text, and how much of it was cut; nothing for None."""
    if excerpt is None:
        return ""
    more = f" … ({excerpt.cut:,} more characters)" if excerpt.cut > 0 else ""
    return shown(excerpt.text) + more


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2g} %" if part and whole else ""


def _limit(insight: RunInsight) -> str:
    rates = insight.run.rates if insight.run is not None else ()
    return f"limit {' and '.join(map(str, rates))}" if rates else ""


def _speed(per_s: float) -> str:
    for size, unit in ((1.0, "s"), (60.0, "min"), (3600.0, "h")):
        if per_s * size >= 1 or unit == "h":
            return f"{render_speed(per_s * size).removesuffix('/s')}/{unit}"
    raise AssertionError
