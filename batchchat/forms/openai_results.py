"""OpenAI's batch output to flat results and back; lines of the hosted service leave null what they do not tell."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from batchchat.forms.plain_answers import plain_from_batch, plain_to_batch
from batchchat.providers.status import status_error
from batchchat.records import Failure
from batchchat.results import (
    is_stored,
    is_whole_as_batch,
    outcome_from_object,
    outcome_to_batch_object,
    outcome_to_object,
)

__all__ = ["check_result", "read_openai_result", "write_openai_result"]

_OURS_ALONE = ("attempts", "latency_s", "first_delta_s", "finished_at", "provider", "index", "fingerprint", "input")


def check_result(obj: dict[str, Any]) -> dict[str, Any]:
    """The line itself.

    Raises:
        ValueError: It is no result.
    """
    if not is_stored(obj):
        names = ", ".join(repr(name) for name in list(obj)[:20]) or "none"
        raise ValueError(f"expected a result with 'id' and 'response', found the fields {names}")
    return obj


def read_openai_result(obj: dict[str, Any]) -> dict[str, Any]:
    """The flat result of a line of OpenAI's batch output, whoever wrote it.

    Raises:
        ValueError: It is none.
    """
    if (plain := plain_from_batch(obj)) is not None:
        return plain
    outcome = outcome_from_object(check_result(obj))
    if isinstance(obj.get("batchchat"), dict):
        return outcome_to_object(outcome)
    if outcome.error is not None:
        outcome = msgspec.structs.replace(outcome, error=_hosted_failure(obj))
    line = outcome_to_object(outcome)
    line |= dict.fromkeys(_OURS_ALONE)
    created = _at(obj, "response", "body", "created")
    if isinstance(created, int) and 0 < created < 1 << 34:
        line["finished_at"] = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    return line


def write_openai_result(line: dict[str, Any], tell: Callable[[str, str], None]) -> dict[str, Any]:
    """The line of OpenAI's batch output for a flat result.

    Raises:
        ValueError: It is no result.
    """
    if (plain := plain_to_batch(line)) is not None:
        return plain
    check_result(line)
    outcome = outcome_from_object(line)
    obj = outcome_to_batch_object(outcome)
    back = outcome_to_object(outcome) if is_whole_as_batch(outcome) else read_openai_result(obj)
    for name, value in line.items():
        if name not in back:
            tell(repr(name), "which OpenAI batch lines cannot hold")
        elif back[name] != value and not (value is None and name in _OURS_ALONE):
            tell(f"an unusual {name!r}", "which OpenAI batch lines cannot hold as it is")
    return obj


def _hosted_failure(obj: Mapping[str, Any]) -> Failure:
    """What the hosted service says of a failure: under ``error``, or as the body of a status other than 200."""
    error = obj.get("error") or {}
    told = _at(obj, "response", "body", "error") or {}
    status = _at(obj, "response", "status_code")
    message = next(
        (e["message"] for e in (told, error) if isinstance(e, dict) and isinstance(e.get("message"), str)), None
    )
    if isinstance(status, int) and status != 200:
        return Failure.from_error(status_error(status, message or f"status {status}", {}))
    code = error.get("code") if isinstance(error, dict) else None
    kind: Any = "timeout" if code == "batch_expired" else "cancelled" if code == "batch_cancelled" else "protocol"
    return Failure(type=kind, message=message or "no message", retryable=kind == "timeout")


def _at(obj: Any, *names: str) -> Any:
    for name in names:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(name)
    return obj
