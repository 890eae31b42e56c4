"""Anthropic's message batches: ``custom_id`` and ``params``, the body of one Messages request.

Source: https://docs.anthropic.com/en/docs/build-with-claude/batch-processing.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from batchchat.forms.anthropic_parts import from_anthropic_messages, text_of_system, to_anthropic_messages
from batchchat.forms.asks import Asked, flat_line, restored_line
from batchchat.input_lines import checked_id, read_ask

__all__ = ["anthropic_body", "flat_from_anthropic", "read_anthropic_line", "write_anthropic_line"]

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_FATE = "which Anthropic batch lines cannot hold"
_SAME = frozenset(
    ("temperature", "top_p", "top_k", "stop_sequences", "metadata", "thinking", "service_tier", "container",
     "context_management", "mcp_servers", "output_config", "output_format", "cache_control", "inference_geo")
)  # fmt: skip
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
Tell = Callable[[str, str], None]


def read_anthropic_line(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The flat line of a line of a message batch.

    Raises:
        ValueError: It is none; found and expected are named.
    """
    body = obj.get("params")
    if "custom_id" not in obj or not isinstance(body, dict):
        names = ", ".join(repr(name) for name in list(obj)[:20]) or "none"
        raise ValueError(f"expected 'custom_id' and 'params' (an object), found the fields {names}")
    for name in sorted(obj.keys() - {"custom_id", "params", "batchchat"}):
        tell(repr(name), "which is left out")
    return restored_line(obj, flat_from_anthropic(checked_id(obj["custom_id"], "custom_id"), body, tell))


def write_anthropic_line(asked: Asked, max_tokens: int | None, tell: Tell) -> dict[str, Any]:
    """The line of a message batch.

    Raises:
        ValueError: Something that Anthropic needs is missing or has no form there.
    """
    if not _ID.match(asked.id):
        raise ValueError(
            f"found the id {asked.id[:80]!r}, expected 1 to 64 letters, digits, - and _, as Anthropic takes no other; "
            "--id-field names another field"
        )
    if asked.model is None:
        raise ValueError("found no model, which Anthropic needs; --model NAME gives one")
    return {"custom_id": asked.id, "params": {"model": asked.model} | anthropic_body(asked, max_tokens, tell)}


def anthropic_body(asked: Asked, max_tokens: int | None, tell: Tell) -> dict[str, Any]:
    """The body of a Messages request but its model.

    Raises:
        ValueError: As ``write_anthropic_line``.
    """
    system, messages = to_anthropic_messages(asked.messages, tell)
    params = {} if system is None else {"system": system}
    params |= {"messages": messages} | _to_params(asked.params, tell)
    length = params.pop("max_tokens", None) or max_tokens
    if length is None:
        raise ValueError("found no 'max_tokens' in 'params', which Anthropic needs; --max-tokens N gives one")
    return {"max_tokens": length} | params


def flat_from_anthropic(prompt_id: Any, body: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """The flat line that asks for what a Messages request asks for.

    Raises:
        ValueError: It is none, or the chat form has no place for a part.
    """
    system = text_of_system(body.get("system"))
    messages = from_anthropic_messages(body.get("messages"), tell)
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise ValueError("expected text in 'model'")
    line = flat_line(prompt_id, messages if system is None else [system, *messages], model, _from_params(body, tell))
    read_ask(line, None, None)
    return line


def _to_params(params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    done: dict[str, Any] = {}
    for name, value in params.items():
        if name in _SAME:
            done[name] = value
        elif name in ("max_tokens", "max_completion_tokens"):
            done["max_tokens"] = value
        elif name == "stop":
            done["stop_sequences"] = [value] if isinstance(value, str) else value
        elif name == "user":
            done["metadata"] = {"user_id": value}
        elif name == "tools" and isinstance(value, list):
            done["tools"] = [_to_tool(tool) for tool in value]
        elif name == "tool_choice":
            done["tool_choice"] = _to_choice(value)
        else:
            tell(f"{name!r} in 'params'", _FATE)
    return done


def _from_params(body: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    done: dict[str, Any] = {}
    for name, value in body.items():
        if name in ("model", "messages", "system", "anthropic_version"):
            continue
        if name == "stream":
            tell("'stream'", "which is left out, as it is the run's own affair")
        elif name == "stop_sequences":
            done["stop"] = value
        elif name == "metadata" and isinstance(value, dict) and value.keys() == {"user_id"}:
            done["user"] = value["user_id"]
        elif name == "tools" and isinstance(value, list):
            done["tools"] = [_from_tool(tool) for tool in value]
        elif name == "tool_choice" and isinstance(value, dict):
            done["tool_choice"] = _from_choice(value)
        else:
            done[name] = value
    return done


def _to_tool(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return tool
    done = {name: function[name] for name in ("name", "description") if name in function}
    return done | {"input_schema": function.get("parameters") or {"type": "object", "properties": {}}}


def _from_tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or not tool.keys() <= {"name", "description", "input_schema"}:
        return tool
    function = {name: tool[name] for name in ("name", "description") if name in tool}
    return {"type": "function", "function": function | {"parameters": tool.get("input_schema")}}


def _to_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return {"type": _CHOICES.get(choice, choice)}
    function = choice.get("function") if isinstance(choice, dict) else None
    return {"type": "tool", "name": function.get("name")} if isinstance(function, dict) else choice


def _from_choice(choice: dict[str, Any]) -> Any:
    if choice.keys() == {"type", "name"} and choice["type"] == "tool":
        return {"type": "function", "function": {"name": choice["name"]}}
    names = {theirs: ours for ours, theirs in _CHOICES.items()}
    return names.get(str(choice.get("type")), choice) if choice.keys() == {"type"} else choice
