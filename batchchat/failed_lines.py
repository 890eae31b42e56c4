"""Lines of an errors file, which stand for the input that they carry."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchchat.jsonl import json_type

__all__ = ["failed_variant", "kept_line", "unwrap_failure"]

_FLAT_KEYS = frozenset(("id", "response", "error", "attempts", "input"))


def unwrap_failure(fields: dict[str, Any], id_field: str | None) -> dict[str, Any]:
    """The input object that a line of an errors file carries, with its id again; any other object as it is.

    Where several prompts are made of an input line, it is that line's id.

    Raises:
        ValueError: It is the line of an input fault that could not be kept.
    """
    fields = _peeled(fields)
    failed = _failed(fields)
    if failed is None:
        return fields
    if not isinstance(failed.line, dict):
        if failed.is_fault:
            raise ValueError("found an earlier run's input fault without its input; mend the line in its own file")
        raise ValueError(f"expected an object in 'input', found {json_type(failed.line)}")
    line_id = failed.id if failed.variant is None else failed.variant["id"]
    key = id_field or "id"
    # The id stands first and wins, though the input may have a field of that name.
    return {key: line_id} | failed.line | {key: line_id}


def failed_variant(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which of the prompts of an input line a line of an errors file stands for; None for any other object."""
    failed = _failed(_peeled(fields))
    return None if failed is None else failed.variant


def kept_line(fields: dict[str, Any], id_field: str | None) -> dict[str, Any]:
    """What the line of an input fault keeps of an object, so that it can be asked again.

    That of one of several prompts of a line stays whole, as it says which of them it stands for.
    """
    fields = _peeled(fields)
    if failed_variant(fields) is not None:
        return fields
    try:
        return unwrap_failure(fields, id_field)
    except ValueError:
        return fields


def _peeled(fields: Any) -> Any:
    """The object that was faulty, where a line tells of an input fault and kept it."""
    while (failed := _failed(fields)) is not None and failed.is_fault and isinstance(failed.line, dict):
        fields = failed.line
    return fields


class _Failed(NamedTuple):
    id: Any
    line: Any
    variant: dict[str, Any] | None
    is_fault: bool


def _failed(fields: Mapping[str, Any]) -> _Failed | None:
    """What the line of an errors file holds; None for any other object.

    Both forms of result lines are known; the batch form holds its input and the typed id under ``batchchat``.
    """
    error, ours = fields.get("error"), fields.get("batchchat")
    if "custom_id" in fields and isinstance(ours, dict) and (error is not None or _is_failed(fields.get("response"))):
        line_id, given = ours.get("id", fields["custom_id"]), ours.get("input")
    elif fields.keys() >= _FLAT_KEYS and isinstance(error, dict) and "type" in error and fields["response"] is None:
        ours, line_id, given = fields, fields["id"], fields["input"]
    else:
        return None
    variant = ours.get("variant")
    told = variant if isinstance(variant, dict) and "id" in variant else None
    is_input = isinstance(error, dict) and "input" in (error.get("type"), error.get("code"))
    # A prompt whose attachment went away failed for its input as well, but it had a fingerprint.
    return _Failed(line_id, given, told, is_input and not ours.get("fingerprint"))


def _is_failed(response: Any) -> bool:
    return response is None or (isinstance(response, dict) and response.get("status_code") != 200)
