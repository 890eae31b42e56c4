"""The limits as the desk keeps them: when the next request may be sent, wherever its worker is. Pure."""

import math
from collections.abc import Iterable, Sequence

from batchchat.durations import Rate
from batchchat.quota_pace import QuotaPace
from batchchat.rate_headers import RateHeaders
from batchchat.rate_windows import Margins, Pace, Send, TokenBudget, pace_margins
from batchchat.sent_history import SentHistory

__all__ = ["Schedule", "Slot", "lease_margins"]

# How late a request may be sent, as a share of the shortest window; it is what loops of busy machines need, and what a
# worker does not know of the desk's clock is taken from it.
_SLACK_SHARE, _MOST_SLACK_S = 0.025, 0.25
# A worker whose loop is later than that has longer leases, up to this share of the shortest window: that costs nothing
# where it tells in time when it has sent, and else it could hardly send at all.
_LATE_MORE, _MOST_LATE_SHARE, _MOST_LATE_S = 1.25, 0.25, 2.0
# Requests of several machines take ways of different lengths to the service: windows are longer by this. And requests
# a little further apart than that, as they are sent a little late: what is late delays those of the next window.
_JITTER_S, _LATE_S = 0.01, 0.012


class Slot(Send):
    """One leased send time.

    Attributes:
        number: The lease's.
        start: Time from which it may be sent.
        until: Time until which it may be. What counts is ``at``, the latest at which it can have been sent: this, and
            what the worker tells once it was sent.
    """

    __slots__ = ("number", "start", "until")

    def __init__(self, number: int, start: float, until: float, tokens: float) -> None:
        super().__init__(until, 0)
        self.number, self.start, self.until, self.tokens = number, start, until, float(tokens)


def lease_margins(rate: Rate, burst: int) -> Margins:
    """How a rate is kept whose requests are sent by workers elsewhere."""
    margins = pace_margins(rate, burst)
    window_s = max(margins.window_s, rate.per_s + _JITTER_S)
    gap_s = max(margins.gap_s, (window_s + _LATE_S) / rate.count)
    late_s = margins.slack_s - (min(burst, rate.count) - 1) * margins.gap_s
    return Margins(window_s, gap_s, (min(burst, rate.count) - 1) * gap_s + late_s)


