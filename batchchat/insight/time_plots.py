"""Plots over time: throughput, latency, failures, tokens."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from batchchat.insight.axes import TimeScale, ValueScale, render_moment, render_number, render_seconds
from batchchat.insight.figures import Figures
from batchchat.insight.plot import PERCENTS, Plot, empty_plot
from batchchat.insight.series import Column, Stretch
from batchchat.insight.svg import Drawing

__all__ = [
    "plot_failed_attempts",
    "plot_failures_over_time",
    "plot_latency_over_time",
    "plot_throughput",
    "plot_tokens",
    "type_colours",
]

_MOST_KINDS, _LAST_COLOUR = 7, 7
_PER = ((1.0, "s"), (60.0, "min"), (3600.0, "h"))


class _Series(msgspec.Struct, frozen=True):
    """One part of a stack: its name, its value in a column, and what is said of it."""

    name: str
    value: Callable[[Column], float]


def plot_throughput(
    figures: Figures, stretches: list[Stretch], limit_per_s: float | None, since_s: float | None
) -> Plot:
    """Prompts that ended a second, minute or hour, answered and failed on top of each other, with the rate limit."""
    columns = _columns(stretches)
    ended = sum(column.bucket.ended for column in columns)
    peak = max((column.bucket.ended / column.covered_s for column in columns), default=0.0)
    # A limit far above what was reached would press the rest to the ground.
    shown = limit_per_s if limit_per_s is not None and limit_per_s <= 4 * peak else None
    per_s, unit = _per(max(peak, shown or 0.0))
    parts = [
        _Series("answered", lambda column: per_s * column.bucket.answered / column.covered_s),
        _Series("failed", lambda column: per_s * sum(column.bucket.failed.values()) / column.covered_s),
    ]
    if not figures.failed:
        parts.pop()
    most = max(peak, shown or 0.0) * per_s
    extra = None if shown is None else (shown * per_s, since_s, f"limit {render_number(shown * per_s)}/{unit}")
    plot = _stacked(
        "throughput", "Prompts that ended", stretches if ended > 1 else [], parts, f"prompts/{unit}", most, extra
    )
    legend = (*plot.legend, *((("limit", "rate limit"),) if shown is not None else ()))
    return msgspec.structs.replace(plot, legend=legend, note=_limit_note(limit_per_s, shown))


def _limit_note(limit_per_s: float | None, shown: float | None) -> str:
    if limit_per_s is None:
        return ""
    if shown is not None:
        return "The limit is that of the latest run and counts requests, so each further attempt takes from it."
    per_s, unit = _per(limit_per_s)
    return f"The rate limit of {render_number(limit_per_s * per_s)}/{unit} is far above what was reached."


def plot_latency_over_time(stretches: list[Stretch]) -> Plot:
    """Percentiles of the answers of each step; on a logarithmic scale where they differ much."""
    title = "Latency over time"
    shown = [column for column in _columns(stretches) if column.bucket.latency.total]
    names = tuple(f"p{percent}" for percent in PERCENTS)
    head = ("UTC", "answers", *names)
    if not shown:
        return empty_plot("latency-over-time", title, "no answer tells its latency", head)
    values = [column.bucket.latency.percentile(percent) or 0.001 for column in shown for percent in (50, 99)]
    least, most = max(0.001, min(values)), max(*values, 0.002)
    drawing = Drawing(title, f"from {render_seconds(least)} to {render_seconds(most)}")
    scale = ValueScale.linear(most, drawing.bottom, drawing.top, seconds=True)
    if most > 25 * least:
        scale = ValueScale.log_seconds(least * 0.8, most * 1.1, drawing.bottom, drawing.top)
    time = TimeScale(stretches, drawing.left, drawing.right)
    drawing.value_axis(scale, render_seconds, "")
    drawing.time_axis(time)
    rows = []
    for stretch in stretches:
        edges = _edges(time, stretch)
        for place, percent in reversed(list(enumerate(PERCENTS))):
            found = (column.bucket.latency.percentile(percent) for column in stretch.columns)
            drawing.steps(place, edges, [None if value is None else scale.at(value) for value in found])
        for column, x, end in zip(stretch.columns, edges, edges[1:], strict=False):
            texts = [render_seconds(column.bucket.latency.percentile(percent) or 0.0) for percent in PERCENTS]
            if column.bucket.latency.total:
                rows.append((_when(column, time), f"{column.bucket.latency.total:,}", *texts))
                drawing.hit(x, end - x, _told(rows[-1], head))
    return Plot(
        key="latency-over-time",
        title=title,
        svg=drawing.done(),
        legend=tuple((f"line s{place}", name) for place, name in enumerate(names)),
        note="Of the answers that arrived in each step; right within 2 %.",
        head=head,
        rows=rows,
    )


def plot_failures_over_time(figures: Figures, stretches: list[Stretch]) -> Plot:
    """Failed prompts of each step by type, in the colours of ``failures``."""
    counts = {kind: each.count for kind, each in figures.failures.items()}
    return _by_type(
        ("failures-over-time", "Failures over time", "prompts", "no prompt failed"),
        stretches,
        counts,
        lambda column: column.bucket.failed,
        type_colours(figures),
    )


def plot_failed_attempts(figures: Figures, stretches: list[Stretch]) -> Plot:
    """Attempts of each step that failed, whether or not their prompts were answered later."""
    plot = _by_type(
        ("failed-attempts", "Failed attempts over time", "attempts", "no attempt failed"),
        stretches,
        figures.failed_attempts,
        lambda column: column.bucket.failed_attempts,
        type_colours(figures),
    )
    failed = sum(figures.failed_attempts.values())
    note = (
        f"{failed:,} attempts that the lines tell of, when they failed, those among them that were tried again."
        if failed
        else ""
    )
    return msgspec.structs.replace(plot, note=note)


def type_colours(figures: Figures) -> dict[str, int]:
    """A colour for each type of failure, the same in all plots of a run; the rarest share the last one."""
    failed = sorted(figures.failures, key=lambda kind: -figures.failures[kind].count)
    only_attempts = sorted(set(figures.failed_attempts) - set(failed), key=lambda kind: -figures.failed_attempts[kind])
    return {kind: min(1 + place, _LAST_COLOUR) for place, kind in enumerate([*failed, *only_attempts])}


def _by_type(
    texts: tuple[str, str, str, str],
    stretches: list[Stretch],
    counts: Mapping[str, int],
    of: Callable[[Column], Mapping[str, int]],
    colours: Mapping[str, int],
) -> Plot:
    """Counts of each step by error type, the most frequent first, the rare ones together."""
    key, title, unit, empty = texts
    kinds = sorted(counts, key=lambda kind: -counts[kind])
    others = frozenset(kinds[_MOST_KINDS - 1 :] if len(kinds) > _MOST_KINDS else ())
    parts = [_Series(kind, partial(_count_of, of, frozenset((kind,)))) for kind in kinds if kind not in others]
    if others:
        parts.append(_Series("rarer ones", partial(_count_of, of, others)))
    drawn = [colours.get(part.name, _LAST_COLOUR) for part in parts]
    most = max((sum(of(column).values()) for column in _columns(stretches)), default=0)
    width = stretches[0].columns[0].end_s - stretches[0].columns[0].start_s if stretches else 1.0
    return _stacked(
        key,
        title,
        stretches if most else [],
        parts,
        f"{unit} in {render_seconds(width)}",
        float(most),
        None,
        colours=drawn,
        empty=empty,
        whole=True,
    )


def _count_of(of: Callable[[Column], Mapping[str, int]], kinds: frozenset[str], column: Column) -> float:
    return float(sum(count for kind, count in of(column).items() if kind in kinds))


def plot_tokens(figures: Figures, stretches: list[Stretch]) -> Plot:
    """Tokens of the answers a second, minute or hour."""
    peak = max(
        (_all_tokens(column) / column.covered_s for column in _columns(stretches)),
        default=0.0,
    )
    per_s, unit = _per(peak)
    parts = [
        _Series("output", lambda column: per_s * column.bucket.output_tokens / column.covered_s),
        _Series("input", lambda column: per_s * column.bucket.input_tokens / column.covered_s),
    ]
    empty = "no answer tells its tokens"
    return _stacked(
        "tokens", "Tokens of the answers", stretches if peak else [], parts, f"tokens/{unit}", peak * per_s, None,
        colours=(0, 4), empty=empty,
    )  # fmt: skip


def _stacked(
    key: str,
    title: str,
    stretches: list[Stretch],
    parts: Sequence[_Series],
    unit: str,
    most: float,
    limit: tuple[float, float | None, str] | None,
    *,
    colours: Sequence[int] = (0, 1),
    empty: str = "too few prompts ended",
    whole: bool = False,
) -> Plot:
    """Parts on top of each other over time."""
    head = ("UTC", *(part.name for part in parts))
    if not stretches or not parts:
        return empty_plot(key, title, empty, head)
    colours = colours[: len(parts)]
    drawing = Drawing(title, f"at most {render_number(most)} {unit}")
    scale = ValueScale.linear(most, drawing.bottom, drawing.top + 8, whole=whole)
    time = TimeScale(stretches, drawing.left, drawing.right)
    drawing.value_axis(scale, render_number, unit)
    drawing.time_axis(time)
    rows: list[tuple[str, ...]] = []
    for stretch in stretches:
        edges = _edges(time, stretch)
        sums = [0.0] * len(stretch.columns)
        for part, colour in zip(parts, colours, strict=True):
            below = [scale.at(value) for value in sums]
            sums = [value + part.value(column) for value, column in zip(sums, stretch.columns, strict=True)]
            drawing.stack(colour, edges, below, [scale.at(value) for value in sums])
        for column, x, end in zip(stretch.columns, edges, edges[1:], strict=False):
            if column.bucket.ended or column.bucket.failed_attempts:
                rows.append((_when(column, time), *(render_number(part.value(column)) for part in parts)))
                drawing.hit(x, end - x, _told(rows[-1], head))
    if limit is not None:
        value, since_s, text = limit
        drawing.limit(drawing.left if since_s is None else time.at(since_s), scale.at(value), text)
    legend = tuple((f"s{colour}", part.name) for part, colour in zip(parts, colours, strict=True))
    if len(parts) == 1 and limit is None:
        legend = ()
    return Plot(key=key, title=title, svg=drawing.done(), legend=legend, note="", head=head, rows=rows)


def _all_tokens(column: Column) -> int:
    return column.bucket.input_tokens + column.bucket.output_tokens


def _columns(stretches: list[Stretch]) -> list[Column]:
    return [column for stretch in stretches for column in stretch.columns]


def _edges(time: TimeScale, stretch: Stretch) -> list[float]:
    begin = time.at(stretch.columns[0].start_s)
    return [begin, *(time.at(column.end_s) for column in stretch.columns)]


def _when(column: Column, time: TimeScale) -> str:
    return render_moment(column.start_s, dated=time.dated)


def _told(row: tuple[str, ...], head: tuple[str, ...]) -> str:
    return f"{row[0]} " + ", ".join(f"{name} {text}" for name, text in zip(head[1:], row[1:], strict=True))


def _per(peak_per_s: float) -> tuple[float, str]:
    """The unit of time in which the number is at least 1, and how many seconds it has."""
    return next(((size, unit) for size, unit in _PER if peak_per_s * size >= 1), _PER[-1])
