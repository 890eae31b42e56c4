"""What goes through a run's socket: one request and one answer, a JSON line each, no secrets."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from batchchat.observer import SlowPrompt
from batchchat.records import Usage

__all__ = ["MOST_REQUEST_BYTES", "Hold", "Live", "Reply", "Request", "live_object"]

MOST_REQUEST_BYTES = 4096


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What another process asks of a run.

    Attributes:
        rates: For ``set-rate``: ``10/s``, ``1000/h``, …, all to hold; none for no limit.
    """

    command: Literal["status", "pause", "resume", "set-rate"]
    rates: tuple[str, ...] = ()


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing is sent: ``paused`` (from another shell), or a word of the run's own; ``since`` is UTC."""

    why: str
    since: datetime


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What only the running process knows.

    Attributes:
        state: ``starting`` (input and files are being looked at), ``running``, ``held`` or ``stopping``.
        total: Prompts of the input; None where that is not known.
        answered_before, answered, failed: Prompts with an answer from earlier runs, from this one; failures of
            this one.
        in_flight: Requests on their way.
        concurrency: Prompts that may be in flight now; 0 from a run that does not tell.
        waiting: Requests that wait to be let out.
        retrying: Prompts that wait for their next attempt.
        requests: All that were let out, fetches of nonces included.
        attempts: Attempts that are over, by what came of them: ``answered`` or an error type.
        per_s: Requests a second, over the last ten.
        prompts_per_s: Prompts that finish in a second, lately.
        failures: Failed prompts of this run by error type.
        usage: Tokens of this run so far, of attempts that failed too; None from a run that does not tell.
        cost_usd: US dollars for them; None where a model has no price.
        rates: In force now; empty for no limit.
        holds: Why nothing is sent; empty while requests may be.
        service_wait_s: Seconds that the service asks to wait still; 0 for none.
        left_s: Seconds until the end, at the pace of late or what the rates allow; None where that cannot be told.
        slow: The prompts that are under way for longest, at most five.
    """

    pid: int
    state: Literal["starting", "running", "held", "stopping"]
    total: int | None = None
    answered_before: int = 0
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    concurrency: int = 0
    waiting: int = 0
    retrying: int = 0
    requests: int = 0
    attempts: dict[str, int] = {}
    per_s: float = 0.0
    prompts_per_s: float = 0.0
    failures: dict[str, int] = {}
    usage: Usage | None = None
    cost_usd: float | None = None
    rates: tuple[str, ...] = ()
    holds: tuple[Hold, ...] = ()
    service_wait_s: float = 0.0
    left_s: float | None = None
    slow: tuple[SlowPrompt, ...] = ()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The run's answer.

    Attributes:
        done: Whether what was asked is in force now; if not, ``message`` says why.
        message: One sentence on what is in force.
    """

    done: bool
    message: str = ""
    live: Live | None = None


def live_object(live: Live) -> dict[str, Any]:
    """The run as it is now, in plain values for programs."""
    found = msgspec.to_builtins(live)
    if not isinstance(found, dict):
        raise TypeError("a struct became no object")
    return found
