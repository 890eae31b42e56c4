"""Result lines of both forms."""

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest

from batchchat.jsonl import dump_line
from batchchat.records import Completion, Usage
from batchchat.results import (
    fingerprint_value,
    outcome_from_object,
    outcome_to_batch_object,
    outcome_to_object,
    parse_stored,
)
from tests.result_lines import FINGERPRINT, FINISHED_AT, answered, failed

CALLS = [{"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]
OUTCOMES = {
    "answer": answered("q-17"),
    "integer id": answered(17),
    "failure": failed("q-18"),
    "fault": failed("line-3", line=None, fingerprint=None, provider=None, attempts=0, latency_s=None),
    "tool call": answered("t", completion=Completion(text=None, tool_calls=CALLS, finish_reason="tool_calls")),
    "turns": answered("c", responses=["one", None, "three"]),
    "bare": answered("b", completion=Completion(text=""), line={}),
    "full usage": answered(
        "f",
        completion=Completion(
            text="x",
            usage=Usage(input_tokens=9, output_tokens=3, cached_tokens=4, reasoning_tokens=2, estimated=True),
        ),
    ),
    "parsed": answered("j", parsed={"answer": [1, None]}, value=None),
    "parsed null": answered("n", parsed=None),
    "reused": answered("r", reused_from={"id": 7, "path": "old.jsonl"}, attempts=0),
    "variant": answered("q/short@m#2", variant={"id": "q", "template": "short", "model": "m", "sample": 2}),
    "attempts": answered(
        "s",
        attempts=2,
        failed_attempts=[{"attempt": 1, "after_s": 0.5, "type": "server", "status": 502, "message": "no"}],
    ),
    "choices": answered("k", completion=Completion(text="b", choices=[None, "b", "c"], finish_reason="stop")),
    "failure that cost": failed("q-19", usage=Usage(input_tokens=9, output_tokens=3)),
    "half usage": answered("u", completion=Completion(text="x", usage=Usage(output_tokens=3))),
}


def test_flat_line_is_the_documented_one():
    obj = outcome_to_object(answered("q-17"))
    assert dump_line(obj).decode() == (
        '{"id":"q-17","response":"Because …","error":null,"finish_reason":"stop","model":"gpt-4",'
        '"usage":{"input_tokens":9,"output_tokens":80},"attempts":1,"latency_s":3.21,"first_delta_s":0.84,'
        '"finished_at":"2026-11-25T10:03:11.120Z","provider":"ai-engine","index":16,"fingerprint":"9f2c61d0a7b3e418",'
        '"input":{"question":"Why is the sky blue?","topic":"physics"}}\n'
    )


def test_failure_has_the_same_keys_and_the_whole_error():
    obj = outcome_to_object(failed("q-18"), carry="none")
    assert list(obj) == list(outcome_to_object(answered("q-17")))
    assert obj["response"] is None
    assert obj["error"] == {
        "type": "server",
        "message": "bad gateway",
        "status": 502,
        "retryable": True,
        "partial": "The answer",
    }
    assert obj["input"] == {"question": "Why?"}


def test_carry_says_what_of_the_input_stands_in_an_answer():
    outcome = answered("a")
    assert outcome_to_object(outcome, carry="none")["input"] is None
    assert outcome_to_object(outcome, carry=("topic", "missing"))["input"] == {"topic": "physics"}
    assert outcome_to_batch_object(outcome, carry=("topic",))["batchchat"]["input"] == {"topic": "physics"}


def test_times_are_utc_whatever_zone_they_come_in():
    east = FINISHED_AT.astimezone(timezone(timedelta(hours=2)))
    assert outcome_to_object(answered("a", finished_at=east))["finished_at"] == "2026-11-25T10:03:11.120Z"


def test_times_are_written_alike_whatever_was_written_before() -> None:
    """Seconds and milliseconds in any order, around every turn of a second and before 1970."""
    steps = [timedelta(microseconds=number) for number in (0, 1, 999, 1000, 999_999, 1_000_000, -1, -1_000_000)]
    moments = [FINISHED_AT + step + other for step in steps for other in steps]
    moments += [datetime(year, 1, 1, tzinfo=UTC) + step for year in (2, 1969, 1970, 9999) for step in steps[:5]]
    for moment in [*moments, *reversed(moments)]:
        plain = moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        assert outcome_to_object(answered("a", finished_at=moment))["finished_at"] == plain


def test_batch_line_is_read_by_readers_of_that_form():
    obj = outcome_to_batch_object(answered(17))
    assert obj["custom_id"] == "17"
    assert obj["id"].startswith("batch_req_")
    assert obj == outcome_to_batch_object(answered(17))
    assert obj["error"] is None
    assert obj["response"]["status_code"] == 200
    body = obj["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "Because …"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["model"] == "gpt-4"
    assert body["usage"] == {"prompt_tokens": 9, "completion_tokens": 80, "total_tokens": 89}
    assert body["created"] == int(FINISHED_AT.timestamp())
    failure = outcome_to_batch_object(failed("f"))
    assert failure["response"] is None
    assert failure["error"] == {"code": "server", "message": "bad gateway"}


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize("build", [outcome_to_object, outcome_to_batch_object])
def test_every_outcome_survives_the_way_to_its_line_and_back(outcome, build):
    obj = orjson.loads(dump_line(build(outcome)))
    assert outcome_from_object(obj) == outcome
    stored = parse_stored(obj)
    assert (stored.id, stored.fingerprint) == (outcome.id, outcome.fingerprint)
    assert type(stored.id) is type(outcome.id)
    assert stored.answered == (outcome.error is None)


@pytest.mark.parametrize(
    ("obj", "answered"),
    [
        ({"id": "a", "response": "x"}, True),
        ({"id": "a", "response": None, "error": None}, False),
        ({"id": "a", "response": "x", "error": {"type": "server"}}, False),
        ({"custom_id": "a", "response": {"status_code": 200, "body": {}}, "error": None}, True),
        ({"custom_id": "a", "response": {"status_code": 400, "body": {}}, "error": None}, False),
        ({"custom_id": "a", "response": None, "error": {"code": "x", "message": "y"}}, False),
    ],
)
def test_lines_of_other_writers_are_answers_only_without_any_sign_of_failure(obj, answered):
    assert parse_stored(obj).answered is answered
    assert (outcome_from_object(obj).error is None) is answered


@pytest.mark.parametrize(
    "obj",
    [
        {},
        {"id": "a"},
        {"response": "x"},
        {"id": "", "response": "x"},
        {"id": True, "response": "x"},
        {"id": 1.5, "response": "x"},
        {"custom_id": "a", "response": "text"},
    ],
)
def test_other_objects_are_no_results(obj):
    assert parse_stored(obj) is None
    with pytest.raises(ValueError, match="expected a result with id and response"):
        outcome_from_object(obj)


def test_odd_values_in_a_stored_line_count_as_not_told():
    obj = {"id": "a", "response": "x", "usage": [1], "attempts": "two", "finished_at": 7, "latency_s": "fast"}
    outcome = outcome_from_object(obj)
    assert outcome.completion == Completion(text="x")
    assert (outcome.attempts, outcome.latency_s) == (0, None)
    assert outcome.finished_at == datetime.fromtimestamp(0, UTC)


def test_fingerprint_is_a_64_bit_number_and_zero_only_where_there_is_none():
    assert fingerprint_value(FINGERPRINT) == 0x9F2C61D0A7B3E418
    assert fingerprint_value(None) == 0
    assert 0 < fingerprint_value("another tool's digest") < 2**64
    assert fingerprint_value("x" * 16) != fingerprint_value("y" * 16)
