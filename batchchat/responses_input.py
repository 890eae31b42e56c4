"""Bodies of the Responses API as chat messages and parameters, so that its batch lines run like the others.

Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from collections.abc import Mapping
from typing import Any

from batchchat.jsonl import json_type

__all__ = ["chat_from_responses"]

# What says how or where an answer is made and kept, not which one is asked for.
_DELIVERY = frozenset(("stream", "stream_options", "background", "include", "truncation"))
_STATE = ("previous_response_id", "conversation", "prompt")
_OWN = frozenset(("model", "input", "instructions", "max_output_tokens", "text", "reasoning", "tools", "tool_choice",
                  "top_logprobs"))  # fmt: skip


def chat_from_responses(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Messages, and the parameters of a chat completion that asks for the same.

    Raises:
        ValueError: It asks for what chat completions have no form for; found and expected are named.
    """
    for name in _STATE:
        if body.get(name) is not None:
            raise ValueError(f"found {name!r} in 'body', expected a request that holds all of its messages itself")
    given = body.get("input")
    if isinstance(given, str):
        messages = [{"role": "user", "content": given}]
    elif isinstance(given, list):
        messages = []
        for position, item in enumerate(given):
            _add_item(messages, item, f"body.input[{position}]")
    else:
        raise ValueError(f"expected text or a list in 'body.input', found {json_type(given)}")
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        messages.insert(0, {"role": "system", "content": instructions})
    return messages, _params(body)


def _add_item(messages: list[dict[str, Any]], item: Any, field: str) -> None:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if kind == "message":
        messages.append({"role": item.get("role"), "content": _content(item.get("content"), field)})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        if messages and messages[-1].get("tool_calls"):
            messages[-1]["tool_calls"].append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif kind == "function_call_output":
        output = _content(item.get("output"), field)
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
    elif kind != "reasoning":
        found = json_type(item) if kind is None else f"the type {kind!r}"
        raise ValueError(f"expected a message in '{field}', found {found}")


def _content(content: Any, field: str) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part, f"{field}.content[{number}]") for number, part in enumerate(content)]


def _part(part: Any, field: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image = {"url": part["image_url"]} | ({"detail": part["detail"]} if part.get("detail") else {})
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if name in part}}
    found = json_type(part) if kind is None else f"the type {kind!r}"
    raise ValueError(f"expected text, an image (image_url) or a file (file_data) in '{field}', found {found}")


def _params(body: Mapping[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in body.items() if name not in _OWN | _DELIVERY and name not in _STATE}
    if body.get("max_output_tokens") is not None:
        params["max_completion_tokens"] = body["max_output_tokens"]
    if body.get("top_logprobs") is not None:
        params |= {"logprobs": True, "top_logprobs": body["top_logprobs"]}
    text, reasoning = _mapping(body.get("text")), _mapping(body.get("reasoning"))
    form = _mapping(text.get("format"))
    if form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        params["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.get("type") not in (None, "text"):
        params["response_format"] = dict(form)
    if text.get("verbosity") is not None:
        params["verbosity"] = text["verbosity"]
    if reasoning.get("effort") is not None:
        params["reasoning_effort"] = reasoning["effort"]
    if (tools := body.get("tools")) is not None:
        if not isinstance(tools, list):
            raise ValueError(f"expected a list in 'body.tools', found {json_type(tools)}")
        params["tools"] = [_tool(tool) for tool in tools]
    choice = body.get("tool_choice")
    if choice is not None:
        is_function = isinstance(choice, dict) and choice.get("type") == "function"
        params["tool_choice"] = (
            {"type": "function", "function": {"name": choice.get("name")}} if is_function else choice
        )
    return params


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        found = repr(tool.get("type")) if isinstance(tool, dict) else json_type(tool)
        raise ValueError(f"expected tools of the type 'function' in 'body.tools', found {found}")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