class Schedule:
    """Rates, tokens a minute and the service's own limits, over everything that was leased.

    A lease counts from the latest moment at which its request can be sent, and what follows a window later begins
    after that: whenever between its two times each is sent, no window holds one too many. For this, leases are given
    in the order of their times. Once it is known when a request was sent, that counts.

    Attributes:
        rates: Those in force.
        slack_s: How long after its time a request may be sent as a rule.
    """

    def __init__(self, rates: Sequence[Rate], *, burst: int = 1, tokens_per_minute: int | None = None) -> None:
        self._burst = burst
        self._budget = TokenBudget(tokens_per_minute) if tokens_per_minute else None
        self._quota = QuotaPace(spread=not rates)
        self.history = SentHistory()
        self._last_start = -math.inf
        self._put(rates)

    def _put(self, rates: Sequence[Rate]) -> None:
        self.rates = tuple(rates)
        shortest_s = min((rate.per_s for rate in rates), default=math.inf)
        self.slack_s = min(_MOST_SLACK_S, _SLACK_SHARE * shortest_s)
        self._most_late_s = min(_MOST_LATE_S, _MOST_LATE_SHARE * shortest_s)
        margins = [lease_margins(rate, self._burst) for rate in rates]
        self._paces = [Pace(rate, self._burst, each) for rate, each in zip(rates, margins, strict=True)]
        self.per_s = min((1 / each.gap_s for each in margins), default=math.inf)

    def slack_for(self, clock_error_s: float, late_s: float) -> float:
        """How long after its time a worker may send a request.

        Args:
            clock_error_s: What it does not know of the desk's clock.
            late_s: How late it is at worst, of late.
        """
        late_s = min(_LATE_MORE * late_s, self._most_late_s)
        return max(self.slack_s, clock_error_s + max(self.slack_s / 2, late_s))

    @property
    def limited(self) -> bool:
        """Whether requests have to be leased one by one."""
        return bool(self._paces) or self._budget is not None or self._quota.active

    @property
    def counts_tokens(self) -> bool:
        """Whether requests have to be estimated."""
        return self._budget is not None or self._quota.counts_tokens

    @property
    def sent(self) -> Sequence[Send]:
        """The last leases, in the order of their times, as many as the largest rate counts."""
        return max((pace.sent for pace in self._paces), key=len, default=())

    @property
    def spent(self) -> Sequence[Send]:
        """Leases whose tokens count, in the order of their times."""
        return () if self._budget is None else self._budget.spent

    def open_at(self, tokens: float, now: float, lead_s: float = 0.0) -> tuple[float, float]:
        """Times from which one more request may be sent: by the rates, and by everything else.

        Args:
            lead_s: For so long from now on nobody can send it. What counts until then counts for whoever is asked for
                next, so that nothing is forgotten here.
        """
        at = max(now + lead_s, self._last_start)
        for pace in self._paces:
            if (open_at := pace.open_at()) is not None:  # nothing is in transit here
                at = max(at, open_at)
        others = self._quota.open_at(tokens, at, now)
        if self._budget is not None:
            others = max(others, self._budget.open_at(int(tokens), now) or 0.0)
        return at, others

    def take(self, slot: Slot, there_since: float) -> None:
        """Counts a lease whose time is as late as ``open_at`` told; see ``Pace.take`` for the rest."""
        until, slot.at = slot.at, slot.start
        for pace in self._paces:
            pace.take(slot, there_since)
        slot.at = until
        self.note(slot)
        self._quota.open_at(slot.tokens, slot.start)  # whole again by then, for this one and those after it
        self._quota.sent(slot, slot.tokens, slot.start)

    def note(self, slot: Slot) -> None:
        """Counts the tokens of a lease and remembers it for rates to come."""
        self._last_start = max(self._last_start, slot.start)
        self.history.note(slot.start)
        if self._budget is not None:
            self._budget.note(slot)

    def forget(self, slot: Slot) -> None:
        """The lease was not used and will not be."""
        for pace in self._paces:
            pace.forget(slot)
        if self._budget is not None:
            self._budget.forget(slot)
        self._quota.left(slot, told=True)

    def correct(self, slot: Slot, tokens: int, now: float) -> None:
        """The request cost so many tokens."""
        if self._budget is not None:
            self._budget.correct(slot, tokens, now)

    def over(self, slot: Slot) -> None:
        """The request has its answer, or never will."""
        self._quota.left(slot)

    def observe(self, told: RateHeaders, slot: object, now: float) -> str | None:
        """See ``QuotaPace.observe``."""
        return self._quota.observe(told, slot, now)

    def restore(
        self,
        past: Iterable[tuple[float, int]],
        spent: Iterable[tuple[float, float]],
        slots: Sequence[Slot],
        now: float,
    ) -> None:
        """Counts what was leased before the desk began.

        Args:
            past: How many requests there were up to when, the oldest first, without ``slots``.
            spent: Times and tokens, without those of ``slots``.
            slots: In the order of their times.
        """
        for at, count in past:
            self.history.note(at, count)
        if self._budget is not None:
            for at, tokens in spent:
                self._budget.note(Slot(0, at, at, tokens))
        for slot in slots:
            self.note(slot)
        self.take_over(slots, now)

    def set_rates(self, rates: Sequence[Rate], now: float) -> None:
        """Puts other rates in force; they count what was leased before."""
        sent = self.sent
        self._put(rates)
        self.take_over(sent, now)

    def take_over(self, sent: Sequence[Send], now: float) -> None:
        """Counts what was leased before these rates: the last ones exactly, others as the history knows them."""
        for pace, rate in zip(self._paces, self.rates, strict=True):
            pace.take_over(sent, self.history.latest(now + 1.0, 2 * rate.per_s + 1.0), 0)
