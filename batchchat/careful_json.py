"""JSON that orjson does not read or write: by the standard library and an explicit stack, strict all the same.

Integers beyond 64 bits, halves of surrogate pairs, nesting beyond orjson's limits; ``jsonl`` sends here what needs it.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from batchchat.long_integers import integer_digits, parse_integer
from batchchat.surrogates import without_surrogates

__all__ = ["dump_carefully", "load_carefully", "nested_within", "too_deep"]


def nested_within(value: Any, levels: int) -> bool:
    """Whether lists and objects of a JSON value stand at most ``levels`` inside each other."""
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            if depth > levels:
                return False
            parts = item.values() if isinstance(item, dict) else item
            stack.extend((part, depth + 1) for part in parts)
    return True


def load_carefully(line: bytes, max_depth: int) -> Any:
    """Parses without orjson; what it refuses is told in more words.

    Raises:
        ValueError: As ``parse_object``, but for the type.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"found a byte that is not UTF-8 (0x{line[error.start]:02x}, byte {error.start + 1} of the line), "
            "expected UTF-8 text"
        ) from error
    try:
        value = json.loads(text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"found invalid JSON at character {error.pos + 1} ({error.msg}), expected a JSON object"
        ) from error
    except RecursionError as error:
        raise ValueError(too_deep(max_depth)) from error
    _check_texts(value)
    if not nested_within(value, max_depth):
        raise ValueError(too_deep(max_depth))
    return value


def _parse_int(digits: str) -> int:
    return int(digits) if len(digits) < 2000 else parse_integer(digits)


def _parse_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"found {digits[:40]}, expected a number that a double can hold")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"found {name}, expected a JSON value; JSON has no {name}")


def _check_texts(value: Any) -> None:
    """Refuses halves of surrogate pairs."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if not item.isascii() and any("\ud800" <= char <= "\udfff" for char in item):
                raise ValueError("found half of a surrogate pair (\\ud800 to \\udfff), expected a whole character")
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())


def too_deep(levels: int) -> str:
    """The sentence for a value of more levels."""
    return f"found JSON nested too deeply, expected at most {levels} levels"


class _Token(str):
    """Finished JSON among values that are still to be written."""

    __slots__ = ()


def dump_carefully(obj: Any, *, sort_keys: bool) -> bytes:
    """Writes with a stack of its own, so that nothing is too deep or too big."""
    done: list[str] = []
    stack: list[Any] = [obj]
    while stack:
        item = stack.pop()
        if isinstance(item, _Token):
            done.append(item)
        elif isinstance(item, Mapping):
            pairs = [(_key(key), value) for key, value in item.items()]
            if sort_keys:
                pairs.sort(key=lambda pair: pair[0])
            stack.append(_Token("}"))
            for position in range(len(pairs) - 1, -1, -1):
                key, value = pairs[position]
                stack += (value, _Token(("," if position else "") + _text(key) + ":"))
            stack.append(_Token("{"))
        elif isinstance(item, list | tuple):
            stack.append(_Token("]"))
            for position in range(len(item) - 1, -1, -1):
                stack += (item[position], _Token("," if position else ""))
            stack.append(_Token("["))
        else:
            done.append(_scalar(item))
    return "".join(done).encode()


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    return _scalar(key) if key is None or isinstance(key, int | float) else str(key)


def _scalar(item: Any) -> str:
    if isinstance(item, str):
        return _text(item)
    if isinstance(item, int) and not isinstance(item, bool):
        return integer_digits(item)
    try:
        return orjson.dumps(item).decode()
    except TypeError:
        return _text(str(item))


def _text(text: str) -> str:
    return orjson.dumps(without_surrogates(text)).decode()
