"""What a service's headers ask for, read as seconds."""

from datetime import UTC, datetime

import pytest

from batchchat.errors import RateLimitError
from batchchat.retry import RetryPolicy, attempts, parse_retry_after, requested_wait_s

NOW = datetime(2026, 11, 25, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0.5 ", 0.5),
        ("0", 0.0),
        ("Wed, 25 Nov 2026 10:00:30 GMT", 30.0),
        ("Wednesday, 25-Nov-26 10:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 09:00:30 GMT", None),
        ("-3", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("9" * 400, None),
        ("99999999999999", None),
        ("Wed, 25 Nov 99999 10:00:30 GMT", None),
        ("Wed, 99 Nov 2026 10:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_or_left_out(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"retry-after-ms": "x", "Retry-After": "9"}, 9.0),
        ({"Retry-After": "Wed, 25 Nov 2026 10:00:30 GMT", "Date": "Wed, 25 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 25 Nov 2006 10:00:30 GMT", "Date": "Wed, 25 Nov 2006 10:00:00 GMT"}, 30.0),
        ({"Retry-After": "garbage"}, None),
        ({}, None),
    ],
)
def test_date_is_measured_against_the_answers_own_clock(headers: dict[str, str], seconds: float | None) -> None:
    assert requested_wait_s(headers) == seconds


async def test_attempts_are_bounded_by_the_policy() -> None:
    """Two retries are three attempts; the last error comes out."""
    made = 0
    policy = RetryPolicy(retries=2, wait_initial_s=0.001, wait_max_s=0.002, wait_jitter_s=0.001)
    with pytest.raises(RateLimitError, match="attempt 3"):
        async for attempt in attempts(policy, lambda error: True):
            with attempt:
                made += 1
                raise RateLimitError(f"attempt {made}")
    assert made == 3
