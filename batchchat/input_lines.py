"""What one input object asks for: its form is found, its parts are checked; no files here.

Source: the forms are those of docs/input.md; the batch line is OpenAI's Batch API input.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from batchchat.jsonl import MAX_LINE_BYTES, json_type
from batchchat.records import Attachment, Prompt, PromptId
from batchchat.responses_input import chat_from_responses

if TYPE_CHECKING:
    from batchchat.templates import Template

__all__ = [
    "MOST_ID_BITS",
    "Ask",
    "PlainLine",
    "checked_id",
    "has_text",
    "is_plain",
    "read_ask",
    "read_plain",
    "take_id",
]

_SHOWN_FIELDS = 20
# Python writes no longer integers as text, and an id is shown in messages.
_MOST_ID_DIGITS = 4000
MOST_ID_BITS = (10**_MOST_ID_DIGITS - 1).bit_length()
# The way of delivery is the provider's own affair.
_NOT_PLAIN = frozenset(("custom_id", "body", "messages", "turns", "system", "model", "params", "chat_id", "error"))
_NO_PARAMS = frozenset(("messages", "model", "stream", "stream_options"))


class PlainLine(msgspec.Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    """A line that holds an id and a prompt, both text, and nothing else."""

    id: str
    prompt: str


_decode_plain: Callable[[bytes], PlainLine] = msgspec.json.Decoder(PlainLine).decode


class Ask(NamedTuple):
    """What is asked: all of a ``Prompt`` but its identity and place; see there."""

    messages: list[dict[str, Any]]
    turns: tuple[str, ...]
    system: str | None
    model: str | None
    params: dict[str, Any]
    chat_id: str | None
    attachments: tuple[Attachment, ...] = ()

    def to_prompt(
        self,
        prompt_id: PromptId,
        *,
        index: int,
        line_number: int,
        line: dict[str, Any],
        variant: dict[str, Any] | None = None,
    ) -> Prompt:
        """The prompt that asks for this, with the identity and place that are given."""
        return Prompt(
            id=prompt_id,
            index=index,
            line_number=line_number,
            messages=self.messages,
            system=self.system,
            turns=self.turns,
            model=self.model,
            params=self.params,
            chat_id=self.chat_id,
            line=line,
            attachments=self.attachments,
            variant=variant,
        )


def read_ask(fields: dict[str, Any], prompt: "Template | None", system: "Template | None") -> Ask:
    """What an input object asks for.

    Args:
        fields: The whole object, id included.
        prompt: Makes the message of the fields; the object's form does not count then.
        system: Makes the system prompt, where the object has no ``system`` itself.

    Raises:
        ValueError: It asks for nothing, or a part of it is not what it should be; found and expected are named.
    """
    # Asked for here and not in the function, as most lines have none of these and calls take time.
    model = _text_or_none(fields, "model") if "model" in fields else None
    chat_id = _text_or_none(fields, "chat_id") if "chat_id" in fields else None
    params = fields.get("params")
    if params is None:
        params = {}
    elif not isinstance(params, dict):
        raise _unexpected("an object", "params", params)
    turns: tuple[str, ...] = ()
    if prompt is not None:
        text = prompt.render(fields)
        if not text.strip():
            raise ValueError("the prompt template gives an empty prompt for this line, expected text")
        messages = [{"role": "user", "content": text}]
    elif "body" in fields and _is_batch_line(fields):
        messages, body_model, body_params = _read_batch_line(fields)
        model, params = model or body_model, {**body_params, **params}
    elif (given := fields.get("messages")) is not None:
        messages = _checked_messages(given, "messages")
    elif (given := fields.get("prompt")) is not None:
        messages = [{"role": "user", "content": _checked_text(given, "prompt")}]
    elif (given := fields.get("turns")) is not None:
        messages, turns = [], _checked_turns(given)
    else:
        raise ValueError(_nothing_asked(fields))
    told = _text_or_none(fields, "system") if "system" in fields else None
    if told is None and system is not None:
        told = system.render(fields)
    return Ask(messages, turns, told if told and told.strip() else None, model or None, params, chat_id or None)


def is_plain(fields: dict[str, Any]) -> bool:
    """Whether an object holds an id (text), a prompt (text) and nothing else that is not just carried through.

    Most lines do; ``read_ask`` and ``take_id`` find nothing wrong with them, and nothing in them but these two.
    """
    text, id = fields.get("prompt"), fields.get("id")
    if type(text) is not str or type(id) is not str or not _NOT_PLAIN.isdisjoint(fields):
        return False
    return not (text.isspace() or id.isspace()) and text != "" and id != ""


def read_plain(line: bytes) -> PlainLine | None:
    """A line that ``is_plain`` is true of and that has no other fields; a fifth of the work of parsing it."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        read = _decode_plain(line)
    except (ValueError, RecursionError):
        return None
    id, text = read.id, read.prompt
    return None if id == "" or text == "" or id.isspace() or text.isspace() else read


