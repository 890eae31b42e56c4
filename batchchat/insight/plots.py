"""The plots of a run as SVG, each with its legend and its numbers as a table."""

from batchchat.insight.axes import ValueScale, render_number, render_seconds
from batchchat.insight.figures import Figures
from batchchat.insight.histogram import Histogram
from batchchat.insight.plot import PERCENTS, Plot, empty_plot
from batchchat.insight.series import cut_into_stretches
from batchchat.insight.svg import Drawing
from batchchat.insight.time_plots import (
    plot_failed_attempts,
    plot_failures_over_time,
    plot_latency_over_time,
    plot_throughput,
    plot_tokens,
    type_colours,
)

__all__ = ["Plot", "build_plots"]


def build_plots(
    figures: Figures, *, limit_per_s: float | None = None, limit_since_s: float | None = None
) -> list[Plot]:
    """All plots, whether or not they have something to show.

    Args:
        limit_per_s: Requests a second that the latest run was allowed; None for no limit.
        limit_since_s: Unix time at which that run began.
    """
    stretches = cut_into_stretches(figures.timeline)
    return [
        plot_throughput(figures, stretches, limit_per_s, limit_since_s),
        _distribution("latency", "Latency of the answers", figures.latency),
        plot_latency_over_time(stretches),
        _distribution("first-delta", "Time to the first text", figures.first_delta),
        _attempts(figures),
        _failures_by_type(figures),
        plot_failures_over_time(figures, stretches),
        plot_failed_attempts(figures, stretches),
        plot_tokens(figures, stretches),
    ]


def _distribution(key: str, title: str, values: Histogram) -> Plot:
    head = ("from", "to", "answers")
    if not values.total:
        return empty_plot(key, title, "no answer tells it", head)
    marks = [(f"p{percent}", values.percentile(percent) or 0.0) for percent in PERCENTS]
    told = ", ".join(f"{name} {render_seconds(value)}" for name, value in marks)
    drawing = Drawing(title, told)
    classes = _coarser(values)
    around = 1.8 if classes[-1][1] < 4 * classes[0][0] else 1.0  # few values stand in the middle
    across = ValueScale.log_seconds(classes[0][0] / around, classes[-1][1] * around, drawing.left, drawing.right)
    up = ValueScale.linear(max(count for *_, count in classes), drawing.bottom, drawing.top + 8, whole=True)
    drawing.value_axis(up, render_number, "answers")
    rows = []
    for begin, end, count in classes:
        row = (render_seconds(begin), render_seconds(end), f"{count:,}")
        rows.append(row)
        x, top = across.at(begin), up.at(count)
        drawing.bar(0, x, top, across.at(end) - x, drawing.bottom - top, f"{row[0]} to {row[1]}: {row[2]}")
    drawing.number_axis(across, render_seconds)
    if values.total > 1:
        drawing.marks([(across.at(value), f"{name} {render_seconds(value)}") for name, value in marks])
    return Plot(
        key=key,
        title=title,
        svg=drawing.done(),
        legend=(),
        note=f"{told}; at most {render_seconds(values.most_s)}. The scale is logarithmic.",
        head=head,
        rows=rows,
    )


def _coarser(values: Histogram) -> list[tuple[float, float, int]]:
    """The classes of a histogram, some put together so that at most about 48 bars come of them."""
    classes = values.classes()
    growth = 1.04
    numbers = sorted(values.counts)
    share = 1
    while (numbers[-1] - numbers[0]) / share > 48:
        share += 1
    bars: dict[int, int] = {}
    for number, (_, _, count) in zip(numbers, classes, strict=True):
        bars[number // share] = bars.get(number // share, 0) + count
    return [
        (0.001 * growth ** (bar * share), 0.001 * growth ** ((bar + 1) * share), count)
        for bar, count in sorted(bars.items())
    ]


def _attempts(figures: Figures) -> Plot:
    few = {number: count for number, count in figures.attempts.items() if number < 10}
    many = sum(count for number, count in figures.attempts.items() if number >= 10)
    bars = [(str(number), few.get(number, 0)) for number in range(min(few, default=1), max(few, default=0) + 1)]
    if many:
        bars.append(("10+", many))
    note = "0 stands for prompts that were never sent: faulty lines, and answers taken from others." if 0 in few else ""
    return _upright("attempts", "Attempts for a prompt", bars, ("attempts", "prompts"), note)


def _upright(key: str, title: str, bars: list[tuple[str, int]], head: tuple[str, str], note: str) -> Plot:
    if not bars:
        return empty_plot(key, title, "no prompt ended", head)
    drawing = Drawing(title, ", ".join(f"{name}: {count:,}" for name, count in bars))
    scale = ValueScale.linear(max(count for _, count in bars), drawing.bottom, drawing.top + 12, whole=True)
    drawing.value_axis(scale, render_number, head[1])
    room = (drawing.right - drawing.left) / max(len(bars), 5)
    for place, (name, count) in enumerate(bars):
        middle = drawing.left + (place + 0.5) * room
        top = scale.at(count)
        drawing.bar(0, middle - room * 0.36, top, room * 0.72, drawing.bottom - top, f"{name}: {count:,}")
        drawing.text(middle, drawing.bottom + 18, name, "mid")
        if count:
            drawing.text(middle, top - 4, render_number(count), "mid")
    rows = [(name, f"{count:,}") for name, count in bars]
    return Plot(key=key, title=title, svg=drawing.done(), legend=(), note=note, head=head, rows=rows)


def _failures_by_type(figures: Figures) -> Plot:
    title, head = "Failures by type", ("type", "prompts")
    found = sorted(((kind, each.count) for kind, each in figures.failures.items()), key=lambda pair: -pair[1])
    if not found:
        return empty_plot("failures", title, "no prompt failed", head)
    drawing = Drawing(title, ", ".join(f"{kind}: {count:,}" for kind, count in found))
    colours = type_colours(figures)
    begin, end = 110.0, drawing.right - 50
    room = min(30.0, (drawing.bottom + 20 - drawing.top) / len(found))
    for place, (kind, count) in enumerate(found):
        y = drawing.top + place * room
        width = (end - begin) * count / found[0][1]
        drawing.bar(colours[kind], begin, y, width, room * 0.7, f"{kind}: {count:,}")
        drawing.text(begin - 8, y + room * 0.35 + 4, kind, "end")
        drawing.text(begin + width + 6, y + room * 0.35 + 4, f"{count:,}")
    rows = [(kind, f"{count:,}") for kind, count in found]
    return Plot(key="failures", title=title, svg=drawing.done(), legend=(), note="", head=head, rows=rows)
