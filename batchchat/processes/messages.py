"""What parent and child tell each other, each message a small array."""

from typing import Any, cast, get_args

import msgspec

from batchchat.errors import ErrorType, ProviderError, provider_error
from batchchat.providers.base import ChatRequest
from batchchat.rate_headers import RateHeaders
from batchchat.records import Completion

__all__ = [
    "ABANDONED",
    "GO",
    "NOT_NOW",
    "Admit",
    "Ask",
    "Begun",
    "Broken",
    "Cancel",
    "CarriedError",
    "Closed",
    "Done",
    "Ended",
    "Failed",
    "FromChild",
    "Left",
    "NonceFailed",
    "NonceGiven",
    "NonceKept",
    "NonceWanted",
    "NotReady",
    "Notice",
    "Observed",
    "Opening",
    "Ping",
    "Pong",
    "Ready",
    "Reply",
    "Sent",
    "ToChild",
    "Unused",
    "Withdraw",
    "Worked",
    "Written",
]

# What a child may do with a request that it asked about: send it, ask again when it can send it, give it up.
GO, NOT_NOW, ABANDONED = range(3)

_TYPES = frozenset(get_args(ErrorType)) - {"input", "cancelled"}


class _Message(msgspec.Struct, array_like=True, gc=False):
    """An array that begins with its kind; ``number`` names the request that it is about."""


class Opening(_Message, kw_only=True, tag=6):
    """The first message to a child: what it needs to make its provider; the attributes are ``ProviderContext``'s.

    Attributes:
        number: Which of the processes it is, from 1.
        kind, settings: The provider and its ``Config`` in plain values.
        keys: Of each endpoint, the key that a command or the keyring gave.
        concurrency: Of this process.
        ask_before_sending: Whether each request waits for the parent's word right before it goes to the wire.
        tell_at_once: Whether what becomes of a request is told as it happens.
        closed: Whether nothing new is sent any more.
    """

    number: int
    kind: str
    settings: dict[str, Any]
    environ: dict[str, str]
    keys: list[str | None] | None
    connect_s: float
    idle_s: float
    attempt_s: float
    max_response_bytes: int
    proxy: str | None
    ca_file: str | None
    nonce_folder: str | None
    concurrency: int
    ask_before_sending: bool
    tell_at_once: bool
    closed: bool


class Ask(_Message, tag=0):
    """One attempt to be made; ``place`` is the endpoint where the one before failed."""

    number: int
    request: ChatRequest
    let_out: bool
    place: int | None = None


class Cancel(_Message, tag=1):
    """The attempt is to end; where its answer has come whole, that is told all the same."""

    number: int


class Reply(_Message, tag=2):
    """The answer to ``Admit`` or ``Sent``."""

    number: int
    word: int


class Closed(_Message, tag=3):
    """Nothing new is sent any more."""


class NonceGiven(_Message, tag=4):
    """The nonce that all processes use; without a value, the child is the one to get a new one."""

    value: str | None
    age_s: float = 0.0


class Ping(_Message, tag=5):
    """Asks whether the child runs at all."""


class Ready(_Message, tag=10):
    """The child takes requests."""


class NotReady(_Message, tag=11):
    """The settings do not work, in a sentence; the child ends."""

    sentence: str


class Notice(_Message, tag=12):
    """A sentence for the user."""

    sentence: str
    level: int


class Admit(_Message, tag=13):
    """A request waits to be let out; a negative number is one of the provider's own, as for a nonce."""

    number: int


class Withdraw(_Message, tag=14):
    """It could not be sent now if it were let out."""

    number: int


class Unused(_Message, tag=15):
    """It was let out and is not sent."""

    number: int


class Begun(_Message, tag=16):
    """It is on its way to the wire, later than it was expected to be."""

    number: int


class Sent(_Message, tag=17):
    """It goes to the wire."""

    number: int


class Written(_Message, tag=29):
    """It was written, after the parent had said that it may go."""

    number: int


class Left(_Message, tag=18):
    """It is over; not told where its attempt ends with it."""

    number: int


class Observed(_Message, tag=19):
    """What an answer tells of the service's limits."""

    number: int
    told: RateHeaders


class Done(_Message, tag=20):
    """The attempt's answer; ``gone`` for a request that went to the wire, where that was not told by ``Sent``."""

    number: int
    completion: Completion
    gone: bool = False


class CarriedError(msgspec.Struct, frozen=True, array_like=True):
    """A ``ProviderError`` in plain values."""

    type: str
    retryable: bool
    message: str
    status: int | None
    partial: str | None
    retry_after_s: float | None
    retry_limit: int | None
    stops_run: bool

    @classmethod
    def of(cls, error: ProviderError) -> "CarriedError":
        """The error as it is sent."""
        return cls(
            error.type,
            error.retryable,
            error.message,
            error.status,
            error.partial,
            error.retry_after_s,
            error.retry_limit,
            error.stops_run,
        )

    def error(self) -> ProviderError:
        """The same error again; of a plug-in's own class, one that is treated alike."""
        known = self.type if self.type in _TYPES else "protocol"
        error = provider_error(
            cast("ErrorType", known),
            self.message,
            status=self.status,
            partial=self.partial,
            retry_after_s=self.retry_after_s,
            retry_limit=self.retry_limit,
            stops_run=self.stops_run,
        )
        vars(error).update(type=self.type, retryable=self.retryable)
        return error


class Failed(_Message, tag=21):
    """The attempt's error; ``place`` is where it failed, where there are several endpoints; ``gone`` as in ``Done``."""

    number: int
    error: CarriedError
    place: int | None = None
    gone: bool = False


class Ended(_Message, tag=22):
    """The attempt, or a request of the provider's own, is over without an answer; ``gone`` as in ``Done``."""

    number: int
    abandoned: bool = False
    gone: bool = False


class Broken(_Message, tag=23):
    """A bug: its traceback; number 0 for one of the provider's start or end."""

    number: int
    trace: str


class NonceWanted(_Message, tag=24):
    """A nonce is needed; ``refused`` is one that the service does not take any more."""

    refused: str | None


class NonceKept(_Message, tag=25):
    """The child has a new nonce."""

    value: str
    age_s: float = 0.0


class NonceFailed(_Message, tag=26):
    """The child was to get a nonce and got none."""


class Pong(_Message, tag=27):
    """The child runs."""


class Worked(_Message, tag=28):
    """The CPU time that the child has used so far; told about ten times a second while it has requests."""

    cpu_s: float


ToChild = Opening | Ask | Cancel | Reply | Closed | NonceGiven | Ping
FromChild = (
    Ready
    | NotReady
    | Notice
    | Admit
    | Withdraw
    | Unused
    | Begun
    | Sent
    | Written
    | Left
    | Observed
    | Done
    | Failed
    | Ended
    | Broken
    | NonceWanted
    | NonceKept
    | NonceFailed
    | Pong
    | Worked
)
