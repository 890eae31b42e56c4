"""What a worker and the desk tell each other: one ``Ask`` there, one ``Answer`` back."""

import msgspec

from batchchat.durations import Rate
from batchchat.rate_headers import RateHeaders

__all__ = ["Answer", "Ask", "DeskAwayError", "Lease", "Told", "Totals"]


class DeskAwayError(Exception):
    """The desk cannot be reached at the moment; the same message may be sent again later."""


class Lease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Leave to send one request.

    Attributes:
        number: The desk's number for it.
        at: Desk time from which it may be sent.
        until: Desk time until which it may be; later it is void.
        tokens: Estimated tokens that it stands for.
    """

    number: int
    at: float
    until: float
    tokens: int = 0


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What the answer to a request told of the service's limits.

    Attributes:
        number: The lease that it was sent with; 0 where it needed none.
    """

    number: int
    headers: RateHeaders


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker wants and tells. All of it may come twice without harm.

    Attributes:
        worker: Name of the worker's limiter, a new one each time that it starts.
        wants: Estimated tokens of each request that waits and has no lease, in their order. Where there is any, the
            answer is held until one is leased, for some seconds at most.
        waited_s: Seconds for which the first of them has waited for nothing but the limits.
        news: The last revision that is known; the answer is held until there is another, for some seconds at most.
        clock_error_s: How far apart the earliest and the latest time are that it may be at the desk, by what the
            worker knows.
        late_s: How long after the beginning of its lease a request comes to the wire there at worst, of late.
        lead_s: Seconds that an answer takes to the worker, and some more.
        unused: Leases that were not sent and will not be.
        sent: Leases that were sent: number, seconds after ``until`` at most; less than 0 as a rule.
        tokens: Leases that cost another number of tokens: number, tokens.
        over: Leases whose request is over.
        told: What answers told of the service's limits.
        pause_s: Seconds for which nobody may send; 0 for no pause.
        hold: Words that hold everybody up from now on.
        release: Words that do so no longer.
        rates: Rates to put in force; None for none.
        gone: Whether the worker ends with this.
        steers: Whether it comes from where the user is: the answer has totals and what the user has to know.
        admitted: Requests that the worker let out so far.
        waiting: Requests that wait there.
    """

    worker: str
    wants: tuple[int, ...] = ()
    waited_s: float = 0.0
    news: int | None = None
    clock_error_s: float = 0.0
    late_s: float = 0.0
    lead_s: float = 0.0
    unused: tuple[int, ...] = ()
    sent: tuple[tuple[int, float], ...] = ()
    tokens: tuple[tuple[int, int], ...] = ()
    over: tuple[int, ...] = ()
    told: tuple[Told, ...] = ()
    pause_s: float = 0.0
    hold: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    rates: tuple[Rate, ...] | None = None
    gone: bool = False
    steers: bool = False
    admitted: int = 0
    waiting: int = 0


class Totals(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All workers together: how many were there lately, requests let out so far, requests that wait."""

    workers: int = 0
    admitted: int = 0
    waiting: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the desk says. Times are the desk's, in seconds.

    Attributes:
        desk: Another number after each start of the desk, as its clock may be another.
        taken_at: When the ask came.
        at: When this was answered.
        revision: Grows with every change that all have to know.
        void_before: Leases with lower numbers are void unless their request is on its way.
        leases: For the first of what was wanted.
        limited: Whether requests need a lease at all.
        counts_tokens: Whether requests have to be estimated.
        pause_s: Seconds of a pause that are left.
        holds: Words that hold everybody up.
        rates: Those in force.
        tell_s: How long what is not urgent may wait before it is told.
        totals: Those of all workers; for who steers.
        notices: Sentences for the user, each told once; for who steers.
    """

    desk: int
    taken_at: float
    at: float
    revision: int
    void_before: int = 0
    leases: tuple[Lease, ...] = ()
    limited: bool = True
    counts_tokens: bool = False
    pause_s: float = 0.0
    holds: tuple[str, ...] = ()
    rates: tuple[Rate, ...] = ()
    tell_s: float = 0.05
    totals: Totals = Totals()
    notices: tuple[str, ...] = ()
