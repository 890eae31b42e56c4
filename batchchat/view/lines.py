"""What of a stored line is shown: a row of the table, the whole of one prompt, the texts that a search looks into."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import orjson

from batchchat.results.stored import outcome_from_object
from batchchat.surrogates import without_surrogates

__all__ = ["MOST_SHOWN_CHARS", "own_keys", "preview", "read_object", "settings_rows", "shown_text", "texts_of", "whole"]

PREVIEW_CHARS = 200
# More of one text makes no browser happy; the rest is told, and can be downloaded.
MOST_SHOWN_CHARS = 300_000
_PROMPT_FIELDS = ("prompt", "question", "text", "content", "input")


def read_object(data: bytes) -> dict[str, Any]:
    """The object of a line; one without keys where the line is none."""
    found: Any
    try:
        found = orjson.loads(data)
    except ValueError:
        try:
            found = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            found = None
    return found if isinstance(found, dict) else {}


def own_keys(obj: dict[str, Any]) -> dict[str, Any]:
    """What batchchat put into the object of a line, in whichever form; empty where there is nothing of the kind."""
    ours = obj.get("batchchat") if "custom_id" in obj else obj
    return ours if isinstance(ours, dict) else {}


def preview(data: bytes) -> dict[str, Any]:
    """``id``, ``prompt``, ``response`` or ``error``, ``model``: short texts on one line each."""
    obj = read_object(data)
    try:
        outcome = outcome_from_object(obj)
    except ValueError:
        return {"id": "", "prompt": "", "response": "", "model": ""}
    answer = outcome.completion
    if outcome.error is not None:
        text = outcome.error.message
    elif answer is not None and answer.text is None:
        text = "tool call"
    else:
        text = "" if answer is None or answer.text is None else answer.text
    return {
        "id": _short(str(outcome.id)),
        "prompt": _short(_prompt_of(outcome.line)),
        "response": _short(text),
        "model": _short((answer and answer.model) or ""),
    }


def whole(data: bytes) -> dict[str, Any]:
    """Everything that is shown of one prompt: texts with their roles, the answer, the error, the fields, the line."""
    obj = read_object(data)
    try:
        outcome = outcome_from_object(obj)
    except ValueError:
        return {"id": "", "line": shown_text(data.decode("utf-8", "replace")), "messages": [], "facts": []}
    answer, error = outcome.completion, outcome.error
    shown = {
        "id": shown_text(str(outcome.id)),
        "messages": _messages(outcome.line),
        "fields": [[_short(str(name)), shown_text(_as_text(value))] for name, value in (outcome.line or {}).items()],
        "response": None if answer is None or answer.text is None else shown_text(answer.text),
        "choices": [shown_text(text or "") for text in (answer and answer.choices) or []],
        "responses": [shown_text(text or "") for text in outcome.responses or []],
        "tool_calls": None if answer is None or answer.tool_calls is None else shown_text(_as_text(answer.tool_calls)),
        "error": None if error is None else _error(error),
        "facts": [[name, shown_text(_fact(value))] for name, value in _facts(obj) if value is not None],
        "failed_attempts": [_attempt(each) for each in _dicts(outcome.failed_attempts)],
        "line": shown_text(_formatted(data)),
    }
    if outcome.parsed is not msgspec.UNSET:
        shown["parsed"] = shown_text(_as_text(outcome.parsed))
    return shown


def settings_rows(settings: Mapping[str, Any]) -> list[list[str]]:
    """Settings as rows of a dotted name and a text, without those that are not set."""
    rows: list[list[str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += [[f"{name}.{inner}", text] for inner, text in settings_rows(value)]
        elif value not in (None, "", [], False):
            rows.append([without_surrogates(str(name)), without_surrogates(_as_text(value))[:MOST_SHOWN_CHARS]])
    return rows


def shown_text(text: str) -> dict[str, Any]:
    """``text`` as it can be shown, and ``cut``: how many characters of it are left out."""
    kept = text[:MOST_SHOWN_CHARS]
    return {"text": without_surrogates(kept), "cut": len(text) - len(kept)}


def texts_of(value: Any) -> Iterator[str]:
    """All texts and numbers in a JSON value; names of keys are none of them."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif value is not None and not isinstance(value, bool):
            yield str(value)


