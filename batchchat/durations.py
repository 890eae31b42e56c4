"""Durations and rates as people write them."""

import math
import re

import msgspec

__all__ = ["Rate", "parse_duration", "parse_rate", "render_duration"]

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
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
_RATE = re.compile(r"(\d+)\s*/\s*([a-z]+)", re.IGNORECASE)


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
        ValueError: It is no duration; the sentence names ``what``.
    """
    expected = f"expected a {what} such as 500ms, 30s, 5m or 1h30m (0 for none)"
    if isinstance(text, bool):
        raise ValueError(f"{expected}, found {text!r}")
    if isinstance(text, int | float):
        if not math.isfinite(text) or text < 0:
            raise ValueError(f"{expected}, found {text!r}")
        return float(text)
    compact = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{expected}, found {text!r}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def render_duration(seconds: float) -> str:
    """Two largest units: ``2h 5m``, ``3m 20s``, ``4.1s``, ``250ms``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    for large, small, size, step in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            rest = whole % size // step
            return f"{whole // size}{large} {rest}{small}" if rest else f"{whole // size}{large}"
    return f"{whole}s"


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
