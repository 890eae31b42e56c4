"""Messages between OpenAI's chat form and Anthropic's: roles, texts, images, documents, tools.

Source: https://platform.openai.com/docs/api-reference/chat/create and
https://docs.anthropic.com/en/api/messages.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from batchchat.jsonl import dump_line, json_type, parse_value

__all__ = ["from_anthropic_messages", "text_of_system", "to_anthropic_messages"]

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/=\s]*)\Z")
_FATE = "which Anthropic messages cannot hold"
Tell = Callable[[str, str], None]


def to_anthropic_messages(messages: list[dict[str, Any]], tell: Tell) -> tuple[Any, list[dict[str, Any]]]:
    """The system prompt (text, list of parts or None) and the other messages.

    Raises:
        ValueError: Anthropic has no form for a message or a part.
    """
    system: list[Any] = []
    done: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        for name in sorted(message.keys() - {"role", "content", "tool_calls", "tool_call_id", "refusal"}):
            tell(f"{name!r} in a message", _FATE)
        if role in ("system", "developer"):
            if done:
                tell("a system message behind others", "which becomes part of the one system prompt")
            system.append(content)
        elif role == "tool":
            result = {
                "type": "tool_result",
                "tool_use_id": message.get("tool_call_id"),
                "content": _to_content(content, tell),
            }
            _append_result(done, result)
        elif role in ("user", "assistant"):
            done.append({"role": role, "content": _with_calls(message, _to_content(content, tell))})
        else:
            raise ValueError(f"found a message of the role {role!r}, expected system, user, assistant or tool")
    return _system_of(system, tell), done


def from_anthropic_messages(messages: Any, tell: Tell) -> list[dict[str, Any]]:
    """Anthropic's messages in the chat form.

    Raises:
        ValueError: They are no messages, or the chat form has none of the kind.
    """
    if not isinstance(messages, list):
        raise ValueError(f"expected a list of messages in 'messages', found {json_type(messages)}")
    done: list[dict[str, Any]] = []
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            raise ValueError(f"expected an object in 'messages[{position}]', found {json_type(message)}")
        done += _from_message(message, tell)
    return done


def text_of_system(system: Any) -> dict[str, Any] | None:
    """The system message of Anthropic's ``system``; None for none.

    Raises:
        ValueError: It is neither text nor a list of texts.
    """
    if system is None or isinstance(system, str):
        return {"role": "system", "content": system} if system else None
    is_texts = isinstance(system, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in system
    )
    if not is_texts:
        raise ValueError(f"expected text or a list of texts in 'system', found {json_type(system)}")
    return {"role": "system", "content": system} if system else None


def _system_of(found: list[Any], tell: Tell) -> Any:
    if not found:
        return None
    if len(found) == 1:
        return _to_content(found[0], tell)
    if all(isinstance(content, str) for content in found):
        return "\n\n".join(found)
    parts: list[Any] = []
    for content in found:
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else _to_content(content, tell)
    return parts


def _append_result(done: list[dict[str, Any]], result: dict[str, Any]) -> None:
    # Results of several calls stand in one message of the user.
    last = done[-1]["content"] if done and done[-1]["role"] == "user" else None
    if isinstance(last, list) and last and last[-1].get("type") == "tool_result":
        last.append(result)
    else:
        done.append({"role": "user", "content": [result]})


def _with_calls(message: Mapping[str, Any], content: Any) -> Any:
    calls = message.get("tool_calls")
    if not calls:
        return content
    if not isinstance(calls, list):
        raise ValueError(f"expected a list of calls in 'tool_calls', found {json_type(calls)}")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else list(content or [])
    return parts + [_to_tool_use(call) for call in calls]


def _to_tool_use(call: Any) -> dict[str, Any]:
    try:
        function = call["function"]
        given = parse_value(function["arguments"].encode())
        return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": given}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError("expected tool calls with id, function.name and function.arguments (JSON text)") from error


def _to_content(content: Any, tell: Tell) -> Any:
    if content is None:
        return ""
    return content if isinstance(content, str) else [_to_part(part, tell) for part in content]


def _to_part(part: dict[str, Any], tell: Tell) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return part
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(image, dict) and image.keys() - {"url"}:
            tell("'detail' of an image", _FATE)
        return {"type": "image", "source": _to_source(url, "image_url")}
    if kind == "file" and isinstance(part.get("file"), dict) and "file_data" in part["file"]:
        file = part["file"]
        done = {"type": "document", "source": _to_source(file["file_data"], "file.file_data")}
        return done | ({"title": file["filename"]} if "filename" in file else {})
    raise ValueError(f"found a part of the type {kind!r}, expected text, image_url or file (with file_data)")


def _to_source(url: Any, field: str) -> dict[str, Any]:
    if not isinstance(url, str) or not url:
        raise ValueError(f"expected an address in {field!r}, found {json_type(url)}")
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    found = _DATA_URL.match(url)
    if found is None:
        raise ValueError(f"expected data in Base64 (data:image/png;base64,…) in {field!r}, found {url[:40]!r}")
    return {"type": "base64", "media_type": found[1], "data": found[2]}


def _from_message(message: dict[str, Any], tell: Tell) -> list[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise ValueError(f"found a message of the role {role!r}, expected user or assistant")
    for name in sorted(message.keys() - {"role", "content"}):
        tell(f"{name!r} in a message", "which flat messages cannot hold")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ValueError(f"expected text or a list of parts in 'content', found {json_type(content)}")
    results = [_from_tool_result(part, tell) for part in content if part.get("type") == "tool_result"]
    calls = [_from_tool_use(part) for part in content if part.get("type") == "tool_use"]
    parts = [_from_part(part, tell) for part in content if part.get("type") not in ("tool_result", "tool_use")]
    if not calls:
        return results + ([{"role": role, "content": parts}] if parts or not results else [])
    text = parts[0]["text"] if len(parts) == 1 and set(parts[0]) == {"type", "text"} else parts or None
    return [*results, {"role": role, "content": text, "tool_calls": calls}]


def _from_tool_use(part: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dump_line({"": part.get("input")})[4:-2].decode()
    return {"id": part.get("id"), "type": "function", "function": {"name": part.get("name"), "arguments": arguments}}


def _from_tool_result(part: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    content = part.get("content", "")
    if isinstance(content, list):
        content = [_from_part(piece, tell) for piece in content if isinstance(piece, dict)]
    elif not isinstance(content, str):
        content = json.dumps(content)
    if part.get("is_error"):
        tell("'is_error' of a tool's result", "which flat messages cannot hold")
    return {"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": content}


def _from_part(part: dict[str, Any], tell: Tell) -> dict[str, Any]:
    kind, source = part.get("type"), part.get("source")
    if kind == "text" and isinstance(part.get("text"), str):
        if "citations" in part:
            tell("'citations' of a text", "which flat messages cannot hold")
        return {name: value for name, value in part.items() if name != "citations"}
    if kind in ("image", "document") and isinstance(source, dict):
        if source.get("type") == "url" and kind == "image":
            return {"type": "image_url", "image_url": {"url": source.get("url")}}
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
            if kind == "image":
                return {"type": "image_url", "image_url": {"url": url}}
            return {"type": "file", "file": {"filename": part.get("title") or "document", "file_data": url}}
    shown = f"{kind!r}" + (f" (source {source.get('type')!r})" if isinstance(source, dict) else "")
    raise ValueError(
        f"found a part of the type {shown}, which the chat form has no place for; expected text or an image"
    )
