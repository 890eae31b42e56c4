"""The values that travel along one prompt's way; pure, no input or output."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from batchchat.errors import ErrorType, ProviderError

__all__ = ["Completion", "Failure", "InputFault", "Outcome", "Prompt", "PromptId", "Usage"]

PromptId = str | int


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One input record after validation.

    Attributes:
        id: The user's key, in the type it was given.
        index: 0-based position in the input, over prompts and faulty lines.
        line_number: 1-based physical line (row for CSV) in its file.
        system: System prompt, or None; never repeated in ``messages``.
        messages: History plus new message: ``{"role": …, "content": …}`` objects as given, sent as they are.
        turns: User turns to send one after another, each with the answers before it; empty for a plain prompt.
            When given, ``messages`` is the history before the first of them.
        model: Model that this line asks for, or None for the job's.
        params: Sampling parameters of this line, laid over the job's.
        chat_id: Conversation id that this line sets itself, or None.
        line: The whole input object but its id, carried through untouched into ``input``.
    """

    id: PromptId
    index: int
    line_number: int
    messages: list[dict[str, Any]]
    system: str | None = None
    turns: tuple[str, ...] = ()
    model: str | None = None
    params: dict[str, Any] = {}
    chat_id: str | None = None
    line: dict[str, Any] = {}


class InputFault(msgspec.Struct, frozen=True, kw_only=True):
    """An input line that is no prompt: ``path:line_number: reason``; its error line has the id ``line-<n>``."""

    path: str
    line_number: int
    index: int
    reason: str
    line: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """Id of its line in the errors file."""
        return f"line-{self.line_number}"


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens that the service counted; a count that it did not give is None."""

    input_tokens: int | None = None
    output_tokens: int | None = None

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=_add(self.input_tokens, other.input_tokens),
            output_tokens=_add(self.output_tokens, other.output_tokens),
        )


def _add(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else left + right


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The final answer as a value: text (None for a mere tool call), finish reason, model, usage."""

    text: str | None
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    tool_calls: list[dict[str, Any]] | None = None
    first_delta_s: float | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The ``error`` object of a result line; ``retryable`` is the type's, also after the last attempt."""

    type: ErrorType
    message: str
    status: int | None = None
    retryable: bool = False
    partial: str | None = None

    @classmethod
    def from_error(cls, error: ProviderError) -> "Failure":
        """The failure that a last attempt's error leaves."""
        return cls(
            type=error.type,
            message=error.message,
            status=error.status,
            retryable=error.retryable,
            partial=error.partial,
        )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a prompt: answered (``completion``) or failed (``error``), exactly one of them set.

    Attributes:
        attempts: HTTP exchanges made for the answer, from 1; 0 for a faulty input line.
        latency_s: Seconds from the first attempt's start to the end, waits included; None if nothing was sent.
        responses: Answers to every turn where the prompt has ``turns``, else None.
        finished_at: UTC.
    """

    id: PromptId
    index: int
    completion: Completion | None = None
    error: Failure | None = None
    attempts: int = 0
    latency_s: float | None = None
    responses: list[str | None] | None = None
    finished_at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    provider: str | None = None
    fingerprint: str | None = None
    line: dict[str, Any] | None = None

    @property
    def status(self) -> Literal["answered", "failed"]:
        """``answered`` or ``failed``."""
        return "failed" if self.error is not None else "answered"
