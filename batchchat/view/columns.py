"""What the page knows of every row without reading its line again: some 50 bytes each."""

from array import array
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from batchchat.errors import ErrorType
from batchchat.records import PromptId
from batchchat.results.scan import RawLine, judge
from batchchat.results.stored import outcome_from_object
from batchchat.surrogates import without_surrogates
from batchchat.view.lines import read_object

__all__ = ["ANSWERED", "KINDS", "Columns", "Source"]

Source = Literal[0, 1]
KINDS: tuple[str, ...] = ("answered", *get_args(ErrorType))
ANSWERED = 0
_CODES = {kind: code for code, kind in enumerate(KINDS)}
_PROTOCOL = _CODES["protocol"]
_MOST_ATTEMPTS, _MOST_TOKENS, _MOST_INDEX = 0xFFFF, 0xFFFFFFFF, (1 << 63) - 1


class _Error(msgspec.Struct, gc=False):
    type: str


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Line(msgspec.Struct, gc=False):
    """A flat line that nothing is odd about."""

    id: PromptId
    response: str | None
    index: int = 0
    attempts: int = 0
    latency_s: float | None = None
    finished_at: str | None = None
    error: _Error | None = None
    usage: _Usage | None = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"")
    custom_id: msgspec.UnsetType = msgspec.UNSET


_read: Callable[[bytes], _Line] = msgspec.json.Decoder(_Line).decode


class Columns:
    """One growing table; a row is a number from 0. Written by one thread, read by any.

    Attributes:
        count: Rows that are whole; set last.
        odd: Lines that are no result.
        source: Which file a row is in: 0 results, 1 errors.
        offset, length: Bytes of its line, without the line end.
        kind: Index into ``KINDS``.
        latency_s: -1 where there is none.
        finished: Text of the time as a sortable number: milliseconds since 1970, 0 where it cannot be read.
        ids, answers: Hashes of the id and of the response, that hold within this process.
    """

    def __init__(self) -> None:
        self.count = self.odd = 0
        self.source, self.kind = array("B"), array("B")
        self.offset, self.length = array("Q"), array("I")
        self.index, self.attempts = array("q"), array("H")
        self.latency_s, self.finished = array("d"), array("Q")
        self.tokens = array("Q")
        self.ids, self.answers = array("q"), array("q")
        self.by_kind = [0] * len(KINDS)

    def add(self, source: Source, offset: int, data: bytes) -> None:
        """Adds the row of a line; counts a line that is none."""
        line = _parse(data)
        if line is None:
            self.odd += bool(data.strip())
            return
        kind = _kind_of(line)
        usage = line.usage or _Usage()
        self.source.append(source)
        self.kind.append(kind)
        self.offset.append(offset)
        self.length.append(len(data))
        self.index.append(min(max(line.index, 0), _MOST_INDEX))
        self.attempts.append(min(max(line.attempts, 0), _MOST_ATTEMPTS))
        self.latency_s.append(-1.0 if line.latency_s is None else line.latency_s)
        self.finished.append(_milliseconds(line.finished_at))
        self.tokens.append(min(max((usage.input_tokens or 0) + (usage.output_tokens or 0), 0), _MOST_TOKENS))
        self.ids.append(hash((isinstance(line.id, str), line.id)))
        self.answers.append(hash((line.response, bytes(line.tool_calls) or None)))
        self.by_kind[kind] += 1
        self.count += 1


def _kind_of(line: _Line) -> int:
    if line.error is not None:
        return _CODES.get(line.error.type, _PROTOCOL)
    return ANSWERED if line.response is not None or bytes(line.tool_calls) not in (b"", b"null") else _PROTOCOL


def _parse(data: bytes) -> _Line | None:
    """The line's figures; None for a line that is no result."""
    try:
        line = _read(data)
        if not data.isascii():
            data.decode()
        return line
    except (ValueError, RecursionError):
        pass
    try:
        judged = judge(RawLine(1, 0, data, True))
        return _from_object(judged.obj if judged.obj is not None else read_object(data))
    except (ValueError, RecursionError, OverflowError):
        return None


def _from_object(obj: dict[str, Any]) -> _Line:
    """Figures of a line of the batch form, or of another tool's."""
    outcome = outcome_from_object(obj)
    text = None if outcome.completion is None else outcome.completion.text
    usage = outcome.usage if outcome.completion is None else outcome.completion.usage
    calls = None if outcome.completion is None else outcome.completion.tool_calls
    return _Line(
        id=outcome.id,
        response=text and without_surrogates(text),
        index=outcome.index,
        attempts=outcome.attempts,
        latency_s=outcome.latency_s,
        finished_at=outcome.finished_at.isoformat(),
        error=None if outcome.error is None else _Error(outcome.error.type),
        usage=None if usage is None else _Usage(usage.input_tokens, usage.output_tokens),
        tool_calls=msgspec.Raw(b"" if calls is None else repr(calls).encode("utf-8", "replace")),
    )


def _milliseconds(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError):
        return 0
