"""Batch outputs of Anthropic and Bedrock as flat results.

Source: https://docs.anthropic.com/en/api/retrieving-message-batch-results and
https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html.
"""

from collections.abc import Callable, Mapping
from typing import Any

from batchchat.forms.bedrock import read_bedrock_line
from batchchat.forms.openai_results import read_openai_result
from batchchat.input_lines import checked_id
from batchchat.jsonl import dump_line

__all__ = ["read_anthropic_result", "read_bedrock_result"]

_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
            "refusal": "content_filter"}  # fmt: skip
_STATUS = {"invalid_request_error": 400, "authentication_error": 401, "permission_error": 403, "not_found_error": 404,
           "rate_limit_error": 429, "api_error": 500, "overloaded_error": 529}  # fmt: skip
Tell = Callable[[str, str], None]


def read_anthropic_result(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The flat result of a line of a message batch's results.

    Raises:
        ValueError: It is none.
    """
    result = obj.get("result")
    if "custom_id" not in obj or not isinstance(result, dict):
        raise ValueError("expected 'custom_id' and 'result' (an object), found " + _names(obj))
    line_id, kind = checked_id(obj["custom_id"], "custom_id"), result.get("type")
    message = result.get("message")
    if kind == "succeeded" and isinstance(message, dict):
        return read_openai_result(_answered(line_id, message, tell))
    if kind in ("canceled", "expired"):
        code = "batch_cancelled" if kind == "canceled" else "batch_expired"
        return read_openai_result(_failed(line_id, None, code, f"the batch was {kind} before this request"))
    error = _mapping(result.get("error"))
    error = _mapping(error.get("error")) or error
    return read_openai_result(
        _failed(line_id, _STATUS.get(str(error.get("type")), 400), "error", str(error.get("message") or kind))
    )


def read_bedrock_result(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The flat result of a line of a Bedrock batch's output, with its input.

    Raises:
        ValueError: It is none, or of a family of models that is not known here.
    """
    line_id = checked_id(obj.get("recordId"), "recordId")
    error, output = _mapping(obj.get("error")), obj.get("modelOutput")
    if error:
        code = error.get("errorCode")
        status = code if isinstance(code, int) else 400
        line = read_openai_result(_failed(line_id, status, "error", str(error.get("errorMessage") or "no message")))
    elif isinstance(output, dict):
        line = read_openai_result(_bedrock_answer(line_id, output, tell))
    else:
        raise ValueError("expected 'modelOutput' (an object) or 'error', found " + _names(obj))
    try:
        given = read_bedrock_line({"recordId": line_id, "modelInput": obj.get("modelInput")}, tell)
    except ValueError:
        return line
    del given["id"]
    return line | {"input": given}


def _bedrock_answer(line_id: Any, output: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    message = _mapping(_mapping(output.get("output")).get("message"))
    if "choices" in output:
        return {"custom_id": line_id, "response": {"status_code": 200, "body": output}, "error": None}
    if message:
        usage = _mapping(output.get("usage"))
        counts = {"input_tokens": usage.get("inputTokens"), "output_tokens": usage.get("outputTokens")}
        parts = [{"type": "text", **part} for part in _parts(message) if "text" in part]
        return _answered(line_id, {"content": parts, "stop_reason": output.get("stopReason"), "usage": counts}, tell)
    if not isinstance(output.get("content"), list):
        raise ValueError("expected 'content', 'output' or 'choices' in 'modelOutput', found " + _names(output))
    return _answered(line_id, output, tell)


def _answered(line_id: Any, message: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """A message of Anthropic's as a line of OpenAI's batch output."""
    parts = _parts(message)
    texts = [part["text"] for part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)]
    calls = [_call(part) for part in parts if part.get("type") == "tool_use"]
    for kind in sorted({str(part.get("type")) for part in parts} - {"text", "tool_use"}):
        tell(f"a part of the type {kind!r} in the answer", "which flat results do not hold")
    usage, reason = _mapping(message.get("usage")), message.get("stop_reason")
    # Anthropic counts what goes to and comes from its cache apart.
    cached = _count(usage, "cache_read_input_tokens") + _count(usage, "cache_creation_input_tokens")
    sent = usage.get("input_tokens")
    counts = {
        "prompt_tokens": sent + cached if isinstance(sent, int) else None,
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": {"cached_tokens": usage.get("cache_read_input_tokens")},
    }
    answer: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    choice = {
        "message": answer | ({"tool_calls": calls} if calls else {}),
        "finish_reason": _REASONS.get(str(reason), reason),
    }
    body = {"model": message.get("model"), "choices": [choice], "usage": counts}
    return {"custom_id": line_id, "response": {"status_code": 200, "body": body}, "error": None}


def _call(part: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dump_line({"": part.get("input")})[4:-2].decode()
    return {"id": part.get("id"), "type": "function", "function": {"name": part.get("name"), "arguments": arguments}}


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _count(usage: Mapping[str, Any], name: str) -> int:
    count = usage.get(name)
    return count if isinstance(count, int) else 0


def _failed(line_id: Any, status: int | None, code: str, message: str) -> dict[str, Any]:
    error = {"code": code, "message": message}
    if status is None:
        return {"custom_id": line_id, "response": None, "error": error}
    return {"custom_id": line_id, "response": {"status_code": status, "body": {"error": error}}, "error": None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(obj: Mapping[str, Any]) -> str:
    return "the fields " + (", ".join(repr(name) for name in list(obj)[:20]) or "none")
