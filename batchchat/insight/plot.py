"""One plot as a value: its picture, its legend, and its numbers as a table."""

from collections.abc import Sequence

import msgspec

from batchchat.insight.svg import Drawing

__all__ = ["PERCENTS", "Plot", "empty_plot"]

PERCENTS = (50, 90, 99)


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """One picture and what it says in words and numbers.

    Attributes:
        key: A word for addresses: ``throughput``.
        svg: Drawn with the classes of ``PLOT_CSS``.
        legend: Class of the sample and its text.
        note: A sentence on what is to be known; empty for none.
        head, rows: The numbers, as texts.
    """

    key: str
    title: str
    svg: str
    legend: tuple[tuple[str, str], ...]
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def empty_plot(key: str, title: str, why: str, head: tuple[str, ...]) -> Plot:
    """A plot that has nothing to show, and says why."""
    drawing = Drawing(title, why)
    drawing.nothing(why)
    return Plot(key=key, title=title, svg=drawing.done(), legend=(), note="", head=head, rows=[])
