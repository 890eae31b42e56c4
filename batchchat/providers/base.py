"""The seam between a worker and a service: what a provider is given and what it gives back."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import msgspec
import orjson

from batchchat.errors import ConfigError, IncompleteError
from batchchat.jsonl import dump_line
from batchchat.rate_headers import RateHeaders
from batchchat.records import Completion, Prompt

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = [
    "ChatRequest",
    "Gate",
    "OpenGate",
    "Provider",
    "ProviderContext",
    "SharedNonce",
    "StreamEnd",
    "StreamEvent",
    "TextDelta",
    "always",
    "api_key",
    "checked_headers",
    "collect",
    "digest_of",
    "end_if_cancelled",
    "key_in",
    "schema_instruction",
    "text_of",
]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset(("content-length", "transfer-encoding", "content-encoding"))


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text as it streams."""

    text: str


class StreamEnd(msgspec.Struct, frozen=True, gc=False):
    """The terminal event: the whole answer, which is authoritative over the joined deltas."""

    completion: Completion


StreamEvent = TextDelta | StreamEnd


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked in one attempt: history and new message together in ``messages``.

    Attributes:
        messages: ``{"role": …, "content": …}`` objects; the last one is the new message.
        system: System prompt of the job or the line, not repeated in ``messages``.
        model: The line's model, or None for the provider's.
        params: Sampling parameters, the job's with the line's laid over them.
        chat_id: Conversation id for services that keep one; None means a fresh one for each attempt.
        given: How many of ``messages`` came with the input, ahead of the prompt's own turns; the rest are turns
            and answers of this run, which a service that keeps conversations knows already.
        answer_schema: JSON Schema that the answer is to fit; sent in the way that the service knows, if any.
    """

    messages: list[dict[str, Any]]
    system: str | None = None
    model: str | None = None
    params: dict[str, Any] = {}
    chat_id: str | None = None
    given: int = 0
    answer_schema: dict[str, Any] | None = None


class Gate(Protocol):
    """Where a run lets its requests out."""

    async def admit(self, still: Callable[[], bool] = ...) -> None:
        """Waits until one more request may go out; awaited right before every request, whatever its kind.

        Args:
            still: Whether the caller could send now; where it could not, it spends no part of a limit.
        """

    def begin(self, task: asyncio.Task[Any]) -> None:
        """The task's request is on its way: a connection is found or made for it."""

    def sent(self, task: asyncio.Task[Any]) -> Awaitable[None] | None:
        """The task's request goes to the wire now; where something is returned, not before that is done."""

    def left(self, task: asyncio.Task[Any]) -> None:
        """The task's request is over, whatever came of it."""

    def observed(self, told: RateHeaders) -> str | None:
        """Takes in what the answer to the running task's request tells of the service's own limits.

        Returns:
            A sentence for the user where a limit of the service's begins to hold requests up.
        """


class SharedNonce(Protocol):
    """What several processes have for one nonce."""

    async def take(self, refused: Container[str], max_age_s: float) -> tuple[str, float] | None:
        """The nonce that all use, and its age in seconds.

        Args:
            refused: Those that are worth nothing any more.
            max_age_s: From what age on one is worth nothing.

        Returns:
            None where there is none: the caller is the one to get it, and ends that by ``keep`` or ``fail``.
        """

    def keep(self, value: str, age_s: float) -> None:
        """There is a new one for all."""

    def fail(self) -> None:
        """The caller could not get one."""


def always() -> bool:
    """For ``Gate.admit``: the request needs nothing more."""
    return True


