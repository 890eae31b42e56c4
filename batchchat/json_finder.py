"""JSON in the text of an answer: the whole of it, in code fences, or in the midst of prose."""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from batchchat.jsonl import MAX_INPUT_DEPTH, nested_within

__all__ = ["find_json"]

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_THOUGHT_START, _THOUGHT_END = "<think>", "</think>"
_OPENING = re.compile(r"[{\[]\s*")
# A text runs to its own end or, where that is missing, to that of the answer, so that no character is looked at twice.
_MARK = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[{}\[\]]', re.DOTALL)
_CUT_WORD = re.compile(r"[\s\w.+-]*\Z")
# Prose with brackets by the thousand is no answer; each one costs an attempt to read JSON from there.
_MOST_TRIES = 200
# What is spent on all of an answer to find the ends of broken JSON in it.
_MOST_BROKEN_CHARS = 2 << 20
_MOST_DIGITS = 4000
_NOTHING = object()


def find_json(text: str) -> Iterator[Any]:
    """JSON values in an answer, the likeliest first.

    These are the whole text, what stands in code fences, and objects and lists in the midst of prose. What a model
    thought aloud (up to ``</think>``) is passed over where something follows it. Parts of an object or list that is
    broken or cut short are no answers.
    """
    whole = _loaded(text)
    if whole is _NOTHING:
        _, thought, rest = text.rpartition(_THOUGHT_END)
        if thought and rest.strip():
            text = rest
            whole = _loaded(text)
        elif not thought and text.lstrip().startswith(_THOUGHT_START):
            return  # cut short in the midst of a thought
    if whole is not _NOTHING:
        yield whole
        return
    for match in _FENCE.finditer(text):
        fenced = _loaded(match[2])
        if fenced is not _NOTHING:
            yield fenced
    yield from _in_prose(text)


def _in_prose(text: str) -> Iterator[Any]:
    """Objects and lists that stand in a text, outermost ones only."""
    start, room = 0, _MOST_BROKEN_CHARS
    for _ in range(_MOST_TRIES):
        opening = _OPENING.search(text, start)
        if opening is None:
            return
        try:
            found, start = _DECODER.raw_decode(text, opening.start())
        except json.JSONDecodeError as error:
            begun = error.pos > opening.end()  # else it is a bracket of the prose
            if begun and _is_cut(text, error):
                return
            if begun or text.startswith("'", opening.end()):
                start, room = _behind(text, opening, room)
            else:
                start = opening.end()
        except RecursionError:
            start = opening.end()
        except ValueError:  # NaN and the like
            start, room = _behind(text, opening, room)
        else:
            if nested_within(found, MAX_INPUT_DEPTH):
                yield found


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Whether it was JSON up to the end of the answer, which was cut short there."""
    return error.msg.startswith("Unterminated string") or _CUT_WORD.match(text, error.pos) is not None


def _behind(text: str, opening: re.Match[str], room: int) -> tuple[int, int]:
    """Where broken JSON ends by its brackets, behind the first one where they do not match up, as in ``[0, 1)``.

    Args:
        room: Characters that may be looked at; what is left of it comes back as the second value.
    """
    depth = 0
    end = min(len(text), opening.start() + room)
    for mark in _MARK.finditer(text, opening.start(), end):
        if mark[0] in ("{", "["):
            depth += 1
        elif mark[0] in ("}", "]"):
            depth -= 1
            if not depth:
                return mark.end(), room - (mark.end() - opening.start())
    return opening.end(), room - (end - opening.start())


def _loaded(text: str) -> Any:
    """The JSON that a text is, or ``_NOTHING``."""
    try:
        found = _DECODER.decode(text.strip("\ufeff \t\r\n"))
    except (ValueError, RecursionError):
        return _NOTHING
    # A result line must stay readable for every reader.
    return found if nested_within(found, MAX_INPUT_DEPTH) else _NOTHING


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        _refuse("a number of so many digits")
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        _refuse("a number that no double can hold")
    return number


_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse)
