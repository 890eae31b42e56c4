"""A run ends early when the prompts to come would fail as well, and not before."""

from typing import Any

import pytest

from batchchat.errors import (
    AttachmentError,
    AuthError,
    BlockedError,
    InvalidRequestError,
    ProviderError,
    QuotaError,
    RateLimitError,
    ServerError,
)
from batchchat.stopping import StopRules


def test_three_hopeless_failures_in_a_row_stop_the_run() -> None:
    rules = StopRules()
    assert rules.failed(1, AuthError("no")) is None
    assert rules.failed(2, QuotaError("no")) is None
    reason = rules.failed(3, AuthError("bad key"))
    assert reason is not None
    assert reason.kind == "service"
    assert "bad key" in reason.message


def test_an_answer_in_between_starts_the_count_anew() -> None:
    rules = StopRules()
    for number in range(10):
        assert rules.failed(number, AuthError("no")) is None
        assert rules.failed(number, AuthError("no")) is None
        rules.answered()


def test_twenty_refusals_with_one_text_stop_the_run() -> None:
    rules = StopRules()
    reasons = [rules.failed(number, InvalidRequestError("rejected")) for number in range(20)]
    assert reasons[:19] == [None] * 19
    assert reasons[19] is not None
    assert reasons[19].kind == "service"


def test_files_that_went_away_do_not_stop_the_run() -> None:
    """All prompts of a line have the same ones, and no service has refused anything."""
    rules = StopRules()
    assert [rules.failed(number, AttachmentError("a.png: gone")) for number in range(50)] == [None] * 50
    rules = StopRules(max_failures=3)
    assert rules.failed(0, AttachmentError("a.png: gone")) is None
    assert [rules.failed(n, AttachmentError("a.png: gone")) is None for n in range(3)] == [True, True, False]


def test_refusals_with_different_texts_do_not_stop_the_run() -> None:
    rules = StopRules()
    assert all(rules.failed(number, InvalidRequestError(f"rejected {number}")) is None for number in range(100))


def test_server_faults_do_not_stop_the_run() -> None:
    rules = StopRules()
    assert all(rules.failed(number, ServerError("down")) is None for number in range(100))


def test_one_wait_that_is_too_long_stops_the_run() -> None:
    rules = StopRules(max_wait_s=300)
    assert rules.failed(1, RateLimitError("busy", retry_after_s=299)) is None
    reason = rules.failed(2, RateLimitError("busy", retry_after_s=10800))
    assert reason is not None
    assert reason.kind == "service"
    assert "10800 s" in reason.message


def test_more_failures_than_allowed_stop_the_run() -> None:
    rules = StopRules(max_failures=2)
    assert rules.failed(1, ServerError("down")) is None
    assert rules.failed(2, None) is None
    reason = rules.failed(3, ServerError("down"))
    assert reason is not None
    assert reason.kind == "limit"


def test_zero_failures_allowed_stops_at_the_first() -> None:
    reason = StopRules(max_failures=0).failed(1, ServerError("down"))
    assert reason is not None
    assert reason.kind == "limit"


def test_percentage_counts_against_the_whole_input() -> None:
    rules = StopRules(max_failed_share=0.02, total=100)
    assert rules.failed(1, ServerError("down")) is None
    assert rules.failed(2, ServerError("down")) is None
    assert rules.failed(3, ServerError("down")) is not None


@pytest.mark.parametrize("error", [AuthError("bad key"), QuotaError("bad key"), BlockedError("bad key")])
@pytest.mark.parametrize("limit", [{"max_failures": 0}, {"max_failed_share": 0.05, "total": 2}])
def test_the_services_refusal_is_the_reason_where_it_passes_the_users_limit(
    error: ProviderError, limit: dict[str, Any]
) -> None:
    """It stops as early as the limit says, and tells what has to be mended."""
    reason = StopRules(**limit).failed(1, error)
    assert reason is not None
    assert reason.kind == "service"
    assert "more than --max-failures" in reason.message
    assert reason.message.endswith(f"; the last one met: {error.type}: bad key")


@pytest.mark.parametrize("last", [ServerError("down"), InvalidRequestError("no"), AttachmentError("gone"), None])
def test_the_users_limit_is_the_reason_where_the_last_failure_is_one_prompts(last: ProviderError | None) -> None:
    rules = StopRules(max_failures=2)
    assert rules.failed(1, AuthError("no")) is None
    assert rules.failed(2, AuthError("no")) is None
    reason = rules.failed(3, last)
    assert reason is not None
    assert reason.kind == "limit"
