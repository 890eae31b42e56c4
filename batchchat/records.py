"""The values that travel along one prompt's way; pure, no input or output."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from batchchat.errors import ErrorType, ProviderError

__all__ = ["Attachment", "Completion", "Failure", "InputFault", "Outcome", "Prompt", "PromptId", "Usage"]

PromptId = str | int


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """An image or a file that a prompt carries, found but not read yet.

    Attributes:
        kind: What part of a message it becomes.
        given: The path or address as the line has it; an address (``https:``, ``data:``) is passed on as it is.
        path: Where it lies, symbolic links resolved; None for an address.
        media_type: ``image/png``, told by its first bytes; empty for an address.
        size: Bytes; 0 for an address that is not the data itself.
        name: Its name for the service.
        detail: How closely the service is to look at an image, None for its own choice.
        stamp: Device, inode and time of its last change, so that a change is noticed.
        trouble: Why it cannot be sent, where that came up after the whole input had been found to be right.
    """

    kind: Literal["image", "file"]
    given: str
    path: str | None = None
    media_type: str = ""
    size: int = 0
    name: str = ""
    detail: str | None = None
    stamp: tuple[int, int, int] | None = None
    trouble: str | None = None


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
        attachments: Images and files that go with the last message of the user, or the first of the turns; read when
            the prompt is sent.
        variant: Which of several prompts of one line this is; None where a line makes one prompt.
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
    attachments: tuple[Attachment, ...] = ()
    variant: dict[str, Any] | None = None


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
    """Tokens that an answer cost; a count that is not known is None.

    Attributes:
        input_tokens: Tokens sent, cached ones included.
        output_tokens: Tokens made, reasoning included.
        cached_tokens: How many of the input the service had in its cache.
        reasoning_tokens: How many of the output were reasoning.
        estimated: Whether any of it is an estimate because the service told no counts.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=_add(self.input_tokens, other.input_tokens),
            output_tokens=_add(self.output_tokens, other.output_tokens),
            cached_tokens=_add(self.cached_tokens, other.cached_tokens),
            reasoning_tokens=_add(self.reasoning_tokens, other.reasoning_tokens),
            estimated=self.estimated or other.estimated,
        )


def _add(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else left + right


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The final answer as a value: text (None for a mere tool call), finish reason, model, usage.

    Attributes:
        choices: Texts of all choices where more than one was asked for (None for one without text), in the
            service's order; ``text`` is the first of them that is an answer.
    """

    text: str | None
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    tool_calls: list[dict[str, Any]] | None = None
    first_delta_s: float | None = None
    choices: list[str | None] | None = None


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
        usage: Of a failed prompt, tokens of the answers that came all the same (to turns before the one that failed, or
            such that did not fit); an answered prompt has them in ``completion``.
        parsed: The answer's JSON where a schema or an expression asked for JSON, else UNSET.
        value: What the expression of ``--extract`` found in it, else UNSET.
        reused_from: Where the answer comes from if it was not asked for: ``id`` and, for another file, ``path``.
        variant: See ``Prompt``.
        failed_attempts: Of a prompt that took several attempts, the failed ones, at most the last 20: ``attempt`` (its
            number), ``after_s`` (seconds from the first one's start to its end), ``type``, ``status``, ``message``.
        finished_at: UTC.
    """

    id: PromptId
    index: int
    completion: Completion | None = None
    error: Failure | None = None
    attempts: int = 0
    latency_s: float | None = None
    responses: list[str | None] | None = None
    usage: Usage | None = None
    parsed: Any = msgspec.UNSET
    value: Any = msgspec.UNSET
    reused_from: dict[str, Any] | None = None
    variant: dict[str, Any] | None = None
    failed_attempts: list[dict[str, Any]] | None = None
    finished_at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    provider: str | None = None
    fingerprint: str | None = None
    line: dict[str, Any] | None = None

    @property
    def status(self) -> Literal["answered", "failed"]:
        """``answered`` or ``failed``."""
        return "failed" if self.error is not None else "answered"
