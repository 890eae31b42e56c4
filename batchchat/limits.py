"""Admission of requests: rates, tokens a minute and the pauses that a service asks for.

Everything here runs on the loop's monotonic clock, read anew each time; a step of the wall clock moves nothing.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchchat.durations import Rate
from batchchat.holds import Holds
from batchchat.precise_clock import precise_clock
from batchchat.quota_pace import QuotaPace
from batchchat.rate_headers import RateHeaders
from batchchat.rate_windows import Pace, Send, TokenBudget, pace_margins
from batchchat.sent_history import SentHistory

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

__all__ = ["Limiter", "Send", "pace_margins"]

# After a pause, the requests that waited go out this far apart, but within a second.
_SPREAD_S = 0.001
_TICK_S = 0.001


class Limiter:
    """Lets requests out one by one, first come first served, none earlier than every limit allows.

    Args:
        rates: All hold at once; none means no limit.
        burst: Requests that may go out together within each rate, >= 1.
        tokens_per_minute: Budget of estimated tokens, corrected by what the service counts; None means no limit.

    Attributes:
        rates: Those in force.
        admitted: Requests that were let out.
    """

    def __init__(self, rates: Sequence[Rate] = (), *, burst: int = 1, tokens_per_minute: int | None = None) -> None:
        self.rates, self._burst = tuple(rates), burst
        self._paces = [Pace(rate, burst) for rate in rates]
        self._budget = TokenBudget(tokens_per_minute) if tokens_per_minute else None
        self._windows: list[Pace | TokenBudget] = [*self._paces, *((self._budget,) if self._budget else ())]
        self._quota = QuotaPace(spread=not rates)
        self._turn = asyncio.Lock()
        self._read_clock: Callable[[], float] | None = None
        self._moved = asyncio.Event()
        self._waiting = 0
        self._there_since = 0.0  # requests have waited without a break, for nothing but the rates
        self._paused_until = 0.0
        self._spread_until = 0.0
        self._crowd: AsyncLimiter | None = None
        self._holds = Holds()
        self._history = SentHistory()
        self._in_transit = 0
        self.admitted = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a token budget, the user's or the service's, so that requests have to be estimated."""
        return self._budget is not None or self._quota.counts_tokens

    @property
    def free(self) -> bool:
        """Whether nothing limits or holds requests at the moment, so that ``acquire`` does not wait."""
        limited = self._windows or self._spread_until or self._quota.active or self._holds.words
        return not limited

    async def acquire(self, tokens: int = 0, still: Callable[[], bool] = lambda: True) -> Send | None:
        """Waits until one more request may go out; the caller sends it at once.

        Args:
            still: Asked before and after the wait; where the caller cannot send any more, no part of a limit is spent.

        Returns:
            What stands for it in the limits: ``begin``, ``sent``, ``correct``, ``observed`` take it. None where
            ``still`` said no.
        """
        if self.free:
            return self._let_out(self._now(), tokens)
        if not self._waiting:
            self._there_since = self._now()
        self._waiting += 1
        try:
            async with self._turn:
                if still():
                    await self._wait_open(tokens)
                if not still():
                    return None
                send = self._let_out(self._now(), tokens)
                self._holds.take_pass(send)
                for pace in self._paces:
                    pace.take(send, self._there_since)
                if self._budget is not None:
                    self._budget.note(send)
                return send
        finally:
            self._waiting -= 1

    def _now(self) -> float:
        if self._read_clock is None:
            self._read_clock = precise_clock(asyncio.get_running_loop())
        return self._read_clock()

    def _let_out(self, now: float, tokens: int) -> Send:
        self.admitted += 1
        self._history.note(now)
        send = Send(now, tokens)
        self._quota.sent(send, tokens, now)
        return send

    def observed(self, send: Send, told: RateHeaders) -> str | None:
        """Takes in what the service tells of its own limits in the answer to a request.

        Returns:
            A sentence about it where a limit of the service's begins to hold requests up.
        """
        sentence = self._quota.observe(told, send, self._now())
        self._moved.set()
        return sentence

    def begin(self, send: Send) -> None:
        """The request is about to go to the wire; until ``written`` or ``left``, every window counts it as of now.

        A connection that has to be made first can delay a request by a good part of a window; counted from when it
        was let out, the windows at the service would hold one too many.
        """
        if not send.in_transit:
            send.in_transit = True
            self._in_transit += 1
            for window in self._windows:
                window.begin(send)

    def sent(self, send: Send) -> Awaitable[None] | None:
        """The request goes to the wire now; where something is returned, not before that is done."""
        if self._windows and not send.elsewhere:  # it is written within this turn of the loop and the next
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.written, send)
        else:
            self.written(send)
        return None

    def written(self, send: Send) -> None:
        """The request has been written, by now at the latest, and counts from now.

        Where a process has to wait for a processor before it writes, the request is as late at the service; counted
        from when it was let out, a window there would hold one too many.
        """
        if send.in_transit:
            self._land(send)

    def left(self, send: Send) -> None:
        """The request is over, whether it ever came to the wire or not."""
        self._quota.left(send)
        if self._holds.passes_out:
            self._holds.left(send)
        if self._quota.active:
            self._moved.set()
        if send.in_transit:
            self._land(send)

    def _land(self, send: Send) -> None:
        now = self._now()
        if int(now) != int(send.at):  # it took a while; better counted twice than too early
            self._history.note(now)
        send.in_transit, send.at = False, now
        self._in_transit -= 1
        for window in self._windows:
            window.land(send)
        self._moved.set()

    def take_back(self, send: Send) -> None:
        """The request was let out and did not go to the wire; what it spent of the limits stays spent."""
        self.admitted -= 1
        self._holds.left(send, give_back=True)
        self.left(send)

    def correct(self, send: Send, tokens: int) -> None:
        """Replaces the estimated tokens of a request by what the service counted."""
        if self._budget is not None:
            self._budget.correct(send, tokens, self._now())
            self._moved.set()

    def pause(self, seconds: float) -> bool:
        """Holds every request back for ``seconds`` from now; a longer pause in force stays.

        Afterwards the requests that waited go out spread over a moment, never early and not all at once.

        Returns:
            Whether this made the pause longer (by more than a tenth of a second).
        """
        until = self._now() + seconds
        longer = until > self._paused_until + 0.1
        if until > self._paused_until:
            self._paused_until = until
            self._spread_until = until + min(1.0, max(0.05, seconds / 4))
            self._crowd = None  # its pace is known when the pause is over and it has gathered
        return longer

    @property
    def holds(self) -> frozenset[str]:
        """Why nothing goes out at the moment, a word each; empty while requests may."""
        return frozenset(self._holds.words)

    @property
    def held_since(self) -> Mapping[str, float]:
        """The same words, each with the loop time since when it holds."""
        return self._holds.words

    @property
    def held_s(self) -> float:
        """Seconds for which anything held the run up so far."""
        return self._holds.held_s

    def when_released(self, callback: Callable[[], None]) -> None:
        """Calls once when nothing holds the run up any more; for use while something does."""
        self._holds.when_over(callback)

    @property
    def waiting(self) -> int:
        """How many requests wait to be let out."""
        return self._waiting

    @property
    def paused_s(self) -> float:
        """Seconds that the pause which the service asked for goes on."""
        return max(0.0, self._paused_until - self._now())

    def sent_per_s(self, within_s: int = 10) -> float:
        """Requests a second over the last whole seconds, this many."""
        return self._history.per_s(self._now(), within_s)

    def set_rates(self, rates: Sequence[Rate]) -> None:
        """Puts other rates in force at once, for whoever waits too; they count what went out before.

        So where less is allowed now, nothing goes out until what was sent fits the new windows.
        """
        now = self._now()
        sent = max((pace.sent for pace in self._paces), key=len, default=())
        self.rates, self._paces = tuple(rates), [Pace(rate, self._burst) for rate in rates]
        for pace, rate in zip(self._paces, rates, strict=True):
            pace.take_over(sent, self._history.latest(now, 2 * rate.per_s), self._in_transit)
        self._windows = [*self._paces, *((self._budget,) if self._budget else ())]
        self._moved.set()

    def hold(self, why: str) -> None:
        """Lets no request out until ``release`` with the same word; those on their way are not touched."""
        self._holds.add(why)

    def release(self, why: str) -> None:
        """Ends a hold; one that is not in force is fine."""
        self._holds.discard(why)
        self._moved.set()

    def let_through(self, count: int) -> None:
        """Lets so many requests out through the hold ``breaker`` (and no other), each as the limits allow."""
        self._holds.passes += count
        self._moved.set()

    def let_none_through(self) -> None:
        """Takes back what ``let_through`` gave and nobody used."""
        self._holds.passes = 0

    @property
    def through(self) -> int:
        """Requests that ``let_through`` let out and that are not over."""
        return self._holds.passes_out

    def give_back(self, send: Send) -> None:
        """The request is over and told nothing of what it was let through for: another one takes its place."""
        self._holds.left(send, give_back=True)
        self._moved.set()

    async def _wait_open(self, tokens: int) -> None:
        spread = False
        while True:
            now = self._now()
            self._moved.clear()
            if self._holds.blocks:
                await self._moved.wait()  # whoever holds it releases it, or the run stops
                self._there_since = self._now()
                continue
            opens = [pace.open_at() for pace in self._paces]
            if None in opens or (budget := self._budget.open_at(tokens, now) if self._budget else 0.0) is None:
                await self._moved.wait()  # bounded by the time that a connection may take
                continue
            others = max(self._paused_until, budget, self._quota.open_at(tokens, now))
            at = max([others, *(open_at for open_at in opens if open_at is not None)])
            if at > now:
                await self._move_or(at - now)  # a request may turn out to have cost less, or more is known
            elif self._spread_until and not spread:
                spread = True
                await self._spread(now)  # then look again: another pause may have come meanwhile
            else:
                return
            if others > now or spread:
                self._there_since = self._now()

    async def _move_or(self, wait_s: float) -> None:
        """Until something moved, or this time is over; in whole milliseconds, as a loop may count them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(math.ceil(wait_s / _TICK_S) * _TICK_S):
                await self._moved.wait()

    async def _spread(self, now: float) -> None:
        """Its turn in the crowd that a pause held back."""
        if now >= self._spread_until or self._waiting == 1:
            self._spread_until = 0.0
            return
        if self._crowd is None:
            from aiolimiter import AsyncLimiter  # needed by runs that were told to wait, and by no other

            self._crowd = AsyncLimiter(1, min(_SPREAD_S, (self._spread_until - now) / self._waiting))
        await self._crowd.acquire()
