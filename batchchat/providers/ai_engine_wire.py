"""AI Engine's requests and events as values; no input or output.

Source: the plug-in's chat protocol as captured from versions 2.5.3, 2.8.9 and 3.6.2.
"""

import random
from collections.abc import Mapping
from typing import Any

import orjson

from batchchat.errors import IncompleteError, InvalidRequestError
from batchchat.jsonl import dump_line
from batchchat.providers.ai_engine_errors import prose_error
from batchchat.providers.base import ChatRequest, schema_instruction, text_of
from batchchat.providers.text import checked_calls, is_blank, usage_of
from batchchat.records import Completion
from batchchat.surrogates import without_surrogates

__all__ = ["answer_of", "chat_body", "fresh_chat_id", "public_body", "site_params"]

# The site's own choices, which a caller must not override, and what the protocol itself fills in.
_RESERVED = frozenset(
    (
        "model",
        "envId",
        "env_id",
        "apiKey",
        "api_key",
        "stream",
        "stream_options",
        "n",
        "user",
        "botId",
        "customId",
        "chatId",
        "newMessage",
        "messages",
        "instructions",
        "session",
        "contextId",
        "newFileId",
        "newFileIds",
        "previousResponseId",
    )
)
_RENAMED = {"max_tokens": "maxTokens", "max_completion_tokens": "maxTokens"}
_SITE_HISTORY = 15  # messages of history that a site keeps unless told otherwise


def fresh_chat_id() -> str:
    """A random conversation id of the length that the plug-in's own client makes: 11 characters."""
    return f"{random.getrandbits(44):011x}"


def site_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling parameters in the plug-in's names, without those that are the site owner's to choose."""
    return {_RENAMED.get(name, name): value for name, value in params.items() if name not in _RESERVED}


def chat_body(request: ChatRequest, bot: Mapping[str, Any], *, stream: bool) -> bytes:
    """Body of ``chats/submit``.

    Raises:
        InvalidRequestError: The conversation cannot be told in this protocol.
    """
    system, history, message = _split(request)
    if request.answer_schema is not None:
        system = "\n\n".join(filter(None, (system, schema_instruction(request.answer_schema))))
    body: dict[str, Any] = {**bot, "chatId": request.chat_id or fresh_chat_id(), "newMessage": message}
    if history:
        body["messages"] = history
        if len(history) >= _SITE_HISTORY:
            body["maxMessages"] = len(history) + 1
    if system:
        body["instructions"] = system
    body["stream"] = stream
    return _dumped(body | site_params(request.params))


def public_body(request: ChatRequest, bot_id: str) -> bytes:
    """Body of ``simpleChatbotQuery``, which takes one message and keeps the conversation itself.

    Raises:
        InvalidRequestError: The prompt brings a history or a system prompt of its own.
    """
    system, _, message = _split(request)
    if system or request.given > 1:
        what = "a system prompt" if system else "a history"
        raise InvalidRequestError(f"the public API takes no {what[2:]}; use 'api: chat' for prompts with {what}")
    if request.answer_schema is not None:
        message = f"{message}\n\n{schema_instruction(request.answer_schema)}"
    return _dumped({"botId": bot_id, "message": message, "chatId": request.chat_id or fresh_chat_id()})


def _dumped(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # an integer beyond 64 bits, deep nesting, half a surrogate pair
        return dump_line(body)


def _split(request: ChatRequest) -> tuple[str, list[dict[str, str]], str]:
    """System prompt, history and new message of a conversation."""
    messages = request.messages
    system = [request.system] if request.system else []
    start = 0
    while start < len(messages) and messages[start].get("role") in ("system", "developer"):
        system.append(_text(messages[start]))
        start += 1
    if start == len(messages) or messages[-1].get("role") != "user":
        raise InvalidRequestError("AI Engine answers a user's message, but the conversation does not end with one")
    history = [{"role": _role(message), "content": _text(message)} for message in messages[start:-1]]
    return "\n\n".join(system), history, _text(messages[-1])


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise InvalidRequestError(f"AI Engine takes messages of users and assistants, found the role {role!r}")
    return "system" if role == "developer" else str(role)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list) and any(isinstance(part, dict) and part.get("type") != "text" for part in content):
        raise InvalidRequestError("AI Engine takes text only, found another content part (an image or a file)")
    return text_of(content)


def answer_of(answer: Mapping[str, Any], *, model: str | None = None, first_delta_s: float | None = None) -> Completion:
    """The completion that an answer object tells: JSON mode's body, or what ``end`` holds.

    Args:
        model, first_delta_s: Put into the completion, as the protocol does not tell them.

    Raises:
        ProviderError: It reports a failure, or the answer is empty.
    """
    if not answer.get("success"):
        raise prose_error(str(answer.get("message") or ""))
    reply = answer.get("reply", answer.get("data"))
    text = without_surrogates(reply if isinstance(reply, str) else "" if reply is None else str(reply))
    extra = answer.get("extra")
    actions = answer.get("actions") or (extra.get("actions") if isinstance(extra, dict) else None)
    images = answer.get("images")
    if is_blank(text) and isinstance(images, list) and images:
        text = "\n".join(str(image) for image in images)
    if is_blank(text):
        if isinstance(actions, list) and actions:
            return Completion(
                text=None,
                finish_reason="tool_calls",
                tool_calls=checked_calls(actions),
                usage=usage_of(answer.get("usage")),
                model=model,
                first_delta_s=first_delta_s,
            )
        raise IncompleteError("the answer is empty")
    return Completion(
        text=text,
        finish_reason="stop",
        usage=usage_of(answer.get("usage")),
        model=model,
        first_delta_s=first_delta_s,
    )
