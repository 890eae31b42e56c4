"""Amazon Bedrock's batch input: ``recordId`` and ``modelInput``, in the body's form of a model's family.

Read are Anthropic's Messages form (``anthropic_version``), the Converse form (parts without a type), bodies of chat
completions and ``prompt`` bodies. Written are Anthropic's form (``bedrock``) and Converse (``bedrock-converse``).

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data.html and
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.
"""

from collections.abc import Callable, Mapping
from typing import Any

from batchchat.forms.anthropic import anthropic_body, flat_from_anthropic
from batchchat.forms.asks import Asked, flat_line, restored_line
from batchchat.input_lines import checked_id, read_ask
from batchchat.jsonl import json_type

__all__ = ["read_bedrock_line", "write_bedrock_line", "write_converse_line"]

_VERSION = "bedrock-2023-05-31"
_FATE = "which Bedrock batch lines cannot hold"
_INFERENCE = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}
_CONVERSE_KEYS = frozenset(("messages", "system", "inferenceConfig", "schemaVersion"))
Tell = Callable[[str, str], None]


def read_bedrock_line(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The flat line of a record; one without a ``recordId`` has no id.

    Raises:
        ValueError: It is none, or its model's form is not known here.
    """
    body = obj.get("modelInput")
    if not isinstance(body, dict):
        names = ", ".join(repr(name) for name in list(obj)[:20]) or "none"
        raise ValueError(f"expected 'recordId' and 'modelInput' (an object), found the fields {names}")
    for name in sorted(obj.keys() - {"recordId", "modelInput", "batchchat"}):
        tell(repr(name), "which is left out")
    record_id = obj.get("recordId")
    line = _read_body("" if record_id is None else checked_id(record_id, "recordId"), body, tell)
    if record_id is None:
        del line["id"]
    return restored_line(obj, line)


def write_bedrock_line(asked: Asked, max_tokens: int | None, tell: Tell) -> dict[str, Any]:
    """The record for a model of Anthropic's.

    Raises:
        ValueError: Something that such a model needs is missing or has no form there.
    """
    if asked.model is not None:
        tell("'model'", _FATE + "; the job names it")
    return {
        "recordId": asked.id,
        "modelInput": {"anthropic_version": _VERSION} | anthropic_body(asked, max_tokens, tell),
    }


def write_converse_line(asked: Asked, max_tokens: int | None, tell: Tell) -> dict[str, Any]:
    """The record in the Converse form, which every chat model of Bedrock's takes.

    Raises:
        ValueError: A message has no form there.
    """
    if asked.model is not None:
        tell("'model'", _FATE + "; the job names it")
    system: list[Any] = []
    messages: list[Any] = []
    for message in asked.messages:
        role = message["role"]
        if role in ("system", "developer"):
            if messages:
                tell("a system message behind others", "which becomes part of the one system prompt")
            system += _to_blocks(message.get("content"), tell)
        elif role in ("user", "assistant") and not message.get("tool_calls"):
            messages.append({"role": role, "content": _to_blocks(message.get("content"), tell)})
        else:
            raise ValueError(f"found a message of the role {role!r} with tools, expected texts and images only")
    body: dict[str, Any] = {"messages": messages} | ({"system": system} if system else {})
    config = _to_inference(asked.params, max_tokens, tell)
    return {"recordId": asked.id, "modelInput": body | ({"inferenceConfig": config} if config else {})}


def _read_body(prompt_id: Any, body: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    messages = body.get("messages")
    if "anthropic_version" in body:
        return flat_from_anthropic(prompt_id, body, tell)
    if isinstance(messages, list) and _is_converse(messages):
        return _from_converse(prompt_id, body, tell)
    if messages is None and "prompt" not in body:
        raise ValueError(
            f"expected 'anthropic_version', 'messages' or 'prompt' in 'modelInput', found {', '.join(map(repr, body))}"
        )
    params = {name: value for name, value in body.items() if name not in ("messages", "prompt", "model")}
    if messages is None:
        messages = [{"role": "user", "content": body["prompt"]}]
    read_ask({"messages": messages}, None, None)
    return flat_line(prompt_id, messages, None, params)


def _is_converse(messages: list[Any]) -> bool:
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    return bool(parts) and not any("type" in part for part in parts)


def _from_converse(prompt_id: Any, body: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    for name in sorted(body.keys() - _CONVERSE_KEYS):
        tell(f"{name!r} in 'modelInput'", "which flat lines have no form for")
    messages = [
        {"role": message.get("role"), "content": _from_blocks(message.get("content"))}
        for message in body["messages"]
        if isinstance(message, dict)
    ]
    if body.get("system"):
        messages.insert(0, {"role": "system", "content": _from_blocks(body["system"])})
    config: Any = body.get("inferenceConfig") or {}
    if not isinstance(config, dict):
        raise ValueError(f"expected an object in 'inferenceConfig', found {json_type(config)}")
    params = {_INFERENCE.get(str(name), str(name)): value for name, value in config.items()}
    read_ask({"messages": messages}, None, None)
    return flat_line(prompt_id, messages, None, params)


def _from_blocks(content: Any) -> Any:
    if not isinstance(content, list):
        raise ValueError(f"expected a list of parts in 'content', found {json_type(content)}")
    parts: list[dict[str, Any]] = []
    for block in content:
        image = block.get("image") if isinstance(block, dict) else None
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            parts.append({"type": "text", "text": block["text"]})
        elif isinstance(image, dict) and isinstance(image.get("source"), dict) and "bytes" in image["source"]:
            url = f"data:image/{image.get('format')};base64,{image['source']['bytes']}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        else:
            found = ", ".join(map(repr, block)) if isinstance(block, dict) else json_type(block)
            raise ValueError(f"found a part with {found}, expected 'text' or 'image' (with bytes)")
    return parts[0]["text"] if len(parts) == 1 and "text" in parts[0] else parts


def _to_blocks(content: Any, tell: Tell) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    blocks: list[dict[str, Any]] = []
    for part in content or []:
        if part.get("type") == "text":
            if part.keys() - {"type", "text"}:
                tell("more than text in a text part", _FATE)
            blocks.append({"text": part.get("text")})
            continue
        image = part.get("image_url") if part.get("type") == "image_url" else None
        url = image.get("url") if isinstance(image, dict) else image
        head, comma, data = url.partition(";base64,") if isinstance(url, str) else ("", "", "")
        if not comma or not head.startswith("data:image/"):
            raise ValueError(
                f"found a part of the type {part.get('type')!r} without data, expected text or an image in Base64 "
                "(data:image/png;base64,…)"
            )
        blocks.append({"image": {"format": head.removeprefix("data:image/"), "source": {"bytes": data}}})
    return blocks


def _to_inference(params: Mapping[str, Any], max_tokens: int | None, tell: Tell) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in _INFERENCE.items()} | {"max_completion_tokens": "maxTokens"}
    config: dict[str, Any] = {}
    for name, value in params.items():
        if name in names:
            config[names[name]] = [value] if name == "stop" and isinstance(value, str) else value
        else:
            tell(f"{name!r} in 'params'", _FATE)
    if max_tokens is not None:
        config.setdefault("maxTokens", max_tokens)
    return config
