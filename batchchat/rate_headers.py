"""What a service tells of its limits in the headers of an answer: ``x-ratelimit-remaining-requests`` and its like."""

import math
import re
import time
from collections.abc import Mapping

import msgspec

__all__ = ["Quota", "RateHeaders", "parse_rate_headers", "parse_reset"]

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|d|h|m|s))+", re.ASCII)
_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# Numbers beyond these are points in time: seconds, or milliseconds, since 1970.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12
# A reset that is not told: most services count by the minute.
_USUAL_RESET_S = 60.0
_LARGEST = 10**15


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of one limit.

    Attributes:
        remaining: What may still be sent, as of the request that was answered.
        limit: The whole of it, None where that is not told.
        reset_s: Seconds until it is whole again.
    """

    remaining: int
    limit: int | None = None
    reset_s: float = _USUAL_RESET_S


class RateHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer tells; None for what it does not tell."""

    requests: Quota | None = None
    tokens: Quota | None = None


def parse_rate_headers(headers: Mapping[str, str]) -> RateHeaders | None:
    """The quotas that an answer's headers tell; None where they tell none.

    Names are those of OpenAI, Azure, Groq and many others (``x-ratelimit-remaining-requests``, ``-tokens``), or without
    a unit, for requests. Values that make no sense count as not told: Azure sends -1 for limits that it does not have.

    Args:
        headers: Looked up without regard to case.
    """
    if "x-ratelimit-remaining-requests" not in headers:
        requests = _quota(headers, "")
    else:
        requests = _quota(headers, "-requests")
    tokens = _quota(headers, "-tokens")
    return None if requests is None and tokens is None else RateHeaders(requests=requests, tokens=tokens)


def parse_reset(text: str, now_s: float) -> float | None:
    """Seconds that a reset header tells: ``6m0s``, ``120ms``, seconds, or a Unix time in seconds or milliseconds.

    Args:
        now_s: Unix time now.

    Returns:
        Seconds >= 0; None for anything else.
    """
    text = text.strip()
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
        return seconds if math.isfinite(seconds) else None
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or number < 0:
        return None
    if number >= _EPOCH_MS:
        number /= 1000
    return max(0.0, number - now_s) if number >= _EPOCH_S else number


def _quota(headers: Mapping[str, str], unit: str) -> Quota | None:
    remaining = _count(headers.get(f"x-ratelimit-remaining{unit}"))
    if remaining is None:
        return None
    limit = _count(headers.get(f"x-ratelimit-limit{unit}"))
    reset_s = parse_reset(headers.get(f"x-ratelimit-reset{unit}", ""), time.time())
    return Quota(
        remaining=remaining,
        limit=max(limit, remaining) if limit else None,
        reset_s=_USUAL_RESET_S if reset_s is None else reset_s,
    )


def _count(text: str | None) -> int | None:
    """A count; None for a negative one and for nonsense."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if 0 <= number <= _LARGEST else None
