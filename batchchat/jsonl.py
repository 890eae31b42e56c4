"""JSON Lines from bytes to objects and back, strict in both directions.

The ordinary line goes through orjson at once. What orjson cannot do goes a careful way through the standard
library or an explicit stack: integers beyond 64 bits, halves of surrogate pairs, nesting beyond its limits.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import orjson

from batchchat.careful_json import dump_carefully, load_carefully, nested_within, too_deep

__all__ = [
    "MAX_INPUT_DEPTH",
    "MAX_LINE_BYTES",
    "dump_canonical",
    "dump_line",
    "dump_lines",
    "has_long_number",
    "iter_line_blocks",
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
# orjson makes a float of an integer beyond 64 bits. Only a run of 19 digits can be one, and translating the line and
# searching that costs 1.5 ns a byte, a tenth of what a regular expression costs. Of such a run, at least 4 in a row of
# every fourth byte are digits, which is a third of that cost.
_DIGITS = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
_LONG_NUMBER = b"0" * 19
_STEP, _THINNED = 4, b"0" * 4
_FEW_BYTES = 256
_MAX_DEPTH = 1024
# What some readers take for the end of a line, besides LF.
_LINE_ENDS = tuple((mark.encode(), f"\\u{ord(mark):04x}".encode()) for mark in ("\x85", "\u2028", "\u2029"))


def iter_lines(stream: BinaryIO, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    """Lines of a byte stream that are not blank, each as soon as its bytes have arrived.

    Only LF ends a line; a CR before it is dropped, so is a byte order mark at the front. Lines of nothing but white
    space are counted and not told. A last line without an LF counts.

    Args:
        stream: Anything with ``read1`` or ``read``; not closed.
        max_line_bytes: See ``iter_line_blocks``.

    Yields:
        1-based number of the line in the stream, and the line without its end.
    """
    for first, lines in iter_line_blocks(stream, max_line_bytes=max_line_bytes):
        for number, line in enumerate(lines, first):
            if line and not line.isspace():
                yield number, line if line[-1] != 13 else line[:-1]


def iter_line_blocks(
    stream: BinaryIO, *, max_line_bytes: int = MAX_LINE_BYTES, block_bytes: int = _CHUNK_BYTES
) -> Iterator[tuple[int, list[bytes]]]:
    """Lines of a byte stream, blank ones too, as many at a time as have arrived.

    Args:
        stream: Anything with ``read1`` or ``read``; not closed.
        max_line_bytes: Most bytes kept of one line. A longer one is told cut to ``max_line_bytes + 1`` bytes, so
            that its length gives it away (``parse_object`` refuses it) and the next line is found all the same.
        block_bytes: How much is read at once.

    Yields:
        1-based number of the first, and the lines without their LF; the last of all may be empty.
    """
    read = getattr(stream, "read1", None) or stream.read
    number, held, held_bytes = 1, list[bytes](), 0
    while chunk := read(block_bytes):
        lines = chunk.split(b"\n")
        if held_bytes <= max_line_bytes:
            held.append(lines[0])
            held_bytes += len(lines[0])
        if len(lines) == 1:
            continue
        tail = lines.pop()
        lines[0] = _whole(number, held, max_line_bytes)
        yield number, lines
        number += len(lines)
        held, held_bytes = [tail], len(tail)
    yield number, [_whole(number, held, max_line_bytes)]


def _whole(number: int, pieces: list[bytes], max_line_bytes: int) -> bytes:
    line = b"".join(pieces)[: max_line_bytes + 1]
    return line.removeprefix(_BOM) if number == 1 else line


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
    if has_long_number(line):
        value = load_carefully(line, max_depth)
    else:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            # The standard library's words say more, and tell apart what orjson lumps together.
            load_carefully(line, max_depth)
            raise ValueError(f"found invalid JSON ({error}), expected a JSON object") from error
        # Each level opens with a bracket, so that the ordinary line need not be walked through.
        deep = len(line) > max_depth and line.count(b"{") + line.count(b"[") > max_depth
        if deep and not nested_within(value, max_depth):
            raise ValueError(too_deep(max_depth))
    return value


def has_long_number(data: bytes) -> bool:
    """Whether there may be an integer in it that orjson would make a float of."""
    if len(data) <= _FEW_BYTES:
        return _LONG_NUMBER in data.translate(_DIGITS)
    thin = data[_STEP - 1 :: _STEP].translate(_DIGITS)
    at = thin.find(_THINNED)
    while at >= 0:
        first, last = _STEP * at + _STEP - 1, _STEP * (at + len(_THINNED)) - 1
        near = len(_LONG_NUMBER) - 1
        if data[first : last + 1].isdigit() and _LONG_NUMBER in data[max(0, first - near) : last + near + 1].translate(
            _DIGITS
        ):
            return True
        at = thin.find(_THINNED, at + 1)
    return False


def dump_line(obj: Mapping[str, Any]) -> bytes:
    """One line of strict JSON in UTF-8 with its LF: one physical line for every reader.

    U+2028, U+2029 and U+0085 are escaped, half of a surrogate pair becomes U+FFFD, NaN and Infinity become null,
    keys that are no text and values that JSON does not know become text. Nothing JSON-like makes it fail.
    """
    try:
        line = orjson.dumps(obj, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        line = dump_carefully(obj, sort_keys=False) + b"\n"
    return line if line.isascii() else _with_line_ends_escaped(line)


def dump_lines(objects: Sequence[Mapping[str, Any]]) -> bytes:
    """The lines of many objects; see ``dump_line``."""
    try:
        lines = b"".join([orjson.dumps(obj, option=orjson.OPT_APPEND_NEWLINE) for obj in objects])
    except TypeError:
        return b"".join(map(dump_line, objects))
    return lines if lines.isascii() else _with_line_ends_escaped(lines)


def dump_canonical(obj: Mapping[str, Any]) -> bytes:
    """JSON for digests: keys sorted at every level, no white space; never fails where ``dump_line`` does not."""
    try:
        return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return dump_carefully(obj, sort_keys=True)


def _with_line_ends_escaped(data: bytes) -> bytes:
    for mark, escape in _LINE_ENDS:
        if mark in data:
            data = data.replace(mark, escape)
    return data


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
