"""Admission of requests: rates, tokens a minute and the pauses that a service asks for.

Everything here runs on the loop's monotonic clock; a step of the wall clock moves nothing.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence

from aiolimiter import AsyncLimiter

from batchchat.durations import Rate

__all__ = ["Limiter"]

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
# After a pause, the requests that waited go out this far apart on average, but within a second.
_SPREAD_S = 0.001


class _Pace:
    """One rate: an ``AsyncLimiter`` meters it, a grid says how long to sleep, a log guards every sliding window.

    The limiter's bucket holds ``burst`` plus a fraction of one request. Without that fraction each late wake-up
    is lost for good (87 % of 200/s was measured), with it the send times stay on a grid. The bucket alone would
    still let burst + count into one window; the log of the last ``count`` send times does not. The sleep is ours
    because the limiter's own timer, on loops that count whole milliseconds, spins for the last half of one.
    """

    def __init__(self, rate: Rate, burst: int) -> None:
        margin = _FAST_MARGIN if rate.count / rate.per_s > _FAST_PER_S else _SLOW_MARGIN
        self._window_s = rate.per_s * (1 + margin)
        self._gap_s = self._window_s / rate.count
        fraction = max(min(0.99, _CATCH_UP_S / self._gap_s), _COARSE_S / self._gap_s)
        capacity = min(burst, rate.count) + fraction
        self._bucket = AsyncLimiter(capacity, capacity * self._gap_s)
        self._catch_up_s = fraction * self._gap_s
        self._due = 0.0
        self._sent: deque[float] = deque(maxlen=rate.count)

    async def wait(self) -> None:
        """Waits for the next send time; callers come one at a time."""
        loop = asyncio.get_running_loop()
        while not self._bucket.has_capacity():  # noqa: ASYNC110 - the time is known; a timer may only be a little early
            await asyncio.sleep(max(_TICK_S, self._due - loop.time()))
        await self._bucket.acquire()  # at once, as nobody else takes from it
        self._due = max(self._due, loop.time() - self._catch_up_s) + self._gap_s

    def open_at(self) -> float:
        """Loop time from which one more request fits the window."""
        sent = self._sent
        return sent[0] + self._window_s if len(sent) == sent.maxlen else 0.0

    def note(self, now: float) -> None:
        self._sent.append(now)


class _TokenBudget:
    """Tokens of any sliding minute; a request larger than the budget goes when the minute is empty."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._spent: deque[list[float]] = deque()  # [loop time, tokens]
        self._total = 0.0

    def open_at(self, tokens: int, now: float) -> float:
        """Loop time from which ``tokens`` more fit, if nothing else is spent until then."""
        spent = self._spent
        while spent and spent[0][0] <= now - _TOKEN_WINDOW_S:
            self._total -= spent.popleft()[1]
        excess = self._total + tokens - self._per_minute
        if excess <= 0:
            return 0.0
        at = 0.0
        for sent_at, amount in spent:
            at = sent_at + _TOKEN_WINDOW_S
            excess -= amount
            if excess <= 0:
                break
        return at

    def note(self, tokens: int, now: float) -> list[float]:
        entry = [now, float(tokens)]
        self._spent.append(entry)
        self._total += tokens
        return entry

    def correct(self, entry: list[float], tokens: int, now: float) -> None:
        """Puts what the service counted in the place of the estimate, as long as it is inside the window."""
        if entry[0] > now - _TOKEN_WINDOW_S:
            self._total += tokens - entry[1]
            entry[1] = float(tokens)


class Limiter:
    """Lets requests out one by one, first come first served, none earlier than every limit allows.

    Args:
        rates: All hold at once; none means no limit.
        burst: Requests that may go out together within each rate, >= 1.
        tokens_per_minute: Budget of estimated tokens, corrected by what the service counts; None means no limit.
    """

    def __init__(self, rates: Sequence[Rate] = (), *, burst: int = 1, tokens_per_minute: int | None = None) -> None:
        self._paces = [_Pace(rate, burst) for rate in rates]
        self._budget = _TokenBudget(tokens_per_minute) if tokens_per_minute else None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._paused_until = 0.0
        self._spread_until = 0.0
        self._gap_s = 0.0
        self.admitted = 0
        self.waited_s = 0.0

    async def acquire(self, tokens: int = 0) -> list[float] | None:
        """Waits until one more request may go out; the caller sends it at once.

        Returns:
            A receipt for ``correct`` where tokens are budgeted, else None.
        """
        if not self._paces and self._budget is None and not self._spread_until:
            self.admitted += 1
            return None
        loop = asyncio.get_running_loop()
        came = loop.time()
        self._waiting += 1
        try:
            async with self._turn:
                await self._wait_open(loop, tokens)
                now = loop.time()
                for pace in self._paces:
                    pace.note(now)
                self.admitted += 1
                self.waited_s += now - came
                return self._budget.note(tokens, now) if self._budget else None
        finally:
            self._waiting -= 1

    def correct(self, receipt: list[float] | None, tokens: int) -> None:
        """Replaces a receipt's estimate by the tokens that the service counted."""
        if receipt is not None and self._budget is not None:
            self._budget.correct(receipt, tokens, asyncio.get_running_loop().time())

    def pause(self, seconds: float) -> bool:
        """Holds every request back for ``seconds`` from now; a longer pause in force stays.

        Afterwards the requests that waited go out spread over a moment, never early and not all at once.

        Returns:
            Whether this made the pause longer (by more than a tenth of a second).
        """
        until = asyncio.get_running_loop().time() + seconds
        longer = until > self._paused_until + 0.1
        if until > self._paused_until:
            self._paused_until = until
            self._spread_until = until + min(1.0, max(0.05, seconds / 4))
            self._gap_s = 0.0  # known when the pause is over and the crowd has gathered
        return longer

    async def _wait_open(self, loop: asyncio.AbstractEventLoop, tokens: int) -> None:
        for pace in self._paces:
            await pace.wait()
        while True:
            now = loop.time()
            at = max([self._paused_until, *(pace.open_at() for pace in self._paces)])
            if self._budget is not None:
                at = max(at, self._budget.open_at(tokens, now))
            if at <= now:
                break
            await asyncio.sleep(at - now)
        if self._spread_until:
            await self._spread(now)

    async def _spread(self, now: float) -> None:
        """A short random wait each, while the crowd that a pause held back goes out."""
        if now >= self._spread_until or self._waiting == 1:
            self._spread_until = 0.0
            return
        if not self._gap_s:
            self._gap_s = min(_SPREAD_S, (self._spread_until - now) / max(1, self._waiting))
        await asyncio.sleep(random.uniform(0, 2 * self._gap_s))
