"""A run as Markdown, for the summary of a CI job or a comment; texts of others stand in code spans."""

import re
from collections.abc import Iterable, Sequence

from batchchat.insight.axes import render_seconds
from batchchat.insight.figures import first_failures
from batchchat.insight.notable import Excerpt
from batchchat.insight.reading import RunInsight
from batchchat.insight.words import figure_rows, render_time, run_sentence, shown

__all__ = ["render_markdown"]

_MOST_FAILED, _MOST_SLOW, _MOST_CHARS = 20, 10, 120
_TICKS = re.compile("`+")


def render_markdown(insight: RunInsight) -> str:
    """Figures, percentiles, failures, the first failed and the slowest prompts; at most some 20 kB."""
    figures = insight.figures
    lines = [f"# Run of {_code(insight.status.results, 400)}", "", f"**{_plain(run_sentence(insight))}**", ""]
    if insight.run is not None and insight.run.message and insight.status.running is None:
        lines += [_code(insight.run.message, 400), ""]
    lines += _table(("figure", "value", ""), ((row.name, row.value, _plain(row.note)) for row in figure_rows(insight)))
    percents = (50, 90, 95, 99, 100)
    times = [("latency", figures.latency), ("first text", figures.first_delta)]
    told = [
        (name, *(render_seconds(each.percentile(p) or 0.0) for p in percents)) for name, each in times if each.total
    ]
    if told:
        lines += ["", "## Latency", "", *_table(("", "p50", "p90", "p95", "p99", "most"), told)]
    if figures.failures:
        lines += ["", "## Failures", "", *_failure_table(insight)]
    if figures.slowest:
        lines += ["", "## Slowest prompts", ""]
        rows = [
            (_code(str(one.id)), _seconds(one.latency_s), str(one.attempts), _text(one.prompt))
            for one in figures.slowest[:_MOST_SLOW]
        ]
        lines += _table(("id", "latency", "attempts", "prompt"), rows)
    return "\n".join([*lines, "", f"Read {render_time(insight.read_at)}.", ""])


def _failure_table(insight: RunInsight) -> list[str]:
    figures = insight.figures
    kinds = sorted(figures.failures.items(), key=lambda pair: -pair[1].count)
    rows = [
        (kind, f"{each.count:,}", _text(each.first[0].message if each.first else None), _code(str(each.first[0].id)))
        for kind, each in kinds
        if each.first
    ]
    lines = _table(("type", "prompts", "first message", "first id"), rows)
    failed = first_failures(figures, _MOST_FAILED)
    more = figures.failed - len(failed)
    lines += ["", "## Failed prompts", ""]
    if more > 0:
        lines += [f"The first {len(failed)} of {figures.failed:,}.", ""]
    lines += _table(
        ("id", "error", "attempts", "message", "prompt"),
        (
            (
                _code(str(one.id)),
                f"{one.error}" if one.status is None else f"{one.error} {one.status}",
                str(one.attempts),
                _text(one.message),
                _text(one.prompt),
            )
            for one in failed
        ),
    )
    return lines


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"| {' | '.join('---' for _ in head)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _text(excerpt: Excerpt | None) -> str:
    if excerpt is None or not excerpt.text:
        return ""
    cut = excerpt.chars - min(_MOST_CHARS, len(excerpt.text))
    more = f" … ({cut:,} more characters)" if cut > 0 else ""
    return _code(excerpt.text) + more


def _code(text: str, most_chars: int = _MOST_CHARS) -> str:
    """A text in a code span on one line, where no sign of it means anything; not even the bar of a table."""
    flat = " ".join(shown(text[:most_chars]).split()).replace("|", "\\|") or " "
    fence = "`" * (max((len(ticks) for ticks in _TICKS.findall(flat)), default=0) + 1)
    return f"{fence} {flat} {fence}" if "`" in flat else f"{fence}{flat}{fence}"


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#&~@])", r"\\\1", shown(text))


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else render_seconds(seconds)
