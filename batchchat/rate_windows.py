"""The windows that a limiter keeps: one rate, or the tokens of a minute, each with a log of what was sent."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

from batchchat.durations import Rate

__all__ = ["Pace", "Send", "TokenBudget", "pace_margins"]

# The share of a rate that is given up so that network jitter between here and the service cannot make a window
# of the service's hold one request too many: 0.5 % for slow rates (5 ms of a second), 1 % for fast ones, where
# many short waits add up more jitter.
_SLOW_MARGIN, _FAST_MARGIN, _FAST_PER_S = 0.005, 0.01, 50.0
# How far behind its grid a send time may fall (timers wake late) and still be made up for.
_CATCH_UP_S = 0.01
_TICK_S = 0.001
# Timers count milliseconds: above some 300 a second several requests share one.
_COARSE_S = 0.003
_TOKEN_WINDOW_S = 60.0


class Send:
    """One request that was let out, as the limits remember it.

    Attributes:
        at: Loop time at which it went out: when it was let out, and more exactly once ``Limiter.sent`` tells.
        in_transit: Whether it is still on its way to the wire, as while its connection is made.
        tokens: What it counts in the token budget.
    """

    __slots__ = ("at", "in_transit", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at, self.tokens, self.in_transit = at, float(tokens), False


def pace_margins(rate: Rate, burst: int) -> tuple[float, float, float]:
    """Seconds of a rate's window with its margin, seconds between requests, and how many may begin together.

    The last holds a fraction of one request more than the burst, by which late timers are made up for.
    """
    margin = _FAST_MARGIN if rate.count / rate.per_s > _FAST_PER_S else _SLOW_MARGIN
    window_s = rate.per_s * (1 + margin)
    gap_s = window_s / rate.count
    fraction = max(min(0.99, _CATCH_UP_S / gap_s), _COARSE_S / gap_s)
    return window_s, gap_s, min(burst, rate.count) + fraction


class Pace:
    """One rate: an ``AsyncLimiter`` meters it, a grid says how long to sleep, a log guards every sliding window.

    The limiter's bucket holds ``burst`` plus a fraction of one request. Without that fraction each late wake-up
    is lost for good (87 % of 200/s was measured), with it the send times stay on a grid. The bucket alone would
    still let burst + count into one window; the log of the last ``count`` send times does not. The sleep is ours
    because the limiter's own timer, on loops that count whole milliseconds, spins for the last half of one.
    """

    def __init__(self, rate: Rate, burst: int) -> None:
        from aiolimiter import AsyncLimiter  # a run without a rate needs none

        self._window_s, self._gap_s, capacity = pace_margins(rate, burst)
        self._bucket = AsyncLimiter(capacity, capacity * self._gap_s)
        self._catch_up_s = (capacity - min(burst, rate.count)) * self._gap_s
        self._due = 0.0
        self._sent: deque[Send] = deque(maxlen=rate.count)  # in the order of their times
        self._in_transit = 0
        self._retired = False
        self._nap: asyncio.Future[None] | None = None

    @property
    def sent(self) -> Sequence[Send]:
        """The last requests, at most as many as one window holds, without those in transit."""
        return self._sent

    def take_over(self, sent: Sequence[Send], earlier: Iterable[float], in_transit: int) -> None:
        """Counts what went out before this rate was set.

        Args:
            sent: The last requests, in the order of their times.
            earlier: Times of all that are known of, the newest first, those of ``sent`` among them.
        """
        most = self._sent.maxlen or 0
        times: list[float] = []
        for number, at in enumerate(earlier):
            if number >= most:
                break
            if number >= len(sent):
                times.append(min(at, sent[0].at) if sent else at)
        self._sent.extend(Send(at, 0) for at in reversed(times))
        self._sent.extend(sent)
        self._in_transit = in_transit

    def retire(self) -> None:
        """Ends a wait for this rate, which is no longer in force."""
        self._retired = True
        if self._nap is not None and not self._nap.done():
            self._nap.set_result(None)

    async def wait(self) -> None:
        """Waits for the next send time, or until the rate is no longer in force; callers come one at a time."""
        loop = asyncio.get_running_loop()
        while not self._bucket.has_capacity():  # the time is known; a timer may only be a little early
            if self._retired:
                return
            self._nap = loop.create_future()
            timer = loop.call_later(max(_TICK_S, self._due - loop.time()), _wake, self._nap)
            try:
                await self._nap
            finally:
                timer.cancel()
        await self._bucket.acquire()  # at once, as nobody else takes from it
        self._due = max(self._due, loop.time() - self._catch_up_s) + self._gap_s

    def open_at(self) -> float | None:
        """Loop time from which one more request fits the window; None while that hangs on one in transit."""
        free = (self._sent.maxlen or 0) - self._in_transit
        if free <= 0:
            return None
        return 0.0 if len(self._sent) < free else self._sent[-free].at + self._window_s

    def begin(self, send: Send) -> None:
        """``send``, the last that was noted, is of no known time until it is noted again."""
        if self._sent and self._sent[-1] is send:
            self._sent.pop()
        self._in_transit += 1

    def land(self, send: Send) -> None:
        """``send`` is over its way, or over; its time is now."""
        self._in_transit -= 1
        self._sent.append(send)

    def note(self, send: Send) -> None:
        self._sent.append(send)


def _wake(nap: "asyncio.Future[None]") -> None:
    if not nap.done():
        nap.set_result(None)


class TokenBudget:
    """Tokens of any sliding minute, counted from when a request reaches the wire.

    A request that is on its way there counts all the time. One that is larger than the budget goes when the minute is
    empty and nothing is on its way.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._spent: deque[Send] = deque()  # in the order of their times
        self._total = 0.0
        self._in_transit = 0
        self._transit_tokens = 0.0

    def open_at(self, tokens: int, now: float) -> float | None:
        """Loop time from which ``tokens`` more fit, if nothing else is spent; None while it hangs on one in transit."""
        spent = self._spent
        while spent and spent[0].at <= now - _TOKEN_WINDOW_S:
            self._total -= spent.popleft().tokens
        excess = self._total + self._transit_tokens + tokens - self._per_minute
        if excess <= 0:
            return 0.0
        at = 0.0
        for send in spent:
            at = send.at + _TOKEN_WINDOW_S
            excess -= send.tokens
            if excess <= 0:
                return at
        return None if self._in_transit else at

    def note(self, send: Send) -> None:
        self._spent.append(send)
        self._total += send.tokens

    def begin(self, send: Send) -> None:
        """``send`` is of no known time until it lands."""
        with suppress(ValueError):  # it may have been let out more than a minute ago
            if self._spent and self._spent[-1] is send:
                self._spent.pop()
            else:
                self._spent.remove(send)
            self._total -= send.tokens
        self._in_transit += 1
        self._transit_tokens += send.tokens

    def land(self, send: Send) -> None:
        """``send`` is over its way, or over; its minute begins now."""
        self._in_transit -= 1
        self._transit_tokens -= send.tokens
        self.note(send)

    def correct(self, send: Send, tokens: int, now: float) -> None:
        """Puts what the service counted in the place of the estimate, as long as it counts."""
        if send.in_transit:
            self._transit_tokens += tokens - send.tokens
        elif self._spent and send.at > now - _TOKEN_WINDOW_S:
            self._total += tokens - send.tokens
        else:
            return
        send.tokens = float(tokens)
