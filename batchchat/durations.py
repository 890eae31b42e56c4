"""Durations and rates as people write them."""

import math
import re
from collections.abc import Sequence

import msgspec

__all__ = ["Rate", "limit_per_s", "parse_duration", "parse_rate", "render_duration", "render_speed", "two_units"]

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PARTS = re.compile("".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?){unit})?" for unit in _UNITS_S), re.ASCII)
_BARE = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
# Timers of event loops count milliseconds in a signed 64-bit number or less; nobody waits for longer than this.
_LONGEST_S = 36500 * 86400.0
_RATE_UNITS_S = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_RATE = re.compile(r"(\d{1,12})\s*/\s*([a-z]+)", re.ASCII | re.IGNORECASE)


class Rate(msgspec.Struct, frozen=True):
    """At most ``count`` requests in any ``per_s`` seconds."""

    count: int
    per_s: float

    def __str__(self) -> str:
        unit = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "d"}.get(self.per_s, f"{self.per_s:g}s")
        return f"{self.count}/{unit}"


def parse_duration(text: str | int | float, *, what: str = "duration") -> float:
    """Seconds of ``500ms``, ``30s``, ``5m``, ``1h30m``, ``1d``, or of a bare number.

    Raises:
        ValueError: It is no duration, or one of more than 36500 days; the sentence names ``what``.
    """
    seconds = _seconds(text)
    if seconds is None or not 0 <= seconds <= _LONGEST_S:
        raise ValueError(f"expected a {what} such as 500ms, 30s, 5m or 1h30m (0 for none), found {text!r}")
    return seconds


def _seconds(text: str | int | float) -> float | None:
    """Seconds without regard to their bounds, None where the form is wrong."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int | float):
        return float(text) if abs(text) <= _LONGEST_S else math.inf
    compact = text.strip().lower().replace(" ", "")
    if _BARE.fullmatch(compact):
        return float(compact)
    match = _PARTS.fullmatch(compact)
    if not compact or match is None:
        return None
    return sum(float(match[unit] or 0) * size for unit, size in _UNITS_S.items())


def render_duration(seconds: float) -> str:
    """Two largest units: ``2h 5m``, ``3m 20s``, ``4.1s``, ``250ms``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.3g}s"
    return two_units(round(seconds))


def two_units(seconds: int, *, minute: str = "m", before: str = "") -> str:
    """Whole seconds in their two largest units.

    Args:
        minute: The word for a minute.
        before: Stands between a number and its unit.
    """
    for large, small, size, step in (("d", "h", 86400, 3600), ("h", minute, 3600, 60), (minute, "s", 60, 1)):
        if seconds >= size:
            rest = seconds % size // step
            return f"{seconds // size}{before}{large}" + (f" {rest}{before}{small}" if rest else "")
    return f"{seconds}{before}s"


def render_speed(per_s: float) -> str:
    """Three digits, never an exponent for a large one: ``0.133/s``, ``16.8/s``, ``1,995/s``."""
    return f"{per_s:,.0f}/s" if per_s >= 999.5 else f"{per_s:.3g}/s"


def parse_rate(text: str) -> Rate:
    """The rate of ``200/s``, ``60/min``, ``1000/h``, ``10000/d``.

    Raises:
        ValueError: It is no rate, or one of zero requests.
    """
    match = _RATE.fullmatch(text.strip())
    unit = _RATE_UNITS_S.get(match[2].lower()) if match else None
    if match is None or unit is None or int(match[1]) < 1:
        raise ValueError(f"expected a rate such as 200/s, 60/min, 1000/h or 10000/d, found {text!r}")
    return Rate(int(match[1]), unit)


def limit_per_s(rates: Sequence[Rate]) -> float | None:
    """Requests a second that all these rates allow in the long run; None for no limit."""
    return min((rate.count / rate.per_s for rate in rates), default=None)