def take_id(fields: dict[str, Any], id_field: str | None) -> tuple[PromptId | None, dict[str, Any]]:
    """The id that an object gives itself, None for none, and the object without it.

    Raises:
        ValueError: It is no id, two ids differ, or ``id_field`` is given and missing.
    """
    if id_field is not None:
        if id_field not in fields:
            raise ValueError(f"expected the id in {id_field!r}, found {_names(fields)}")
        line = dict(fields)
        return checked_id(line.pop(id_field), id_field), line
    has_id, has_custom_id = "id" in fields, "custom_id" in fields
    if not has_id and not has_custom_id:
        return None, fields
    line = dict(fields)
    found = checked_id(line.pop("id"), "id") if has_id else None
    if has_custom_id:
        custom = checked_id(line.pop("custom_id"), "custom_id")
        if found is not None and (found != custom or type(found) is not type(custom)):
            raise ValueError(
                f"found two ids, 'id' {found!r} and 'custom_id' {custom!r}; expected one, or the same twice"
            )
        found = custom
    return found, line


def checked_id(value: Any, field: str) -> PromptId:
    """The value as an id.

    Raises:
        ValueError: It is neither text nor an integer, or it is blank.
    """
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f"found an empty id in {field!r}, expected text or an integer")
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise _unexpected("text or an integer", field, value)
    if value.bit_length() > MOST_ID_BITS:
        raise ValueError(f"found an id of more than {_MOST_ID_DIGITS} digits in {field!r}, expected a shorter one")
    return value


def has_text(content: Any) -> bool:
    """Whether a message's content holds anything: text that is not blank, or a part that is no text."""
    if isinstance(content, str):
        return bool(content.strip())
    return isinstance(content, list) and any(
        not isinstance(part, dict) or not isinstance(part.get("text"), str) or part["text"].strip() for part in content
    )


def _is_batch_line(fields: dict[str, Any]) -> bool:
    body = fields["body"]
    return "custom_id" in fields or (isinstance(body, dict) and "messages" in body)


def _read_batch_line(fields: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None, dict[str, Any]]:
    """Messages, model and parameters of a batch line."""
    method, url, body = fields.get("method"), fields.get("url"), fields["body"]
    if method is not None and (not isinstance(method, str) or method.upper() != "POST"):
        raise ValueError(f"expected POST in 'method', found {_shown(method)}")
    path = url.partition("?")[0].rstrip("/") if isinstance(url, str) else ""
    if url is not None and not path.endswith(("/chat/completions", "/responses")):
        raise ValueError(
            "expected the url of chat completions or responses in 'url' (/v1/chat/completions, /v1/responses), "
            f"found {_shown(url)}"
        )
    if not isinstance(body, dict):
        raise _unexpected("an object", "body", body)
    if path.endswith("/responses"):
        given, params = chat_from_responses(body)
        return _checked_messages(given, "body.input"), _text_or_none(body, "model", "body.model"), params
    if body.get("messages") is None:
        raise ValueError(f"expected 'messages' in 'body', found {_names(body)}")
    messages = _checked_messages(body["messages"], "body.messages")
    params = {name: value for name, value in body.items() if name not in _NO_PARAMS}
    return messages, _text_or_none(body, "model", "body.model"), params


def _checked_messages(messages: Any, field: str) -> list[dict[str, Any]]:
    if not isinstance(messages, list):
        raise _unexpected("a list of messages", field, messages)
    asks = False
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _unexpected("an object", f"{field}[{position}]", message)
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role.strip():
            found = "empty text" if isinstance(role, str) else json_type(role) if "role" in message else "none"
            raise ValueError(f"expected a role (text) in '{field}[{position}].role', found {found}")
        if isinstance(content, list):
            for number, part in enumerate(content):
                if not isinstance(part, dict):
                    raise _unexpected("an object", f"{field}[{position}].content[{number}]", part)
        elif content is not None and not isinstance(content, str):
            raise _unexpected("text, null or a list of parts", f"{field}[{position}].content", content)
        asks = asks or (role == "user" and has_text(content))
    if not asks:
        found = "none" if messages else "an empty list"
        raise ValueError(f"expected a user message that is not empty in '{field}', found {found}")
    return messages


def _checked_turns(turns: Any) -> tuple[str, ...]:
    if not isinstance(turns, list):
        raise _unexpected("a list of texts", "turns", turns)
    if not turns:
        raise ValueError("expected a list of texts in 'turns', found an empty list")
    return tuple(_checked_text(turn, f"turns[{position}]") for position, turn in enumerate(turns))


def _checked_text(text: Any, field: str) -> str:
    if not isinstance(text, str):
        raise _unexpected("text", field, text)
    if not text.strip():
        raise ValueError(f"found an empty prompt in '{field}', expected text")
    return text


def _text_or_none(fields: dict[str, Any], name: str, field: str | None = None) -> str | None:
    text = fields.get(name)
    if text is not None and not isinstance(text, str):
        raise _unexpected("text", field or name, text)
    return text


def _nothing_asked(fields: dict[str, Any]) -> str:
    for name in ("messages", "prompt", "turns"):
        if name in fields:
            return f"expected a prompt in '{name}', found null"
    forms = "'prompt', 'messages', 'turns' or a batch line's 'body'"
    return f"expected {forms} (or a prompt template), found {_names(fields)}"


def _unexpected(expected: str, field: str, value: Any) -> ValueError:
    return ValueError(f"expected {expected} in '{field}', found {json_type(value)}")


def _names(fields: dict[str, Any]) -> str:
    """The names of the fields that are there, for a message."""
    if not fields:
        return "no fields"
    names = ", ".join(repr(name) for name in list(fields)[:_SHOWN_FIELDS])
    more = ", …" if len(fields) > _SHOWN_FIELDS else ""
    return f"only {names}{more}"


def _shown(value: Any) -> str:
    return repr(value[:80]) if isinstance(value, str) else json_type(value)
