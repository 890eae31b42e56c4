"""Stored result lines of both forms, and back to outcomes; keys that are missing or odd count as not told."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, TypeGuard, get_args

import msgspec

from batchchat.errors import ErrorType
from batchchat.input_lines import MOST_ID_BITS
from batchchat.records import Completion, Failure, Outcome, PromptId, Usage
from batchchat.results.lines import Form

__all__ = ["StoredLine", "fingerprint_value", "is_stored", "outcome_from_object", "parse_stored"]

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


def is_stored(obj: Mapping[str, Any]) -> bool:
    """Whether ``parse_stored`` takes the object for a result line."""
    if "response" in obj and "custom_id" not in obj:
        return _is_id(obj.get("id"))
    return parse_stored(obj) is not None


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
        usage=None if completion is not None else _read_usage(_mapping(ours.get("usage"))),
        parsed=ours.get("parsed", msgspec.UNSET),
        value=ours.get("value", msgspec.UNSET),
        reused_from=_typed(ours.get("reused_from"), dict),
        variant=_typed(ours.get("variant"), dict),
        failed_attempts=_typed(ours.get("failed_attempts"), list),
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
            if (value := int(fingerprint, 16)) >= 0:  # not of "-00000000000000f"
                return value
        except ValueError:
            pass
    return int.from_bytes(blake2b(fingerprint.encode("utf-8", "replace"), digest_size=8).digest(), "big")


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
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= MOST_ID_BITS
    return isinstance(value, str) and value != ""


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
    calls, choices = obj.get("tool_calls"), obj.get("choices")
    return Completion(
        text=_typed(obj.get("response"), str),
        finish_reason=_typed(obj.get("finish_reason"), str),
        model=_typed(obj.get("model"), str),
        usage=_read_usage(usage),
        tool_calls=calls if isinstance(calls, list) and calls else None,
        first_delta_s=_number(obj.get("first_delta_s")),
        choices=[_typed(text, str) for text in choices] if isinstance(choices, list) else None,
    )


def _read_batch_completion(obj: Mapping[str, Any], ours: Mapping[str, Any]) -> Completion:
    body = _mapping(_mapping(obj.get("response")).get("body"))
    choices = body.get("choices")
    made = [_mapping(choice) for choice in choices] if isinstance(choices, list) else []
    texts = [_typed(_mapping(choice.get("message")).get("content"), str) for choice in made]
    choice = made[next((index for index, text in enumerate(texts) if text is not None), 0)] if made else {}
    message = _mapping(choice.get("message"))
    calls = message.get("tool_calls")
    usage = _read_hosted_usage(_mapping(body.get("usage")), estimated=ours.get("usage_estimated") is True)
    return Completion(
        text=_typed(message.get("content"), str),
        finish_reason=_typed(ours.get("finish_reason", choice.get("finish_reason")), str),
        model=_typed(body.get("model"), str) or None,
        usage=_read_usage(_mapping(ours["usage"])) if "usage" in ours else usage,
        tool_calls=calls if isinstance(calls, list) and calls else None,
        first_delta_s=_number(ours.get("first_delta_s")),
        choices=texts if len(texts) > 1 else None,
    )


def _read_usage(usage: Mapping[str, Any]) -> Usage | None:
    if not usage:
        return None
    return Usage(
        input_tokens=_typed(usage.get("input_tokens"), int),
        output_tokens=_typed(usage.get("output_tokens"), int),
        cached_tokens=_typed(usage.get("cached_tokens"), int),
        reasoning_tokens=_typed(usage.get("reasoning_tokens"), int),
        estimated=usage.get("estimated") is True,
    )


def _read_hosted_usage(usage: Mapping[str, Any], *, estimated: bool) -> Usage | None:
    if not usage:
        return None
    return Usage(
        input_tokens=_typed(usage.get("prompt_tokens"), int),
        output_tokens=_typed(usage.get("completion_tokens"), int),
        cached_tokens=_typed(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens"), int),
        reasoning_tokens=_typed(_mapping(usage.get("completion_tokens_details")).get("reasoning_tokens"), int),
        estimated=estimated,
    )


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
