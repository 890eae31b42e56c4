"""What a service's headers ask for, read as seconds."""

from datetime import UTC, datetime

import pytest

from batchchat.retry import RetryPolicy, parse_retry_after, requested_wait_s

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


@pytest.mark.parametrize("failed", [1, 2, 3, 6, 7, 8, 100, 5000])
@pytest.mark.parametrize("jitter_s", [0.0, 1.0, 100.0])
def test_waits_double_with_jitter_up_to_the_longest(failed: int, jitter_s: float) -> None:
    """A wait lies between its doubled base and the same with the jitter, and never above the longest."""
    policy = RetryPolicy(wait_initial_s=1.0, wait_max_s=60.0, wait_jitter_s=jitter_s)
    base_s = float(min(60, 2 ** (failed - 1)))
    for _ in range(50):
        assert base_s <= policy.wait_s(failed) <= min(60.0, base_s + jitter_s)


def test_waits_of_prompts_that_failed_together_differ() -> None:
    """Jitter spreads them, so that a service that comes back does not meet all of them at once."""
    waits = {RetryPolicy().wait_s(2) for _ in range(50)}
    assert len(waits) > 40
