"""Axes of plots: where their ticks stand, and what is written at them."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from batchchat.durations import two_units
from batchchat.insight.series import Stretch

__all__ = ["Render", "TimeScale", "ValueScale", "render_moment", "render_number", "render_seconds"]

_TIME_STEPS_S = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200),
    *(86400 * days for days in (1, 2, 7, 14, 28, 91, 365, 1461, 3653, 36525, 365250)),
)
_BREAK_WIDTH = 10.0
# Latencies from a minute on stand at round minutes, hours and days.
_LONG_TICKS_S = (
    *(60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 18000.0, 43200.0),
    *(86400.0 * days for days in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)

Render = Callable[[float], str]


class ValueScale(msgspec.Struct, frozen=True):
    """From values to a coordinate.

    Attributes:
        low, high: Values at ``begin`` and ``end``.
        begin, end: Coordinates.
        ticks: Values worth a line.
        log: Whether equal distances are equal ratios.
    """

    low: float
    high: float
    begin: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The coordinate of a value; one outside stands at the end of the scale."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    @classmethod
    def linear(
        cls, most: float, begin: float, end: float, *, whole: bool = False, seconds: bool = False
    ) -> "ValueScale":
        """From 0 to a round number that is not below ``most``, with some five ticks.

        Args:
            whole: Ticks are whole numbers.
            seconds: The values are; long ones get ticks of whole minutes, hours or days.
        """
        most = most if 0 < most < 1e30 else 1.0
        step = _round_step(most / 4)
        if seconds and most > 60:
            steps = (15.0, 30.0, *_LONG_TICKS_S) if most <= 120 else _LONG_TICKS_S
            step = next((tick for tick in steps if tick * 5 >= most), step)
        step = max(step, 1.0) if whole else step
        count = math.ceil(most / step - 1e-9)
        return cls(0.0, step * count, begin, end, tuple(step * number for number in range(count + 1)))

    @classmethod
    def log_seconds(cls, least: float, most: float, begin: float, end: float) -> "ValueScale":
        """From about ``least`` to about ``most`` seconds, with ticks at 1, 2, 5, 10 … and then at minutes and hours."""
        low, high = least, max(most, least * 2)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        wide = math.log10(high / low) > 3.6
        short = (factor * 10.0**power for power in powers for factor in ((1,) if wide else (1, 2, 5)))
        long = _LONG_TICKS_S[:: 2 if wide else 1]
        ticks = (*(tick for tick in short if tick < 45), *long)
        inside = tuple(tick for tick in ticks if low * 0.999 <= tick <= high * 1.001)
        return cls(low, high, begin, end, inside or (low,), log=True)


class TimeScale:
    """From Unix times to a coordinate, without what lies between the stretches.

    Args:
        begin, end: Coordinates.

    Attributes:
        breaks: Where time was cut out: coordinate and seconds.
        ticks: Coordinates and texts, far enough from each other to be read.
        dated: Whether texts need a date.
    """

    def __init__(self, stretches: Sequence[Stretch], begin: float, end: float, *, label_width: float = 62.0) -> None:
        spans = [stretch.columns[-1].end_s - stretch.columns[0].start_s for stretch in stretches]
        gap = min(_BREAK_WIDTH, 0.3 * (end - begin) / max(1, len(spans)))
        self._per_s = (end - begin - gap * (len(spans) - 1)) / sum(spans)
        self._parts: list[tuple[float, float, float]] = []
        self.breaks: list[tuple[float, float]] = []
        at = begin
        for stretch, span in zip(stretches, spans, strict=True):
            if self._parts:
                self.breaks.append((at + gap / 2, stretch.idle_before_s))
                at += gap
            self._parts.append((stretch.columns[0].start_s, stretch.columns[-1].end_s, at))
            at += span * self._per_s
        self.dated = _day(self._parts[0][0]) != _day(self._parts[-1][1])
        self.ticks = self._ticks(label_width * 1.3 if self.dated else label_width, end)

    def at(self, moment_s: float) -> float:
        """The coordinate of a time; one that was cut out stands at the start of the stretch behind it."""
        for start_s, end_s, begin in self._parts:
            if moment_s <= end_s:
                return begin + max(0.0, moment_s - start_s) * self._per_s
        _, end_s, begin = self._parts[-1]
        return begin + (end_s - self._parts[-1][0]) * self._per_s

    def _ticks(self, apart: float, end: float) -> list[tuple[float, str]]:
        step_s = next((step for step in _TIME_STEPS_S if step * self._per_s >= apart), _TIME_STEPS_S[-1])
        seconds = step_s < 60
        found: list[tuple[float, str]] = []
        for start_s, end_s, begin in self._parts:
            number = math.ceil(start_s / step_s)
            while (moment_s := number * step_s) <= end_s:
                at = begin + (moment_s - start_s) * self._per_s
                if (not found or at - found[-1][0] >= apart) and at <= end:
                    found.append((at, render_moment(moment_s, dated=self.dated, seconds=seconds)))
                number += 1
        if not found:
            start_s, _, begin = self._parts[0]
            found.append((begin, render_moment(start_s, dated=self.dated, seconds=True)))
        return found


def render_moment(moment_s: float, *, dated: bool, seconds: bool = True) -> str:
    """A Unix time in UTC: ``10:03``, ``10:03:11``, ``11-25 10:03``; years that no calendar has as seconds."""
    try:
        at = datetime.fromtimestamp(moment_s, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{moment_s:.0f}"
    clock = f"{at:%H:%M:%S}" if seconds else f"{at:%H:%M}"
    return f"{at:%m-%d} {clock}" if dated else clock


def render_number(value: float) -> str:
    """Three digits, in words of four signs: ``0.25``, ``12``, ``3.4k``, ``12M``."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= max(size, 1e4) * 0.99995:
            scaled = value / size
            return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:,.0f}{unit}"
    if value >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def render_seconds(seconds: float) -> str:
    """A latency: ``12 ms``, ``0.84 s``, ``90 s``, ``2 min 5 s``, ``1 h 2 min``."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.3g} ms" if seconds > 0 else "0 s"
    if seconds < 119.5:
        return f"{seconds:.3g} s"
    return two_units(round(seconds), minute="min", before=" ")


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def _day(moment_s: float) -> int:
    return int(moment_s // 86400)
