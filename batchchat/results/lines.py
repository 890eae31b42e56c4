"""Result lines: an outcome as the object of one line, in both forms; ``stored`` reads them."""

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from batchchat.records import Completion, Failure, Outcome, Usage

__all__ = ["Carry", "Form", "is_whole_as_batch", "outcome_to_batch_object", "outcome_to_object"]

Form = Literal["flat", "openai-batch"]
Carry = Literal["all", "none"] | tuple[str, ...]
# A second, and how it is written; see ``_render_time``.
_second = (datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01T00:00:00")
_HOSTED_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")


def outcome_to_object(outcome: Outcome, *, carry: Carry = "all") -> dict[str, Any]:
    """The flat form of a result line, keys in the documented order.

    ``responses`` and ``tool_calls`` are there only where the answer has them. Failures carry the whole input.
    """
    completion, error = outcome.completion, outcome.error
    obj: dict[str, Any] = {"id": outcome.id, "response": None if completion is None else completion.text}
    if outcome.responses is not None:
        obj["responses"] = outcome.responses
    if completion is not None and completion.tool_calls:
        obj["tool_calls"] = completion.tool_calls
    if completion is not None and completion.choices is not None:
        obj["choices"] = completion.choices
    _tell_structure(obj, outcome)
    obj["error"] = None if error is None else _error_object(error)
    obj["finish_reason"] = None if completion is None else completion.finish_reason
    obj["model"] = None if completion is None else completion.model
    obj["usage"] = _usage_object(outcome.usage if completion is None else completion.usage)
    obj["attempts"] = outcome.attempts
    obj["latency_s"] = outcome.latency_s
    obj["first_delta_s"] = None if completion is None else completion.first_delta_s
    obj["finished_at"] = _render_time(outcome.finished_at)
    obj["provider"] = outcome.provider
    obj["index"] = outcome.index
    obj["fingerprint"] = outcome.fingerprint
    _tell_origin(obj, outcome)
    obj["input"] = _carried(outcome, carry)
    return obj


def outcome_to_batch_object(outcome: Outcome, *, carry: Carry = "all") -> dict[str, Any]:
    """The OpenAI Batch output form; what it has no place for stands under one further key, ``batchchat``.

    Source: https://platform.openai.com/docs/guides/batch (output file: ``id``, ``custom_id``, ``response``,
    ``error``).
    """
    finished_at = _render_time(outcome.finished_at)
    digest = blake2b(f"{outcome.id!r} {finished_at}".encode("utf-8", "replace"), digest_size=12).hexdigest()
    completion, error = outcome.completion, outcome.error
    ours: dict[str, Any] = {
        "id": outcome.id,
        "index": outcome.index,
        "fingerprint": outcome.fingerprint,
        "attempts": outcome.attempts,
        "latency_s": outcome.latency_s,
        "first_delta_s": None if completion is None else completion.first_delta_s,
        "finished_at": finished_at,
        "provider": outcome.provider,
    }
    if outcome.responses is not None:
        ours["responses"] = outcome.responses
    _tell_structure(ours, outcome)
    _tell_origin(ours, outcome)
    if completion is not None:
        _tell_odd_parts(ours, completion)
    if outcome.usage is not None:
        ours["usage"] = _usage_object(outcome.usage)
    if error is not None:
        ours["error"] = {"status": error.status, "retryable": error.retryable, "partial": error.partial}
    ours["input"] = _carried(outcome, carry)
    return {
        "id": f"batch_req_{digest}",
        "custom_id": str(outcome.id),
        "response": None if completion is None else _batch_response(completion, digest, outcome.finished_at),
        "error": None if error is None else {"code": error.type, "message": error.message},
        "batchchat": ours,
    }


def is_whole_as_batch(outcome: Outcome) -> bool:
    """Whether the OpenAI Batch form surely holds all of the outcome, known without reading it back."""
    completion = outcome.completion
    if completion is None or completion.text is None or completion.tool_calls or completion.choices is not None:
        return False
    usage = completion.usage
    counted = usage is None or (_is_whole(usage) and not usage.estimated)
    return counted and bool(completion.model) and completion.finish_reason in _HOSTED_REASONS


def _carried(outcome: Outcome, carry: Carry) -> dict[str, Any] | None:
    line = outcome.line
    if line is None or carry == "all" or outcome.error is not None:
        return line
    if carry == "none":
        return None
    return {field: line[field] for field in carry if field in line}


def _error_object(error: Failure) -> dict[str, Any]:
    return {
        "type": error.type,
        "message": error.message,
        "status": error.status,
        "retryable": error.retryable,
        "partial": error.partial,
    }


def _tell_structure(obj: dict[str, Any], outcome: Outcome) -> None:
    if outcome.parsed is not msgspec.UNSET:
        obj["parsed"] = outcome.parsed
    if outcome.value is not msgspec.UNSET:
        obj["value"] = outcome.value


def _tell_odd_parts(ours: dict[str, Any], completion: Completion) -> None:
    """Keeps what the hosted form's readers would refuse in its place: other reasons, counts that are not known."""
    if completion.finish_reason not in _HOSTED_REASONS:
        ours["finish_reason"] = completion.finish_reason
    usage = completion.usage
    if usage is not None and not _is_whole(usage):
        ours["usage"] = _usage_object(usage)
    elif usage is not None and usage.estimated:
        ours["usage_estimated"] = True


def _is_whole(usage: Usage) -> bool:
    return usage.input_tokens is not None and usage.output_tokens is not None


def _tell_origin(obj: dict[str, Any], outcome: Outcome) -> None:
    if outcome.reused_from is not None:
        obj["reused_from"] = outcome.reused_from
    if outcome.variant is not None:
        obj["variant"] = outcome.variant
    if outcome.failed_attempts:
        obj["failed_attempts"] = outcome.failed_attempts


def _usage_object(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    obj: dict[str, Any] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if usage.cached_tokens is not None:
        obj["cached_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens is not None:
        obj["reasoning_tokens"] = usage.reasoning_tokens
    if usage.estimated:
        obj["estimated"] = True
    return obj


def _render_time(when: datetime) -> str:
    """In UTC, to the millisecond; what comes before the fraction is made once a second, as many lines share it."""
    global _second
    if when.tzinfo is not UTC:
        when = when.astimezone(UTC)
    began, text = _second
    since = when - began
    if since.days or since.seconds:
        began = when.replace(microsecond=0)
        text = began.isoformat()[:-6]
        _second = began, text
        since = when - began
    return f"{text}.{since.microseconds // 1000:03d}Z"


def _batch_choices(completion: Completion) -> list[dict[str, Any]]:
    """The answer as choices; tool calls stand in the one that is the answer."""
    texts = completion.choices if completion.choices is not None else [completion.text]
    answer = texts.index(completion.text) if completion.text in texts else 0
    reason = completion.finish_reason
    if reason not in _HOSTED_REASONS:
        reason = "tool_calls" if completion.tool_calls else "stop"
    made = []
    for index, text in enumerate(texts):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if completion.tool_calls and index == answer:
            message["tool_calls"] = completion.tool_calls
        made.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    return made


def _batch_response(completion: Completion, digest: str, finished_at: datetime) -> dict[str, Any]:
    usage = completion.usage
    counts: dict[str, Any] | None = None
    if usage is not None and _is_whole(usage):
        counts = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
        }
        if usage.cached_tokens is not None:
            counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
        if usage.reasoning_tokens is not None:
            counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    body = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": int(finished_at.timestamp()),
        "model": completion.model or "",
        "choices": _batch_choices(completion),
        "usage": counts,
    }
    return {"status_code": 200, "request_id": f"req_{digest}", "body": body}
