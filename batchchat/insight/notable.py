"""Single prompts worth looking at, the slow and the failed ones, with a bounded part of their texts."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from batchchat.jsonl import dump_line
from batchchat.records import Outcome, PromptId
from batchchat.surrogates import without_surrogates

__all__ = ["Excerpt", "Notable", "notable_of"]

_MOST_CHARS = 400
_MOST_ID_CHARS = 200
# Where a line of data has one of these, that is what reads best; else all of it is shown.
_TEXT_FIELDS = ("prompt", "question", "query", "instruction", "text")


class Excerpt(msgspec.Struct, frozen=True):
    """The start of a text, at most 400 characters, and how many characters the whole has."""

    text: str
    chars: int

    @property
    def cut(self) -> int:
        """How many characters are missing."""
        return self.chars - len(self.text)


class Notable(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt and what became of it.

    Attributes:
        id: As the input has it; a long text is cut, a long integer is text.
        index: 0-based position in the input.
        latency_s: None where nothing was sent, or the line does not tell.
        finished_at: UTC; None where the line does not tell.
        error: Error type; None for an answer.
        status: HTTP status of a failure, where there was one.
        message: Of a failure.
        prompt: What was asked, as far as the line carries it.
        response: The answer, or the part of it that had arrived.
    """

    id: PromptId
    index: int
    attempts: int
    latency_s: float | None
    finished_at: datetime | None
    error: str | None = None
    status: int | None = None
    message: Excerpt | None = None
    prompt: Excerpt | None = None
    response: Excerpt | None = None


def notable_of(outcome: Outcome) -> Notable:
    """The part of an outcome that is worth showing."""
    error, completion, latency_s = outcome.error, outcome.completion, outcome.latency_s
    text = error.partial if error is not None else completion.text if completion is not None else None
    return Notable(
        id=_short_id(outcome.id),
        index=_bounded(outcome.index),
        attempts=_bounded(outcome.attempts),
        latency_s=latency_s if latency_s is not None and 0 <= latency_s < math.inf else None,
        finished_at=outcome.finished_at if outcome.finished_at.year > 1970 else None,
        error=None if error is None else error.type,
        status=None if error is None or error.status is None else _bounded(error.status),
        message=None if error is None else _excerpt(error.message),
        prompt=_excerpt(_asked(outcome.line)),
        response=_excerpt(text),
    )


def _asked(line: Mapping[str, Any] | None) -> str | None:
    """The text that was asked; a line of fields for a template as JSON."""
    if not line:
        return None
    body = line.get("body")
    if isinstance(body, dict) and "messages" in body:
        line = body
    messages, turns = line.get("messages"), line.get("turns")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        found = messages[-1].get("content")
    elif isinstance(turns, list) and turns:
        found = turns[0]
    else:
        found = next((line[name] for name in _TEXT_FIELDS if isinstance(line.get(name), str)), None)
    return found if isinstance(found, str) and found else _as_json(line)


def _as_json(line: Mapping[str, Any]) -> str:
    return dump_line(line).decode("utf-8", "replace").rstrip("\n")


def _excerpt(text: str | None) -> Excerpt | None:
    return None if text is None else Excerpt(without_surrogates(text[:_MOST_CHARS]), len(text))


def _short_id(id: PromptId) -> PromptId:
    if isinstance(id, int):
        return id if id.bit_length() < 64 else str(id)[:_MOST_ID_CHARS] if id.bit_length() < 4000 else "a long integer"
    return without_surrogates(id if len(id) <= _MOST_ID_CHARS else f"{id[:_MOST_ID_CHARS]}…")


def _bounded(number: int) -> int:
    return max(-(2**53), min(number, 2**53))
