"""Chat completions as values: the objects of the OpenAI-compatible protocol, and the dialects its streams come in."""

import json
import time
from typing import Any

from batchchat.devserver.pages import gateway_page, html_page, json_answer
from batchchat.devserver.question import FILTERED_TEXT, REFUSAL_TEXT, Reply, split_deltas
from batchchat.devserver.scenario import Scenario
from batchchat.devserver.wire import Answer, cut_answer

__all__ = ["common_fault", "completion_answer", "object_error"]

_STREAM = (("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"))
_ARGUMENTS = ('{"text": ', '"echo"}')
_STATUS_FAULTS = {
    "error_429": ("Rate limit reached for requests. Please try again later.", "requests", "rate_limit_exceeded"),
    "error_500": ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    "error_503": ("The engine is currently overloaded, please try again later.", "server_error", "overloaded"),
}


def object_error(
    status: int,
    message: str,
    kind: str,
    *,
    code: str | int | None = None,
    param: str | None = None,
    retry_after: str | None = None,
) -> Answer:
    """An error object with an HTTP status."""
    value = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    headers = (("Retry-After", retry_after),) if retry_after is not None else ()
    return json_answer(status, _dump(value).encode(), headers)


def common_fault(fault: str | None, scenario: Scenario) -> Answer | None:
    """The answer of a fault that comes in the place of any answer; None for the others."""
    if fault in _STATUS_FAULTS:
        message, kind, code = _STATUS_FAULTS[fault]
        retry_after = None if fault == "error_500" else scenario.retry_after
        return object_error(int(fault.removeprefix("error_")), message, kind, code=code, retry_after=retry_after)
    if fault == "error_502_html":
        return gateway_page(502)
    return html_page(int(fault.removeprefix("html_"))) if fault in ("html_200", "html_403") else None


def completion_answer(
    reply: Reply,
    fault: str | None,
    scenario: Scenario,
    *,
    model: str,
    identifier: str,
    stream: bool,
    include_usage: bool,
) -> Answer:
    """The answer to one chat completion, with the fault it was drawn."""
    if (answer := common_fault(fault, scenario)) is not None:
        return answer
    head = {"id": identifier, "object": "chat.completion", "created": int(time.time()), "model": model}
    usage = {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }
    if not stream:
        return cut_answer(_whole(reply, fault, scenario, head, usage), fault or "")
    head["object"] = "chat.completion.chunk"
    chunks, trailers = _chunks(reply, fault, scenario, head, usage if include_usage and not scenario.no_usage else None)
    pieces = [_event(chunk, scenario) for chunk in chunks]
    if scenario.bom:
        pieces[0] = b"\xef\xbb\xbf" + pieces[0]
    if scenario.no_last_newline:
        pieces[-1] = pieces[-1].rstrip(b"\r\n")
    return cut_answer(Answer(status=200, headers=_STREAM, pieces=tuple(pieces), trailers=trailers), fault or "")


def _whole(reply: Reply, fault: str | None, scenario: Scenario, head: dict[str, Any], usage: dict[str, Any]) -> Answer:
    if fault == "error_event":
        return object_error(500, scenario.error_event_text, "server_error", code="server_error")
    if fault == "error_in_stream":
        return json_answer(200, _dump({"error": {"message": scenario.error_event_text, "code": 502}}).encode())
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    finish = reply.finish
    if fault == "empty_reply":
        message["content"] = ""
    elif fault == "content_null":
        message["content"] = None
    elif fault == "refusal":
        message |= {"content": None, "refusal": REFUSAL_TEXT}
    elif fault == "content_filter":
        message["content"], finish = FILTERED_TEXT, "content_filter"
    elif fault == "tool_call":
        call = _call("".join(_ARGUMENTS))
        message, finish = message | {"content": None, "tool_calls": [call]}, "tool_calls"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    value = head | {"choices": [] if fault == "choices_empty" else [choice]}
    if not scenario.no_usage:
        value["usage"] = usage
    return json_answer(200, _dump(value).encode())


def _chunks(
    reply: Reply, fault: str | None, scenario: Scenario, head: dict[str, Any], usage: dict[str, Any] | None
) -> tuple[list[str], int]:
    """The data of each event, and how many at the end are no text."""
    if fault == "error_event":
        error = {"message": scenario.error_event_text, "type": "server_error", "param": None, "code": "server_error"}
        return [_dump({"error": error})], 1
    if fault == "choices_empty":
        return [_dump(head | {"choices": []}), "[DONE]"], 1
    with_usage = head if usage is None else head | {"usage": None}
    deltas, finish = _deltas(reply, fault)
    if fault == "error_in_stream":
        broken = _dump({"error": {"message": scenario.error_event_text, "code": 502}})
        half = deltas[: max(1, len(deltas) // 2)]
        return [*(_chunk(with_usage, delta, None) for delta in half), broken, "[DONE]"], 2
    made = [_chunk(with_usage, delta, None) for delta in deltas]
    texts = len(made)
    if not scenario.no_finish:
        made.append(_chunk(with_usage, {}, finish))
    if usage is not None:
        made.append(_dump(head | {"choices": [], "usage": usage}))
    if not scenario.no_done:
        made.append("[DONE]")
    return made, len(made) - texts


def _deltas(reply: Reply, fault: str | None) -> tuple[list[dict[str, Any]], str]:
    first: dict[str, Any] = {"role": "assistant", "content": ""}
    if fault in ("empty_reply", "content_null"):
        return [first | ({"content": None} if fault == "content_null" else {})], "stop"
    if fault == "refusal":
        texts = [{"refusal": piece} for piece in split_deltas(REFUSAL_TEXT)]
        return [first | {"content": None}, *texts], "stop"
    if fault == "content_filter":
        return [first, *({"content": piece} for piece in split_deltas(FILTERED_TEXT))], "content_filter"
    if fault == "tool_call":
        opening = {"tool_calls": [{"index": 0, **_call("")}]}
        rest = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in _ARGUMENTS]
        return [first | {"content": None}, opening, *rest], "tool_calls"
    return [first, *({"content": piece} for piece in split_deltas(reply.text))], reply.finish


def _chunk(head: dict[str, Any], delta: dict[str, Any], finish: str | None) -> str:
    return _dump(head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})


def _call(arguments: str) -> dict[str, Any]:
    return {"id": "call_echo", "type": "function", "function": {"name": "echo", "arguments": arguments}}


def _event(data: str, scenario: Scenario) -> bytes:
    """One server-sent event in the scenario's dialect."""
    parts = [data]
    if scenario.multi_line_data and data.startswith("{"):
        # White space is allowed after the first brace of an object, so that the two lines join to the same JSON.
        parts = ["{", data[1:]]
    field = "data:" if scenario.no_space else "data: "
    lines = [": keep-alive", ""] if scenario.comments else []
    lines += [field + part for part in parts]
    end = "\r\n" if scenario.crlf else "\n"
    return (end.join(lines) + end * 2).encode()


def _dump(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
