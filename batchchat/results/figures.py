"""What ``status`` adds up of an answer: of ordinary lines read without making objects of anything else."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from batchchat.records import Outcome, PromptId, Usage

__all__ = ["AnswerFigures", "FailedAttempt", "failed_attempts_of", "figures_of", "read_figures"]

_NULL, _NO_USAGE = msgspec.Raw(b"null"), Usage()


class FailedAttempt(msgspec.Struct, frozen=True, gc=False):
    """One of several attempts: what it came to, and seconds from the first one's start to its end."""

    type: str
    after_s: float | None = None


class AnswerFigures(NamedTuple):
    """Of one answer.

    Attributes:
        asked: Models that the line's variant and the line itself name.
        model: The one that answered.
        reused: Whether it was taken from another prompt or run, and cost nothing.
        attempts, latency_s, first_delta_s: See ``Outcome`` and ``Completion``.
        failed_attempts: Of an answer that took several attempts, as far as the line tells them.
    """

    id: PromptId
    finished_at: datetime
    usage: Usage | None
    asked: tuple[str, ...]
    model: str | None
    reused: bool
    attempts: int = 0
    latency_s: float | None = None
    first_delta_s: float | None = None
    failed_attempts: tuple[FailedAttempt, ...] = ()


class _Input(msgspec.Struct, gc=False):
    model: str | None = None


class _Line(msgspec.Struct, gc=False):
    """A flat line that nothing is odd about."""

    id: PromptId
    response: msgspec.Raw
    finished_at: datetime
    error: None = None
    model: str | None = None
    usage: Usage | None = None
    attempts: int = 0
    latency_s: float | None = None
    first_delta_s: float | None = None
    failed_attempts: list[FailedAttempt] | None = None
    input: _Input | None = None
    custom_id: msgspec.UnsetType = msgspec.UNSET
    reused_from: msgspec.UnsetType = msgspec.UNSET
    variant: msgspec.UnsetType = msgspec.UNSET


_read: Callable[[bytes], _Line] = msgspec.json.Decoder(_Line).decode


def read_figures(line: bytes) -> AnswerFigures | None:
    """The figures of an ordinary answer of the flat form; None for every other line, which ``judge`` looks at."""
    try:
        if not line.isascii():
            line.decode()
        read = _read(line)
    except (ValueError, RecursionError):
        return None
    if read.id == "" or read.response == _NULL or read.usage == _NO_USAGE or read.finished_at.tzinfo is not UTC:
        return None
    asked = () if read.input is None or not read.input.model else (read.input.model,)
    return AnswerFigures(
        read.id,
        read.finished_at,
        read.usage,
        asked,
        read.model,
        False,
        read.attempts,
        read.latency_s,
        read.first_delta_s,
        tuple(read.failed_attempts or ()),
    )


def figures_of(outcome: Outcome) -> AnswerFigures:
    """The figures of an answer that was read as a whole."""
    completion = outcome.completion
    names = [source.get("model") for source in (outcome.variant, outcome.line) if source]
    asked = tuple(name for name in names if isinstance(name, str) and name)
    usage, model = (None, None) if completion is None else (completion.usage, completion.model)
    return AnswerFigures(
        outcome.id,
        outcome.finished_at,
        usage,
        asked,
        model,
        outcome.reused_from is not None,
        outcome.attempts,
        outcome.latency_s,
        None if completion is None else completion.first_delta_s,
        failed_attempts_of(outcome),
    )


def failed_attempts_of(outcome: Outcome) -> tuple[FailedAttempt, ...]:
    """What its attempts came to, as far as the outcome tells; what is odd among them is left out."""
    found = []
    for each in outcome.failed_attempts or ():
        with suppress(msgspec.ValidationError):
            found.append(msgspec.convert(each, FailedAttempt))
    return tuple(found)