class OpenGate:
    """A gate without limits, for a provider that is used outside a run."""

    async def admit(self, still: Callable[[], bool] = always) -> None:
        """Returns at once."""

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Notes nothing."""

    def sent(self, task: asyncio.Task[Any]) -> None:
        """Notes nothing."""

    def left(self, task: asyncio.Task[Any]) -> None:
        """Notes nothing."""

    def observed(self, told: RateHeaders) -> str | None:
        """Notes nothing."""
        return None


def _tell_nobody(message: str, level: int) -> None:
    return None


class ProviderContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a run lends to its provider.

    Attributes:
        gate: Lets every request out; see ``Gate``.
        notice: ``(message, level)``; level 1 shows with ``-v``, 2 with ``-vv``.
        connect_s, idle_s, attempt_s: Seconds; 0 means no limit. ``idle_s`` counts once the answer has begun.
        max_response_bytes: Ceiling for one answer's body.
        proxy: Address of the proxy; None for what the environment says.
        tls: How certificates are verified; None for the system's authorities.
        nonce_folder: Where nonces are kept between runs; None for memory only.
        shared_nonce: Where several processes of one run share their nonce; None for a process on its own.
        concurrency: Most prompts in flight.
    """

    gate: Gate = OpenGate()
    notice: Callable[[str, int], None] = _tell_nobody
    connect_s: float = 10.0
    idle_s: float = 60.0
    attempt_s: float = 300.0
    max_response_bytes: int = 64 << 20
    proxy: str | None = None
    tls: "SSLContext | None" = None
    nonce_folder: str | None = None
    shared_nonce: "SharedNonce | None" = None
    concurrency: int = 16
    environ: Mapping[str, str] = {}


class Provider(Protocol):
    """Speaks one service's protocol; entered once for a run, used by all its workers at the same time."""

    kind: ClassVar[str]
    Config: ClassVar[type[msgspec.Struct]]

    def __init__(self, config: Any, context: ProviderContext) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        """What makes the prompt's answer this one: settings and texts, no secrets, no address, no nonce."""
        ...

    async def complete(self, request: ChatRequest) -> Completion:
        """One attempt to its end.

        Raises:
            ProviderError: The attempt failed; its class and attributes say what is worth doing.
        """
        ...

    def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """One attempt, told piece by piece; ends with ``StreamEnd`` or raises ``ProviderError``."""
        ...


def end_if_cancelled() -> None:
    """Ends a task whose end was put off while the rest of a whole answer was awaited; see ``Exchange.expect_end``."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def collect(events: AsyncIterator[StreamEvent]) -> Completion:
    """The completion at the end of a stream, which is read out so that its connection is given back."""
    completion = None
    async for event in events:
        if isinstance(event, StreamEnd):
            completion = event.completion
    if completion is None:
        raise IncompleteError("the answer ended without its last event")
    return completion


def digest_of(identity: Mapping[str, Any]) -> str:
    """Fingerprint of an identity: 16 hex digits of BLAKE2b over its canonical JSON."""
    try:
        canonical = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        canonical = dump_line(identity)
    return blake2b(canonical, digest_size=8).hexdigest()


def api_key(environ: Mapping[str, str], name: str | None, *, required: bool) -> str | None:
    """The key that an environment variable holds, stripped of surrounding white space.

    Raises:
        ConfigError: ``required`` and unset or empty, or it holds characters that no header may carry.
    """
    if name is None:
        return None
    key = environ.get(name, "").strip()
    if not key:
        if required:
            raise ConfigError(f"environment variable {name} is not set; put the service's key into it")
        return None
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {name} holds characters that no HTTP header may carry")
    return key


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Extra request headers as the user gave them.

    Raises:
        ConfigError: One cannot be sent, or says how a request is framed, which is not the user's to say.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(f"headers: {name!r} is no name of a header")
        if name.lower() in _FRAMING:
            raise ConfigError(f"headers: {name} says how a request is sent, which is up to batchchat; leave it out")
        if _NOT_IN_HEADERS.search(value):
            raise ConfigError(f"headers: the value of {name} holds characters that no HTTP header may carry")
    return dict(headers)


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that goes with every request, as a header; None where there is none."""
    found = {name.lower(): value for name, value in headers.items()}
    return next((found[name] for name in ("authorization", "api-key", "x-api-key") if name in found), None)


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """What a service that knows no structured answers is told in its system prompt."""
    return (
        "Answer with one JSON value and nothing else: no explanation, no code fence. "
        f"It must fit this JSON Schema:\n{dump_line(dict(schema)).decode().rstrip()}"
    )


def text_of(content: Any) -> str:
    """The text of a message's content, which is a text or a list of OpenAI content parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
