"""Bodies of requests: chat completions as they are asked for, and the same in the words of the Responses API."""

from collections.abc import Mapping
from typing import Any

import orjson

from batchchat.jsonl import dump_line
from batchchat.providers.base import ChatRequest, schema_instruction

__all__ = ["RESERVED", "carries_schema", "chat_body", "choices_asked", "dumped", "responses_body"]

# What a request says itself, whatever stands in the parameters.
RESERVED = frozenset(("model", "messages", "stream", "stream_options"))
_RESERVED_RESPONSES = RESERVED | {"input", "instructions"}
_SCHEMA_NAME = "answer"
_SYSTEM = ("system", "developer")
_MOST_CHOICES = 1024


def chat_body(request: ChatRequest, model: str | None, *, structured: bool) -> dict[str, Any]:
    """Body of ``/chat/completions`` without what concerns its delivery.

    Args:
        structured: Whether the service takes a schema as ``response_format``; else the model is told of it.
    """
    messages = _with_system(request, structured=structured)
    body: dict[str, Any] = {"model": model} if model else {}
    body["messages"] = messages
    body |= {name: value for name, value in request.params.items() if name not in RESERVED}
    if request.answer_schema is not None and structured and "response_format" not in request.params:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": _SCHEMA_NAME, "schema": request.answer_schema},
        }
    return body


def responses_body(request: ChatRequest, model: str | None, *, structured: bool) -> dict[str, Any]:
    """Body of ``/responses``: messages as input items, parameters of chat completions under their names there."""
    messages = _with_system(request, structured=structured)
    body: dict[str, Any] = {"model": model} if model else {}
    if messages and messages[0].get("role") in _SYSTEM and isinstance(messages[0].get("content"), str):
        body["instructions"], messages = messages[0]["content"], messages[1:]
    body["input"] = [item for message in messages for item in _items(message)]
    body["store"] = False
    for name, value in request.params.items():
        if name not in _RESERVED_RESPONSES:
            _put_param(body, name, value)
    if request.answer_schema is not None and structured and "format" not in _object(body, "text"):
        form = {"type": "json_schema", "name": _SCHEMA_NAME, "schema": request.answer_schema}
        body["text"] = _object(body, "text") | {"format": form}
    return body


def carries_schema(body: Mapping[str, Any], request: ChatRequest) -> bool:
    """Whether the request's schema stands in the body as the service's own way of structured answers."""
    schema = request.answer_schema
    chat = _object(_object(body, "response_format"), "json_schema").get("schema")
    responses = _object(_object(body, "text"), "format").get("schema")
    return schema is not None and (chat is schema or responses is schema)


def choices_asked(params: Mapping[str, Any]) -> int:
    """How many choices the parameters ask for (``n``)."""
    count = params.get("n")
    return min(count, _MOST_CHOICES) if isinstance(count, int) and count > 1 else 1


def dumped(body: dict[str, Any]) -> bytes:
    """The body as JSON."""
    try:
        return orjson.dumps(body)
    except TypeError:  # an integer beyond 64 bits, deep nesting, half a surrogate pair
        return dump_line(body)


def _with_system(request: ChatRequest, *, structured: bool) -> list[dict[str, Any]]:
    """The messages with the system prompt in front, and the schema in it where that is the way to tell it.

    Templates of many models take one system message only, so it joins the one that is there.
    """
    messages = request.messages
    if request.system:
        messages = [{"role": "system", "content": request.system}, *messages]
    if request.answer_schema is None or structured:
        return messages
    told = schema_instruction(request.answer_schema)
    if not messages or messages[0].get("role") not in _SYSTEM:
        return [{"role": "system", "content": told}, *messages]
    content = messages[0].get("content")
    joined = [*content, {"type": "text", "text": told}] if isinstance(content, list) else f"{content}\n\n{told}"
    return [messages[0] | {"content": joined}, *messages[1:]]


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    """One message of a chat as input items."""
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        return [{"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": content}]
    items: list[dict[str, Any]] = []
    if content:
        if isinstance(content, list):
            content = [_part(part, answered=role == "assistant") for part in content]
        items.append({"role": role, "content": content})
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            items.append({"type": "function_call", "call_id": call.get("id")} | function)
    return items


def _part(part: Any, *, answered: bool) -> Any:
    """A content part under its name there; one that is not known goes as it is."""
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    inner = part.get(kind) if isinstance(kind, str) else None
    if kind == "text":
        return {"type": "output_text" if answered else "input_text", "text": part.get("text")}
    if kind == "image_url":
        image = inner if isinstance(inner, dict) else {"url": inner}
        detail = {"detail": image["detail"]} if "detail" in image else {}
        return {"type": "input_image", "image_url": image.get("url")} | detail
    if kind == "file" and isinstance(inner, dict):
        return {"type": "input_file"} | inner
    return part


def _put_param(body: dict[str, Any], name: str, value: Any) -> None:
    """Lays one parameter of chat completions over the body, where Responses has it."""
    if name in ("max_tokens", "max_completion_tokens"):
        body["max_output_tokens"] = value
    elif name == "reasoning_effort":
        body["reasoning"] = _object(body, "reasoning") | {"effort": value}
    elif name == "verbosity":
        body["text"] = _object(body, "text") | {"verbosity": value}
    elif name == "response_format":
        body["text"] = _object(body, "text") | {"format": _text_format(value)}
    elif name == "tools" and isinstance(value, list):
        body["tools"] = [_flat_function(tool) for tool in value]
    elif name == "tool_choice":
        body["tool_choice"] = _flat_function(value)
    elif name == "n" and value == 1:
        return
    else:
        known = body.get(name)
        body[name] = known | value if isinstance(known, dict) and isinstance(value, dict) else value


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _text_format(value: Any) -> Any:
    inner = value.get("json_schema") if isinstance(value, dict) else None
    return {"type": "json_schema", "name": _SCHEMA_NAME} | inner if isinstance(inner, dict) else value


def _flat_function(tool: Any) -> Any:
    """A tool, or the choice of one, without the level that chat completions have around a function."""
    inner = tool.get("function") if isinstance(tool, dict) else None
    return {"type": "function"} | inner if isinstance(inner, dict) else tool
