"""Result lines: an outcome as the object of one line, in both forms, and back."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, TypeGuard, get_args

import msgspec

from batchchat.errors import ErrorType
from batchchat.records import Completion, Failure, Outcome, PromptId, Usage

__all__ = [
    "Carry",
    "Form",
    "StoredLine",
    "fingerprint_value",
    "outcome_from_object",
    "outcome_to_batch_object",
    "outcome_to_object",
    "parse_stored",
]

Form = Literal["flat", "openai-batch"]
Carry = Literal["all", "none"] | tuple[str, ...]
_ERROR_TYPES: tuple[str, ...] = get_args(ErrorType)


class StoredLine(msgspec.Struct, frozen=True, kw_only=True):
    """What resuming needs to know of a stored line.

    Attributes:
        fingerprint: Digest of what was asked, None where the line has none (another tool wrote it).
        answered: False for the line of a failure.
    """

    id: PromptId
    fingerprint: str | None
    answered: bool
    form: Form


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
    obj["error"] = None if error is None else _error_object(error)
    obj["finish_reason"] = None if completion is None else completion.finish_reason
    obj["model"] = None if completion is None else completion.model
    obj["usage"] = None if completion is None else _usage_object(completion.usage)
    obj["attempts"] = outcome.attempts
    obj["latency_s"] = outcome.latency_s
    obj["first_delta_s"] = None if completion is None else completion.first_delta_s
    obj["finished_at"] = _render_time(outcome.finished_at)
    obj["provider"] = outcome.provider
    obj["index"] = outcome.index
    obj["fingerprint"] = outcome.fingerprint
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


def parse_stored(obj: Mapping[str, Any]) -> StoredLine | None:
    """What a stored object of either form says of its prompt; None if it is no result line."""
    if "response" not in obj:
        return None
    if "custom_id" in obj:
        return _parse_batch(obj)
    prompt_id = obj.get("id")
    if not _is_id(prompt_id):
        return None
    error, fingerprint = obj.get("error"), obj.get("fingerprint")
    answered = error is None and (obj["response"] is not None or bool(obj.get("tool_calls")))
    return StoredLine(
        id=prompt_id,
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        answered=answered,
        form="flat",
    )


def outcome_from_object(obj: Mapping[str, Any]) -> Outcome:
    """The outcome that a stored object of either form tells of; keys that are missing or odd count as not told.

    Raises:
        ValueError: It is no result line.
    """
    stored = parse_stored(obj)
    if stored is None:
        raise ValueError(f"expected a result with id and response, found the keys {', '.join(map(str, obj)) or 'none'}")
    ours = obj if stored.form == "flat" else _mapping(obj.get("batchchat"))
    completion = error = None
    if not stored.answered:
        error = _read_error(obj, ours)
    elif stored.form == "flat":
        completion = _read_flat_completion(obj)
    else:
        completion = _read_batch_completion(obj, ours)
    responses, line = ours.get("responses"), ours.get("input")
    return Outcome(
        id=stored.id,
        index=_typed(ours.get("index"), int) or 0,
        completion=completion,
        error=error,
        attempts=_typed(ours.get("attempts"), int) or 0,
        latency_s=_number(ours.get("latency_s")),
        responses=list(responses) if isinstance(responses, list) else None,
        finished_at=_read_time(ours.get("finished_at")),
        provider=_typed(ours.get("provider"), str),
        fingerprint=stored.fingerprint,
        line=line if isinstance(line, dict) else None,
    )


def fingerprint_value(fingerprint: str | None) -> int:
    """A fingerprint as the 64-bit number that tables hold; 0 for none."""
    if fingerprint is None:
        return 0
    if len(fingerprint) == 16:
        try:
            return int(fingerprint, 16)
        except ValueError:
            pass
    return int.from_bytes(blake2b(fingerprint.encode("utf-8", "replace"), digest_size=8).digest(), "big")


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


def _usage_object(usage: Usage | None) -> dict[str, Any] | None:
    return None if usage is None else {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def _render_time(when: datetime) -> str:
    if when.tzinfo is not UTC:
        when = when.astimezone(UTC)
    return when.isoformat(timespec="milliseconds")[:-6] + "Z"


def _batch_response(completion: Completion, digest: str, finished_at: datetime) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None}
    if completion.tool_calls:
        message["tool_calls"] = completion.tool_calls
    usage = completion.usage
    counts: dict[str, Any] | None = None
    if usage is not None:
        counts = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
        }
    body = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": int(finished_at.timestamp()),
        "model": completion.model or "",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}],
        "usage": counts,
    }
    return {"status_code": 200, "request_id": f"req_{digest}", "body": body}


def _parse_batch(obj: Mapping[str, Any]) -> StoredLine | None:
    ours = _mapping(obj.get("batchchat"))
    prompt_id = ours.get("id", obj["custom_id"])
    response = obj["response"]
    if not _is_id(prompt_id) or not (response is None or isinstance(response, dict)):
        return None
    # Other writers of this form leave ``error`` null on an HTTP failure: the status counts as well.
    answered = obj.get("error") is None and response is not None and response.get("status_code", 200) == 200
    fingerprint = ours.get("fingerprint")
    return StoredLine(
        id=prompt_id,
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        answered=answered,
        form="openai-batch",
    )


def _is_id(value: Any) -> TypeGuard[PromptId]:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def _read_error(obj: Mapping[str, Any], ours: Mapping[str, Any]) -> Failure:
    error = _mapping(obj.get("error"))
    more = _mapping(ours.get("error"))
    kind = error.get("type") or error.get("code")
    return Failure(
        type=kind if isinstance(kind, str) and kind in _ERROR_TYPES else "protocol",  # type: ignore[arg-type]
        message=_typed(error.get("message"), str) or "no message",
        status=_typed(more.get("status"), int),
        retryable=more.get("retryable") is True,
        partial=_typed(more.get("partial"), str),
    )


def _read_flat_completion(obj: Mapping[str, Any]) -> Completion:
    usage = _mapping(obj.get("usage"))
    calls = obj.get("tool_calls")
    return Completion(
        text=_typed(obj.get("response"), str),
        finish_reason=_typed(obj.get("finish_reason"), str),
        model=_typed(obj.get("model"), str),
        usage=_read_usage(usage, "input_tokens", "output_tokens"),
        tool_calls=calls if isinstance(calls, list) and calls else None,
        first_delta_s=_number(obj.get("first_delta_s")),
    )


def _read_batch_completion(obj: Mapping[str, Any], ours: Mapping[str, Any]) -> Completion:
    body = _mapping(_mapping(obj.get("response")).get("body"))
    choices = body.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = _mapping(choice.get("message"))
    calls = message.get("tool_calls")
    return Completion(
        text=_typed(message.get("content"), str),
        finish_reason=_typed(choice.get("finish_reason"), str),
        model=_typed(body.get("model"), str) or None,
        usage=_read_usage(_mapping(body.get("usage")), "prompt_tokens", "completion_tokens"),
        tool_calls=calls if isinstance(calls, list) and calls else None,
        first_delta_s=_number(ours.get("first_delta_s")),
    )


def _read_usage(usage: Mapping[str, Any], sent: str, received: str) -> Usage | None:
    if not usage:
        return None
    return Usage(input_tokens=_typed(usage.get(sent), int), output_tokens=_typed(usage.get(received), int))


def _read_time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError):
        return datetime.fromtimestamp(0, UTC)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _typed(value: Any, kind: type[Any]) -> Any:
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