def _error(error: Any) -> dict[str, Any]:
    return {
        "type": error.type,
        "message": shown_text(error.message),
        "status": error.status,
        "retryable": error.retryable,
        "partial": None if error.partial is None else shown_text(error.partial),
    }


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _attempt(each: dict[str, Any]) -> dict[str, Any]:
    """A failed attempt of a line; what is odd in it counts as not told."""
    numbers = {name: each.get(name) for name in ("attempt", "after_s", "status")}
    plain = {name: value if isinstance(value, int | float) else None for name, value in numbers.items()}
    return {
        **plain,
        "type": _short(str(each.get("type", ""))),
        "message": shown_text(_as_text(each.get("message", ""))),
    }


def _facts(obj: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What else the line tells of how the answer came about."""
    ours = own_keys(obj)
    for name in ("index", "attempts", "latency_s", "first_delta_s", "finished_at", "finish_reason", "provider"):
        yield name, ours.get(name)
    yield "model", obj.get("model")
    for name in ("usage", "variant", "reused_from", "value", "fingerprint"):
        yield name, ours.get(name)


def _fact(value: Any) -> str:
    """A value on one line where it is no text and short."""
    if isinstance(value, dict) and value and all(not isinstance(each, dict | list) for each in value.values()):
        return ", ".join(f"{name} {_as_text(each)}" for name, each in value.items())
    return _as_text(value)


def _messages(line: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Texts of the conversation as far as the input line tells them."""
    if not line:
        return []
    found = [] if not isinstance(line.get("system"), str) else [_message("system", line["system"])]
    source = line.get("body") if isinstance(line.get("body"), dict) else line
    messages = source.get("messages") if isinstance(source, dict) else None
    if isinstance(messages, list):
        found += [
            _message(str(each.get("role", "")), each.get("content")) for each in messages if isinstance(each, dict)
        ]
    elif isinstance(line.get("turns"), list):
        found += [_message("user", turn) for turn in line["turns"]]
    elif text := _prompt_of(line):
        found.append(_message("user", text))
    return found


def _message(role: str, content: Any) -> dict[str, Any]:
    if isinstance(content, list):
        parts = [part.get("text", _as_text(part)) if isinstance(part, dict) else part for part in content]
        content = "\n".join(_as_text(part) for part in parts)
    return {"role": _short(role), **shown_text(_as_text(content))}


def _prompt_of(line: dict[str, Any] | None) -> str:
    """The text of an input line that is most likely its prompt."""
    if not line:
        return ""
    for name in _PROMPT_FIELDS:
        if isinstance(text := line.get(name), str) and text:
            return text
    source = line.get("body") if isinstance(line.get("body"), dict) else line
    messages = source.get("messages") if isinstance(source, dict) else None
    for given in (messages, line.get("turns")):
        if isinstance(given, list) and given:
            last = given[-1]
            return str(_message("", last.get("content") if isinstance(last, dict) else last)["text"])
    return next((value for value in line.values() if isinstance(value, str)), "")


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) and value else None)
    except (ValueError, RecursionError):
        return "(nested too deeply to be shown)"


def _formatted(data: bytes) -> str:
    """The line in several, every number as it stands in it."""
    try:
        data = msgspec.json.format(data, indent=2)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    return data.decode("utf-8", "replace")


def _short(text: str) -> str:
    cut = " ".join(text[: 2 * PREVIEW_CHARS].split())
    whole = len(cut) <= PREVIEW_CHARS and len(text) <= 2 * PREVIEW_CHARS
    return without_surrogates(cut if whole else cut[:PREVIEW_CHARS] + "…")
