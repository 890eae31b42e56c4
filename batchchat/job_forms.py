"""What a job file writes in a form of its own: durations, rates, shares, lists of names."""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta

from batchchat.day_window import parse_window, parse_zone
from batchchat.durations import Rate, parse_duration, parse_rate
from batchchat.sections import Form

__all__ = ["Carry", "Failures", "Paths", "Rates", "Seconds", "Windows", "Zone"]

_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", re.ASCII)
_COUNT = re.compile(r"\d{1,18}", re.ASCII)


def _duration(value: Any) -> float:
    if not isinstance(value, str | int | float):
        raise ValueError("expected a duration such as 30s, found a list or mapping")
    return parse_duration(value)


def _rate(value: Any) -> Rate:
    if isinstance(value, Rate):
        return value
    return parse_rate(value if isinstance(value, str) else repr(value))


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a path or a list of paths, found {value!r}")
    return value


def _failures(value: Any) -> int | str:
    """A count as it is, a share as ``2%``."""
    if isinstance(value, str):
        if _COUNT.fullmatch(value.strip()):
            return int(value)
        match = _PERCENTAGE.fullmatch(value.strip())
        if match is not None and float(match[1]) <= 100:
            return f"{match[1]}%"
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"expected a number of prompts such as 100, or a share of them such as 2%, found {value!r}")


def _carry(value: Any) -> str | tuple[str, ...]:
    if value in ("all", "none"):
        return str(value)
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"expected all, none, or names of fields such as topic,source, found {value!r}")
    return tuple(name.strip() for name in names)


def _window(value: Any) -> str:
    return str(parse_window(value))


_SECONDS = Form(
    parse=_duration,
    words="a duration",
    schema={"type": ["string", "number"], "minimum": 0, "examples": ["500ms", "30s", "5m", "1h30m", 0]},
)
_RATES = Form(
    parse=_rate,
    words="a rate or a list of them",
    many=True,
    schema={"type": "string", "examples": ["200/s", "60/min", "1000/h", "10000/d"]},
)
_PATHS = Form(parse=_path, words="a path or a list of them", many=True, schema={"type": "string", "minLength": 1})
_FAILURES = Form(
    parse=_failures, words="a number or a percentage", schema={"type": ["integer", "string"], "examples": [100, "2%"]}
)
_CARRY = Form(
    parse=_carry,
    words="all, none or a list of names",
    schema={"type": ["string", "array"], "items": {"type": "string"}, "examples": ["all", "none", ["topic", "source"]]},
)
_WINDOWS = Form(
    parse=_window,
    words="a window of the day or a list of them",
    many=True,
    schema={"type": "string", "examples": ["22:00-06:00", "Mon-Fri 20:00-06:00", "Sat,Sun 00:00-24:00"]},
)
_ZONE = Form(
    parse=parse_zone, words="the name of a time zone", schema={"type": "string", "examples": ["Europe/Berlin"]}
)

Seconds = Annotated[float, Meta(ge=0, extra={"form": _SECONDS})]
Rates = Annotated[tuple[Rate, ...], Meta(extra={"form": _RATES})]
Paths = Annotated[list[str], Meta(extra={"form": _PATHS})]
Failures = Annotated[int | str, Meta(extra={"form": _FAILURES})]
Windows = Annotated[list[str], Meta(extra={"form": _WINDOWS})]
Zone = Annotated[str, Meta(extra={"form": _ZONE})]
Carry = Annotated[Literal["all", "none"] | tuple[str, ...], Meta(extra={"form": _CARRY})]
