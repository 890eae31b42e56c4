"""A results file's content line by line, each judged: an answer of ours, a failure, garbled, or something else."""

import json
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, Literal, NamedTuple

import orjson

from batchchat.errors import ResultsFileError
from batchchat.jsonl import parse_object
from batchchat.results.codec import Damage
from batchchat.results.quick import reads_quickly
from batchchat.results.stored import StoredLine, parse_stored

__all__ = ["Judged", "LineBlock", "RawLine", "iter_blocks", "iter_raw_lines", "judge", "looks_like_ours"]

# No answer and no input line is longer; only a file that was never a results file gets here.
_MAX_LINE_BYTES = 1024 * 1024 * 1024
_OURS = b'{"id":'


class RawLine(NamedTuple):
    """One physical line as it stands.

    Attributes:
        number: From 1; a damaged stretch of a compressed file counts none.
        start: Offset of its first byte in the (decoded) content.
        data: Its bytes without the line feed.
        ended: Whether a line feed follows.
    """

    number: int
    start: int
    data: bytes
    ended: bool


class LineBlock(NamedTuple):
    """Lines that follow each other; see ``RawLine``.

    Attributes:
        number: Of the first.
        start: Of the first.
        lines: At least one, each with its line feed.
        ended: False for a single line that has none.
    """

    number: int
    start: int
    lines: list[bytes]
    ended: bool


class Judged(NamedTuple):
    """What a line is.

    Attributes:
        kind: ``answer``, ``failure``, ``blank``, ``garbled`` (no JSON) or ``foreign`` (JSON, but no result of ours).
        stored: Of an answer or a failure.
        obj: Its object.
        core: The part of ``data`` that is the result: all of it, or what is left without zero bytes around it.
    """

    kind: Literal["answer", "failure", "blank", "garbled", "foreign"]
    core: bytes = b""
    stored: StoredLine | None = None
    obj: dict[str, Any] | None = None


def iter_blocks(pieces: Iterable[bytes | Damage]) -> Iterator[LineBlock | Damage]:
    """Splits content at line feeds only; a damaged stretch ends a line that runs into it.

    Raises:
        ResultsFileError: A line is longer than any result can be.
    """
    number, start = 1, 0
    begun: list[bytes] = []
    begun_bytes = 0
    for piece in pieces:
        if isinstance(piece, Damage):
            if begun:
                yield LineBlock(number, start, [b"".join(begun)], False)
                number, start = number + 1, start + begun_bytes
                begun, begun_bytes = [], 0
            yield piece
            continue
        lines = BytesIO(piece).readlines()
        if not lines:
            continue
        last = b"" if lines[-1].endswith(b"\n") else lines.pop()
        if lines:
            if begun:
                begun.append(lines[0])
                lines[0] = b"".join(begun)
            yield LineBlock(number, start, lines, True)
            number += len(lines)
            start += begun_bytes + len(piece) - len(last)
            begun, begun_bytes = [], 0
        if last:
            begun.append(last)
            begun_bytes += len(last)
            if begun_bytes > _MAX_LINE_BYTES:
                raise ResultsFileError(
                    f"line {number} is longer than 1 GiB, expected lines of results; name another file"
                )
    if begun:
        yield LineBlock(number, start, [b"".join(begun)], False)


def iter_raw_lines(pieces: Iterable[bytes | Damage]) -> Iterator[RawLine | Damage]:
    """As ``iter_blocks``, line by line."""
    for block in iter_blocks(pieces):
        if isinstance(block, Damage):
            yield block
            continue
        number, start = block.number, block.start
        for data in block.lines:
            yield RawLine(number, start, data[:-1] if block.ended else data, block.ended)
            number += 1
            start += len(data)


def judge(line: RawLine) -> Judged:
    """Tells what a line is; never raises."""
    data = line.data
    if line.number == 1 and data.startswith(b"\xef\xbb\xbf"):
        return _judge_text(data[3:], data)
    if b"\0" in data:
        # Zero bytes after a power loss may stand right before or behind a whole line; the answer in it was paid for.
        core = data.strip(b"\0")
        judged = _judge_text(core, core)
        return judged if judged.kind in ("answer", "failure") else Judged("garbled")
    return _judge_text(data, data)


def _judge_text(text: bytes, core: bytes) -> Judged:
    if not text or text.isspace():
        return Judged("blank", core)
    try:
        obj = parse_object(text, max_line_bytes=_MAX_LINE_BYTES)
    except ValueError:
        if not reads_quickly(text):
            return Judged("foreign" if _is_json(text) else "garbled")
        obj = json.loads(text)  # a number in it overflows, which is nobody's loss
    stored = parse_stored(obj)
    if stored is None:
        return Judged("foreign", core, None, obj)
    return Judged("answer" if stored.answered else "failure", core, stored, obj)


def looks_like_ours(data: bytes) -> bool:
    """Whether the first line of a file may be what is left of a result of ours: its start, zero bytes, or both."""
    begin = data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\0")[: len(_OURS)]
    return data.startswith(b"\0") or _OURS.startswith(begin)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
