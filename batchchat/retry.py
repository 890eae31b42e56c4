"""When an attempt is made again, and after how long.

Waits grow exponentially with jitter; what a service asks for comes on top as a pause of the whole run
(``Limiter.pause``), so that no worker sends before it and none has to know of the others.
"""

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

__all__ = ["MOST_WAIT_S", "RetryPolicy", "parse_retry_after", "requested_wait_s"]

# Beyond this a header's number is a fault of its sender, not a wish: a hundred years.
MOST_WAIT_S = 100 * 366 * 86400.0
_MOST_DOUBLINGS = 64  # no first wait is so short that more would tell; a float holds them


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently a prompt is asked again.

    Attributes:
        retries: Further attempts after the first, >= 0.
        wait_initial_s: First wait in seconds; each next one doubles.
        wait_max_s: Ceiling of one wait in seconds.
        wait_jitter_s: Up to so many seconds are added at random to each wait (the ceiling stays).
    """

    retries: int = 5
    wait_initial_s: float = 1.0
    wait_max_s: float = 60.0
    wait_jitter_s: float = 1.0

    def wait_s(self, failed: int) -> float:
        """Seconds to wait before the next attempt.

        Args:
            failed: Attempts that have failed, from 1.
        """
        doubled = self.wait_initial_s * 2.0 ** min(failed - 1, _MOST_DOUBLINGS)
        return min(self.wait_max_s, doubled + random.uniform(0, self.wait_jitter_s))


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Seconds to wait that an HTTP ``Retry-After`` header asks for.

    Args:
        value: Header value: seconds ("120", "0.5") or an HTTP-date.
        now: Time zone-aware time to measure a date against: the answer's own ``Date``, else the local clock.

    Returns:
        Seconds >= 0; None where the value is neither form, is past or overflows (a server's typo must not
        stop a run).

    Source: RFC 9110, section 10.2.3; fractions as some services send them.
    """
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError, IndexError, TypeError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - now).total_seconds()
        return seconds if 0 < seconds <= MOST_WAIT_S else None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= MOST_WAIT_S else None


def requested_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer's headers ask to wait: ``retry-after-ms`` before ``Retry-After``; None for neither."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        seconds = parse_retry_after(milliseconds, datetime.now(UTC)) if milliseconds.strip()[:1].isdigit() else None
        if seconds is not None:
            return seconds / 1000
    value = headers.get("Retry-After")
    return None if value is None else parse_retry_after(value, _server_time(headers))


def _server_time(headers: Mapping[str, str]) -> datetime:
    """The answer's own clock, so that a wrong clock here does not shift a date in it."""
    try:
        date = parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, OverflowError, IndexError, TypeError):
        return datetime.now(UTC)
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
