"""The windows that a limiter keeps: one rate, or the tokens of a minute, each with a log of what was sent."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from batchchat.durations import Rate

__all__ = ["Margins", "Pace", "Send", "TokenBudget", "pace_margins"]

# The share of a rate that is given up: 1.1 % of short windows and of fast rates, 0.5 % of others. Requests are late by
# milliseconds on their way, whatever the rate: of a long window they are a smaller share.
_MARGIN, _SHORT_MARGIN, _SHORT_S, _FAST_PER_S = 0.005, 0.011, 2.0, 50.0
# Of that, the share by which windows are longer than the service's, so that jitter on the way there cannot make one of
# its windows hold one request too many (8 ms of a second). The rest is how much faster than on average
# requests may follow each other: without it, what a late timer costs could never be made up for.
_GUARD_SHARE = 0.73
# How far behind its grid a send time may fall (timers wake late) and still be made up for at once, where nobody waited.
_CATCH_UP_S = 0.01
# Timers count milliseconds: above some 300 a second several requests share one.
_COARSE_S = 0.003
# What requests that waited in vain are owed at most, in seconds and as a share of the window; and how much faster than
# on the grid they go out until that is made up for.
_OWED_S, _OWED_SHARE, _HASTE = 1.0, 0.25, 4.0
_TOKEN_WINDOW_S = 60.0


class Send:
    """One request that was let out, as the limits remember it.

    Attributes:
        at: Loop time at which it went out: when it was let out, and more exactly once it is no more in transit.
        elsewhere: Whether another process writes it, so that this one is told when it has.
        in_transit: Whether it is still on its way to the wire, as while its connection is made.
        tokens: What it counts in the token budget.
    """

    __slots__ = ("at", "elsewhere", "in_transit", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at, self.tokens = at, float(tokens)
        self.in_transit = self.elsewhere = False


class Margins(msgspec.Struct, frozen=True, gc=False):
    """Seconds that a rate comes to.

    Attributes:
        window_s: Length of a window that holds no more than the rate's count.
        gap_s: Between requests, on average; the window's with its whole margin, by the count.
        slack_s: How far requests may be behind their grid and go out at once: a burst, and what timers are late.
    """

    window_s: float
    gap_s: float
    slack_s: float


def pace_margins(rate: Rate, burst: int) -> Margins:
    """How a rate is kept, with what is given up of it."""
    short = rate.per_s <= _SHORT_S or rate.count / rate.per_s > _FAST_PER_S
    margin = _SHORT_MARGIN if short else _MARGIN
    gap_s = rate.per_s * (1 + margin) / rate.count
    late_s = max(min(0.99 * gap_s, _CATCH_UP_S), _COARSE_S)
    window_s = rate.per_s * (1 + margin * _GUARD_SHARE)
    return Margins(window_s, gap_s, (min(burst, rate.count) - 1) * gap_s + late_s)


class Pace:
    """One rate: a grid of times at which requests are due, and a log that guards every sliding window.

    A request may be behind its grid, as timers wake late and machines are busy. Where it was there in time, what was
    lost is owed to those after it, which follow each other more quickly until it is made up for: else each late wake-up
    is lost for good (87 % of 200/s was measured). Where nobody was there, nothing is owed but a burst. The grid alone
    would let burst + count into one window; the log of the last ``count`` send times does not.
    """

    def __init__(self, rate: Rate, burst: int, margins: Margins | None = None) -> None:
        self._margins = margins or pace_margins(rate, burst)
        self._owed_s = max(self._margins.slack_s, min(_OWED_S, _OWED_SHARE * rate.per_s))
        self._due = self._soonest = -math.inf
        self._sent: deque[Send] = deque(maxlen=rate.count)  # in the order of their times
        self._in_transit = 0

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

    def open_at(self) -> float | None:
        """Time from which one more request may go out; None while that hangs on one in transit."""
        free = (self._sent.maxlen or 0) - self._in_transit
        if free <= 0:
            return None
        at = max(self._due, self._soonest)
        return at if len(self._sent) < free else max(at, self._sent[-free].at + self._margins.window_s)

    def take(self, send: Send, there_since: float) -> None:
        """One request goes out.

        Args:
            there_since: Since when requests wait without a break, for nothing but the rates; only for that time is
                anything owed.
        """
        margins = self._margins
        owed_from = max(there_since - margins.slack_s, send.at - self._owed_s)
        self._due = max(self._due, owed_from) + margins.gap_s
        self._soonest = max(self._soonest, send.at - margins.slack_s) + margins.gap_s / _HASTE
        self._sent.append(send)

    def forget(self, send: Send) -> None:
        """``send`` was noted, never went out and never will: another one may take its place."""
        last = bool(self._sent) and self._sent[-1] is send
        if _remove(self._sent, send):
            self._due -= self._margins.gap_s
            self._soonest -= self._margins.gap_s / _HASTE if last else 0.0

    def begin(self, send: Send) -> None:
        """``send``, the last that was noted, is of no known time until it is noted again."""
        if self._sent and self._sent[-1] is send:
            self._sent.pop()
        self._in_transit += 1

    def land(self, send: Send) -> None:
        """``send`` is over its way, or over; its time is now."""
        self._in_transit -= 1
        self._sent.append(send)


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

    @property
    def spent(self) -> Sequence[Send]:
        """What counts, without what is in transit."""
        return self._spent

    def open_at(self, tokens: int, now: float) -> float | None:
        """Time from which ``tokens`` more fit, if nothing else is spent; None while it hangs on one in transit."""
        spent = self._spent
        while spent and spent[0].at <= now - _TOKEN_WINDOW_S:
            self._total -= spent.popleft().tokens
        excess = self._total + self._transit_tokens + tokens - self._per_minute
        if excess <= 0:
            return 0.0
        at = 0.0
        for send in spent:
            at = max(at, send.at + _TOKEN_WINDOW_S)
            excess -= send.tokens
            if excess <= 0:
                return at
        return None if self._in_transit else at

    def note(self, send: Send) -> None:
        self._spent.append(send)
        self._total += send.tokens

    def forget(self, send: Send) -> None:
        """``send`` was noted, never went out and never will."""
        if _remove(self._spent, send):
            self._total -= send.tokens

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


def _remove(log: deque[Send], send: Send) -> bool:
    """Takes a late entry out, looked for from the end; whether it was there."""
    for back, entry in enumerate(reversed(log), 1):
        if entry is send:
            del log[-back]
            return True
    return False
