"""Bytes and texts of services made fit for use: lenient JSON, previews on one line, surrogates, token counts."""

import json
import re
from typing import Any

import orjson

from batchchat.errors import ProtocolError
from batchchat.jsonl import MAX_INPUT_DEPTH, nested_within
from batchchat.records import Usage

__all__ = [
    "checked_calls",
    "is_blank",
    "load_lenient",
    "looks_like_html",
    "plain_text",
    "usage_of",
]

_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_MOST_DIGITS = 4000
_FEW = 64
_MOST_TOKENS = 10**12  # beyond, a count is nonsense
_TOO_DEEP = f"the service sent JSON nested deeper than {MAX_INPUT_DEPTH} levels"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def looks_like_html(body: bytes) -> bool:
    """Whether a body is an HTML page rather than an answer of a program."""
    head = body[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<center")) or b"<html" in head


def plain_text(body: bytes | str, limit: int = 200) -> str:
    """A short preview on one line: tags and control characters out, white space folded."""
    text = body[: limit * 20].decode("utf-8", "replace") if isinstance(body, bytes) else body[: limit * 20]
    text = " ".join(_CONTROL.sub(" ", _TAG.sub(" ", text)).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def load_lenient(data: bytes | str) -> Any:
    """JSON of a service, which may hold half a surrogate pair that orjson refuses.

    Raises:
        json.JSONDecodeError: It is no JSON.
        ProtocolError: It is nested so deeply that it is no answer of a chat service.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        try:
            value = json.loads(text, parse_int=_int_or_float)
        except RecursionError as error:
            raise ProtocolError(_TOO_DEEP, status=200) from error
    # Python cannot even show a value that is nested as deeply as its parsers allow. Most events are too short for that.
    if len(data) > MAX_INPUT_DEPTH and not _is_shallow(data, value):
        raise ProtocolError(_TOO_DEEP, status=200)
    return value


def _is_shallow(data: bytes | str, value: Any) -> bool:
    return _has_few_values(value) or _brackets(data) <= MAX_INPUT_DEPTH or nested_within(value, MAX_INPUT_DEPTH)


def _has_few_values(value: Any) -> bool:
    """Whether it has too few values to be nested deeply; long texts among them need not be looked through then."""
    left, found = [value], 0
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            inner = inner.values()
        elif not isinstance(inner, list):
            continue
        found += len(inner)
        if found > _FEW:
            return False
        left += inner
    return True


def _brackets(data: bytes | str) -> int:
    """No fewer than the levels of nesting, at a cost far below that of looking at the value."""
    if isinstance(data, str):
        return data.count("{") + data.count("[")
    return data.count(b"{") + data.count(b"[")


def _int_or_float(digits: str) -> int | float:
    """A number without fraction; one of more digits than Python reads as an integer is no reason to lose an answer."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def is_blank(text: str) -> bool:
    """Whether there is nothing but white space in a text, which is not copied for that."""
    return not text or text.isspace()


def checked_calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tool calls that a result line can hold.

    Raises:
        ProtocolError: They are nested so deeply that no reader would take the line.
    """
    if not nested_within(calls, MAX_INPUT_DEPTH):
        raise ProtocolError(f"the tool calls are nested deeper than {MAX_INPUT_DEPTH} levels", status=200)
    return calls


def usage_of(usage: Any) -> Usage | None:
    """Token counts of a ``usage`` object in the words of any of the protocols; None where there is none.

    Chat completions count ``prompt_tokens`` and ``completion_tokens``, Responses ``input_tokens`` and
    ``output_tokens``, each with details; DeepSeek tells ``prompt_cache_hit_tokens`` beside them.
    """
    if not isinstance(usage, dict):
        return None
    cached = _count(_details(usage, "prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    if cached is None:
        cached = _count(usage, "prompt_cache_hit_tokens")
    return Usage(
        input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        output_tokens=_count(usage, "completion_tokens", "output_tokens"),
        cached_tokens=cached,
        reasoning_tokens=_count(
            _details(usage, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens"
        ),
    )


def _count(counts: dict[str, Any], *names: str) -> int | None:
    """The first of the named counts that is one; what no answer can have cost counts as not told."""
    for name in names:
        count = counts.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= _MOST_TOKENS:
            return count
    return None


def _details(usage: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if isinstance(found := usage.get(name), dict):
            return found
    return {}
