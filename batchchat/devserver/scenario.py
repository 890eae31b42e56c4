"""How the development server is to behave: one frozen value, and the faults it may draw."""

import hashlib
from typing import Annotated

import msgspec

from batchchat.errors import ConfigError

__all__ = [
    "DEFAULT_ERROR_TEXT",
    "FAULTS",
    "OPENAI_FAULTS",
    "Scenario",
    "capacity",
    "draw_fault",
    "latency_s",
    "parse_rate",
]

DEFAULT_ERROR_TEXT = "Error: The server had an error while processing your request. Sorry about that! (server_error)"

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Capacity = Annotated[int, msgspec.Meta(ge=1)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=86_400_000)]

_REDIRECTS = (301, 302, 303, 307, 308)
_UNITS_S = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# The order in which shares take their part of the range from 0 to 1; a new one goes to the end.
FAULTS = (
    "error_429",
    "error_500",
    "error_502_html",
    "error_503",
    "cut_mid_event",
    "cut_mid_character",
    "cut_no_end",
    "cut_reset",
    "reset_before",
    "stall_before",
    "stall_midway",
    "html_200",
    "html_403",
    "empty_reply",
    "error_event",
    "error_in_stream",
    "choices_empty",
    "content_null",
    "refusal",
    "content_filter",
    "tool_call",
)
# Those of them that the AI Engine protocol has no words for: there the answer is a plain one.
OPENAI_FAULTS = frozenset({"choices_empty", "content_null", "refusal", "content_filter", "tool_call"})


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server does to the requests it gets; all of it deterministic for a seed.

    Fields named in ``FAULTS`` are shares from 0 to 1 of the attempts that meet that fault, drawn from
    ``(seed, prompt text, attempt number of that text)``. Times are milliseconds; a count of 0 switches a rule off.
    docs/devserver.md explains each field.

    Raises:
        ConfigError: The shares add up to more than 1, or two fields contradict each other.
    """

    seed: int = 0
    # Pace
    latency_ms: Milliseconds = 0.0
    latency_jitter: Share = 0.0
    delta_interval_ms: Milliseconds = 0.0
    rate_limit: str | None = None
    rate_headers: bool = False
    retry_after: str | None = None
    concurrency_limit: Count = 0
    slow_above: Count = 0
    capacity_steps: tuple[tuple[Count, Capacity], ...] = ()
    # Faults, as shares of the attempts
    error_429: Share = 0.0
    error_500: Share = 0.0
    error_502_html: Share = 0.0
    error_503: Share = 0.0
    cut_mid_event: Share = 0.0
    cut_mid_character: Share = 0.0
    cut_no_end: Share = 0.0
    cut_reset: Share = 0.0
    reset_before: Share = 0.0
    stall_before: Share = 0.0
    stall_midway: Share = 0.0
    html_200: Share = 0.0
    html_403: Share = 0.0
    empty_reply: Share = 0.0
    error_event: Share = 0.0
    error_in_stream: Share = 0.0
    choices_empty: Share = 0.0
    content_null: Share = 0.0
    refusal: Share = 0.0
    content_filter: Share = 0.0
    tool_call: Share = 0.0
    error_event_text: str = DEFAULT_ERROR_TEXT
    echo_request: bool = False
    # Faults by count
    fail_first: Count = 0
    fail_with: str = "error_500"
    down_until_request: Count = 0
    quota_exhausted_after: Count | None = None
    # Doors
    nonce_uses: Count = 0
    rotate_after: Count = 0
    nonce_refused: bool = False
    nonce_missing: bool = False
    api_key: str | None = None
    public_api_token: str | None = None
    auth_refused: bool = False
    any_host: bool = False
    maintenance: bool = False
    redirect_to: str | None = None
    redirect_status: int = 302
    # Connections
    keep_alive_close: Count = 0
    keep_alive_drop: Count = 0
    chunk_bytes: Count = 0
    # Answers
    models: tuple[str, ...] = ("echo",)
    replies: tuple[str, ...] = ()
    reply_chars: Count = 0
    text_input_max_length: Count = 0
    chatter: bool = False
    lone_surrogate: bool = False
    no_usage: bool = False
    # Dialects of the OpenAI-compatible stream
    crlf: bool = False
    no_space: bool = False
    comments: bool = False
    multi_line_data: bool = False
    no_done: bool = False
    no_finish: bool = False
    no_last_newline: bool = False
    bom: bool = False

    def __post_init__(self) -> None:
        total = sum(getattr(self, name) for name in FAULTS)
        if total > 1 + 1e-9:
            raise ConfigError(f"the shares of the faults add up to {total:g}, expected at most 1")
        if self.fail_with not in FAULTS:
            raise ConfigError(f"found {self.fail_with!r}, expected one of: {', '.join(FAULTS)}", key="fail_with")
        if self.redirect_status not in _REDIRECTS:
            expected = ", ".join(map(str, _REDIRECTS))
            raise ConfigError(f"found {self.redirect_status}, expected one of: {expected}", key="redirect_status")
        if self.nonce_uses and self.rotate_after:
            raise ConfigError("nonce_uses and rotate_after exclude each other, give one of them")
        if self.capacity_steps and not (self.concurrency_limit or self.slow_above):
            raise ConfigError("expected concurrency_limit or slow_above beside it", key="capacity_steps")
        if self.rate_limit is not None:
            parse_rate(self.rate_limit)


def parse_rate(text: str) -> tuple[int, float]:
    """Requests and seconds of a rate such as ``200/s``, ``60/min``, ``1000/h``, ``10000/d``.

    Raises:
        ConfigError: It is none.
    """
    number, _, unit = text.replace(" ", "").partition("/")
    if not number.isdecimal() or int(number) < 1 or unit not in _UNITS_S:
        raise ConfigError(f"found {text!r}, expected a rate such as 200/s, 60/min, 1000/h or 10000/d", key="rate_limit")
    return int(number), _UNITS_S[unit]


def draw_fault(scenario: Scenario, prompt: str, attempt: int) -> str | None:
    """The fault that this attempt (numbered from 1) of a prompt text meets; None for an answer."""
    if attempt <= scenario.fail_first:
        return scenario.fail_with
    left = _fraction(scenario.seed, prompt, attempt)
    for name in FAULTS:
        left -= getattr(scenario, name)
        if left < 0:
            return name
    return None


def latency_s(scenario: Scenario, number: int) -> float:
    """Seconds until the answer to the request of this number begins."""
    if not scenario.latency_ms:
        return 0.0
    sway = (2 * _fraction(scenario.seed, "latency", number) - 1) * scenario.latency_jitter
    return scenario.latency_ms / 1000 * (1 + sway)


def capacity(scenario: Scenario, limit: int, taken: int) -> int:
    """What ``limit`` (``concurrency_limit``, ``slow_above``) is after so many chat requests were let in."""
    if limit:
        for first, steps_to in scenario.capacity_steps:
            if taken >= first:
                limit = steps_to
    return limit


def _fraction(seed: int, text: str, number: int) -> float:
    """A number from 0 up to 1 that depends on nothing but its arguments."""
    key = f"{seed}\0{number}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) / 2**64
