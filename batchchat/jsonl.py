"""JSON Lines from bytes to objects and back, strict in both directions.

The ordinary line goes through orjson at once. What orjson cannot do goes a careful way through the standard
library or an explicit stack: integers beyond 64 bits, halves of surrogate pairs, nesting beyond its limits.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

import orjson

from batchchat.long_integers import integer_digits, parse_integer

__all__ = [
    "MAX_INPUT_DEPTH",
    "MAX_LINE_BYTES",
    "dump_canonical",
    "dump_line",
    "iter_lines",
    "json_type",
    "nested_within",
    "parse_object",
    "parse_value",
]

# A result line nests its input a few levels deeper, and must stay readable itself.
MAX_INPUT_DEPTH = 500
MAX_LINE_BYTES = 256 << 20
_CHUNK_BYTES = 256 << 10
_BOM = b"\xef\xbb\xbf"
# orjson makes a float of an integer beyond 64 bits. Only a run of 19 digits can be one, and translating the
# line and searching that costs 0.5 ns a byte, a tenth of what a regular expression costs.
_DIGITS = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
_LONG_NUMBER = b"0" * 19
_MAX_DEPTH = 1024
# What some readers take for the end of a line, besides LF.
_LINE_ENDS = tuple((mark.encode(), f"\\u{ord(mark):04x}".encode()) for mark in ("\x85", "\u2028", "\u2029"))


def iter_lines(stream: BinaryIO, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    """Lines of a byte stream that are not blank, each as soon as its bytes have arrived.

    Only LF ends a line; a CR before it is dropped, so is a byte order mark at the front. Lines of nothing but white
    space are counted and not told. A last line without an LF counts.

    Args:
        stream: Anything with ``read1`` or ``read``; not closed.
        max_line_bytes: Most bytes kept of one line. A longer one is told cut to ``max_line_bytes + 1`` bytes, so
            that its length gives it away (``parse_object`` refuses it) and the next line is found all the same.

    Yields:
        1-based number of the line in the stream, and the line without its end.
    """
    read = getattr(stream, "read1", None) or stream.read
    number, held, held_bytes = 0, list[bytes](), 0
    while chunk := read(_CHUNK_BYTES):
        head, end, rest = chunk.partition(b"\n")
        if held_bytes <= max_line_bytes:
            held.append(head)
            held_bytes += len(head)
        if not end:
            continue
        lines = rest.split(b"\n")
        tail = lines.pop()
        number += 1
        yield from _told(number, b"".join(held), max_line_bytes)
        for line in lines:
            number += 1
            if line and not line.isspace():
                yield number, line if line[-1] != 13 else line[:-1]
        held, held_bytes = [tail], len(tail)
    yield from _told(number + 1, b"".join(held), max_line_bytes)


def _told(number: int, line: bytes, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The line as ``iter_lines`` tells it, which for a blank one is not at all."""
    line = line[: max_line_bytes + 1]
    if number == 1:
        line = line.removeprefix(_BOM)
    if line and not line.isspace():
        yield number, line.removesuffix(b"\r")


def parse_object(line: bytes, *, max_line_bytes: int = MAX_LINE_BYTES, max_depth: int = _MAX_DEPTH) -> dict[str, Any]:
    """The JSON object on one line; integers of any size survive exactly.

    Args:
        max_line_bytes: Most bytes of the line.
        max_depth: Most levels of nesting, the object itself included; at most 1024.

    Raises:
        ValueError: It is none: invalid JSON or UTF-8, another type, NaN, Infinity, a number that overflows, half of a
            surrogate pair, nested too deeply, too long. The text says what was found and what was expected.
    """
    value = parse_value(line, max_line_bytes=max_line_bytes, max_depth=max_depth)
    if type(value) is not dict:
        raise ValueError(f"expected a JSON object, found {json_type(value)}")
    return value


def parse_value(line: bytes, *, max_line_bytes: int = MAX_LINE_BYTES, max_depth: int = _MAX_DEPTH) -> Any:
    """Any JSON value; otherwise as ``parse_object``.

    Raises:
        ValueError: As ``parse_object``, but for the type.
    """
    if len(line) > max_line_bytes:
        raise ValueError(f"found a line of more than {max_line_bytes >> 20} MiB, expected a shorter one")
    if _LONG_NUMBER in line.translate(_DIGITS):
        value = _load_carefully(line, max_depth)
    else:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            # The standard library's words say more, and tell apart what orjson lumps together.
            _load_carefully(line, max_depth)
            raise ValueError(f"found invalid JSON ({error}), expected a JSON object") from error
        # Each level opens with a bracket, so that the ordinary line need not be walked through.
        deep = len(line) > max_depth and line.count(b"{") + line.count(b"[") > max_depth
        if deep and not nested_within(value, max_depth):
            raise ValueError(_too_deep(max_depth))
    return value


def dump_line(obj: Mapping[str, Any]) -> bytes:
    """One line of strict JSON in UTF-8 with its LF: one physical line for every reader.

    U+2028, U+2029 and U+0085 are escaped, half of a surrogate pair becomes U+FFFD, NaN and Infinity become null,
    keys that are no text and values that JSON does not know become text. Nothing JSON-like makes it fail.
    """
    try:
        line = orjson.dumps(obj, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        line = _dump_carefully(obj, sort_keys=False) + b"\n"
    if line.isascii():
        return line
    for mark, escape in _LINE_ENDS:
        if mark in line:
            line = line.replace(mark, escape)
    return line


def dump_canonical(obj: Mapping[str, Any]) -> bytes:
    """JSON for digests: keys sorted at every level, no white space; never fails where ``dump_line`` does not."""
    try:
        return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return _dump_carefully(obj, sort_keys=True)


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


def json_type(value: Any) -> str:
    """What a JSON value is, in words with their article, for messages: ``a list``, ``text``, ``null``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, words in ((str, "text"), (int, "an integer"), (float, "a number"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kind):
            return words
    return f"a {type(value).__name__}"


def _load_carefully(line: bytes, max_depth: int) -> Any:
    """Parses without orjson.

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
        raise ValueError(_too_deep(max_depth)) from error
    _check_texts(value)
    if not nested_within(value, max_depth):
        raise ValueError(_too_deep(max_depth))
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


def _too_deep(levels: int) -> str:
    return f"found JSON nested too deeply, expected at most {levels} levels"


class _Token(str):
    """Finished JSON among values that are still to be written."""

    __slots__ = ()


def _dump_carefully(obj: Any, *, sort_keys: bool) -> bytes:
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
    # By way of UTF-16, pairs that were split join and lone halves become U+FFFD.
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return orjson.dumps(whole).decode()
