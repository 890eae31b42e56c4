"""Result lines for tests; the same arguments give the same bytes."""

from datetime import UTC, datetime

from batchchat.jsonl import dump_line
from batchchat.records import Completion, Failure, Outcome, PromptId, Usage
from batchchat.results import outcome_to_object

FINGERPRINT = "9f2c61d0a7b3e418"
FINISHED_AT = datetime(2026, 11, 25, 10, 3, 11, 120_000, tzinfo=UTC)


def answered(prompt_id: PromptId, text: str | None = "Because …", **changes) -> Outcome:
    values = {
        "index": 16,
        "completion": Completion(
            text=text,
            finish_reason="stop",
            model="gpt-4",
            usage=Usage(input_tokens=9, output_tokens=80),
            first_delta_s=0.84,
        ),
        "attempts": 1,
        "latency_s": 3.21,
        "finished_at": FINISHED_AT,
        "provider": "ai-engine",
        "fingerprint": FINGERPRINT,
        "line": {"question": "Why is the sky blue?", "topic": "physics"},
    }
    return Outcome(id=prompt_id, **{**values, **changes})


def failed(prompt_id: PromptId, **changes) -> Outcome:
    values = {
        "index": 17,
        "error": Failure(type="server", message="bad gateway", status=502, retryable=True, partial="The answer"),
        "attempts": 6,
        "latency_s": 63.5,
        "finished_at": FINISHED_AT,
        "provider": "ai-engine",
        "fingerprint": FINGERPRINT,
        "line": {"question": "Why?"},
    }
    return Outcome(id=prompt_id, **{**values, **changes})


def answer(prompt_id: PromptId, text: str = "Because …", **changes) -> bytes:
    return dump_line(outcome_to_object(answered(prompt_id, text, **changes)))


def failure(prompt_id: PromptId) -> bytes:
    return dump_line(outcome_to_object(failed(prompt_id)))
