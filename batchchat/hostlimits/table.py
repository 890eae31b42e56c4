"""What the events of all processes amount to: which requests count now, and when one more fits. Pure."""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from batchchat.durations import Rate
from batchchat.hostlimits import events as e
from batchchat.hostlimits.events import Event
from batchchat.limits import pace_margins

__all__ = ["LEASE_S", "Request", "Table"]

# How long after its time a reserved request may leave. Afterwards it is as if it had never been, and whoever
# reserved it, stopped or stuck meanwhile, has to ask again.
LEASE_S = 3.0
# Several processes get in each other's way on their machine, so that their requests reach the service less evenly than
# those of one: windows are this much longer at least, and requests a little further apart than that, so that a window
# that was late leaves nobody late for good. 1 % of a second, and 1.2 %.
_JITTER_S, _SPACING_S = 0.01, 0.012
_TOKEN_WINDOW_S = 60.0
# A process that waits for tokens says so again at least each second.
_WANT_S = 3.0
_MOST = 2_000_000

Key = tuple[int, int]


class Request:
    """A request that has not landed: reserved for ``at``, or, once ``leaving``, on its way since then."""

    __slots__ = ("at", "before", "leaving", "tokens")

    def __init__(self, at: float, tokens: float, before: list[float]) -> None:
        self.at, self.tokens, self.before, self.leaving = at, tokens, before, False


class _Window:
    """One rate of this process's: a pace for its beginnings, a sliding window for what reached the service."""

    def __init__(self, rate: Rate, burst: int) -> None:
        self.count = rate.count
        margins = pace_margins(rate, burst)
        self.window_s = max(margins.window_s, rate.per_s + _JITTER_S)
        self.gap_s = max(margins.gap_s, (rate.per_s + _SPACING_S) / rate.count)
        self.slack_s = margins.slack_s
        self.due = 0.0

    def reserve(self, at: float) -> None:
        """One more begins at ``at``; others, with higher rates of their own, cannot push what is due far ahead."""
        self.due = min(max(self.due, at), at + max(0.0, self.slack_s)) + self.gap_s


class Table:
    """All requests under one service and key, as far as this process's own limits need them.

    Args:
        tokens_per_minute: None for no limit.
    """

    def __init__(self, rates: Sequence[Rate], burst: int, tokens_per_minute: int | None) -> None:
        self._windows = [_Window(rate, burst) for rate in rates]
        self._per_minute = tokens_per_minute
        self._keep = min(_MOST, max((rate.count for rate in rates), default=0))
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.unlanded: dict[Key, Request] = {}
        self._landed: list[float] = []  # sorted
        self._spent: dict[Key, float] = {}  # tokens of what landed within the minute
        self._spent_total = 0.0
        self._spent_order: list[tuple[float, Key]] = []  # sorted
        self._past = 0
        self._wants: dict[int, tuple[float, float, float]] = {}  # since, tokens, told at
        self.paused_until = 0.0
        self._begun = 0
        self._last_begun: dict[int, int] = {}
        self._last_key: Key | None = None
        for window in self._windows:
            window.due = 0.0

    def apply(self, events: Iterable[Event]) -> None:
        """Takes in what happened."""
        for event in events:
            kind, key = event.kind, (event.owner, event.seq)
            if kind == e.RESERVE:
                self._reserve(key, event)
            elif kind == e.LEAVE:
                if (request := self.unlanded.get(key)) is not None:
                    request.leaving, request.at = True, event.at
            elif kind == e.LAND:
                self._land(key, event.at)
            elif kind == e.FREE:
                self._free(key)
            elif kind == e.CORRECT:
                self._correct(key, event.value)
            elif kind == e.PAUSE:
                self.paused_until = max(self.paused_until, event.at)
            elif kind == e.WANT:
                self._want(event)
            elif kind == e.PAST:
                self._note(event, key)

    def expire(self, now: float) -> None:
        """Forgets reservations whose time is over: they have not left and never will."""
        if late := [key for key, it in self.unlanded.items() if not it.leaving and it.at + LEASE_S < now]:
            for key in late:
                self._free(key)
        spent = self._spent_order
        if spent and spent[0][0] <= now - _TOKEN_WINDOW_S:
            over = bisect_right(spent, (now - _TOKEN_WINDOW_S, (1 << 64, 0)))
            for _, key in spent[:over]:
                self._spent_total -= self._spent.pop(key, 0.0)
            del spent[:over]

    def next_start(self, tokens: float, now: float, me: int) -> tuple[float, bool]:
        """When one more request may leave.

        Returns:
            The time, and whether it is certain; it is not where it hangs on requests that have not landed, or on what
            answers will turn out to cost: look again then.
        """
        at, certain = max(now, self.paused_until), True
        unlanded, landed = len(self.unlanded), self._landed
        for window in self._windows:
            at = max(at, window.due - window.slack_s)
            free = window.count - unlanded
            if free <= 0:
                at, certain = max(at, now + window.window_s), False
            elif len(landed) >= free:
                at = max(at, landed[-free] + window.window_s)
        if self._per_minute is not None and (open_at := self._tokens_at(tokens, now, me)) > at:
            return open_at, False
        return at, certain

    def turn(self, me: int) -> int:
        """How many requests began since this process's last one: who has waited longest goes first."""
        return self._begun - self._last_begun.get(me, -16)

    def suspects(self, now: float, me: int) -> set[int]:
        """Owners of requests that should have landed long ago, if these are alive and well."""
        return {owner for (owner, _), it in self.unlanded.items() if owner != me and it.at < now - 1.0}

    def of(self, owner: int) -> Iterator[tuple[int, Request]]:
        """The requests of one process that have not landed."""
        return ((seq, it) for (of, seq), it in tuple(self.unlanded.items()) if of == owner)

    def dump(self, now: float, me: int) -> list[Event]:
        """What this process knows, as events, for a file that someone has removed.

        What others have reserved is void. What they may be sending, or have sent since this process last read, one
        request each, counts as sent now.
        """
        others = sum(owner != me for owner in self._last_begun) + sum(
            owner != me and it.leaving for (owner, _), it in self.unlanded.items()
        )
        past = [Event(e.PAST, 0, 0, at, requests=1) for at in self._landed]
        if others:
            past.append(Event(e.PAST, 0, 0, now, requests=others))
        kept = [Event(e.PAST, key[1], key[0], at, self._spent.get(key, 0.0)) for at, key in self._spent_order]
        unlanded = []
        for seq, it in self.of(me):
            unlanded.append(Event(e.RESERVE, seq, me, it.at, it.tokens))
            if it.leaving:
                unlanded.append(Event(e.LEAVE, seq, me, it.at))
        pause = [Event(e.PAUSE, 0, 0, self.paused_until)] if self.paused_until > now else []
        return [*past, *kept, *unlanded, *pause]

    def missing(self, known: Iterable[Event]) -> Iterator[Event]:
        """Those of what was known before that are not known now."""
        landed = Counter(self._landed)
        for event in known:
            key = (event.owner, event.seq)
            if event.kind == e.PAST and event.requests:
                landed[event.at] -= event.requests
                if landed[event.at] < 0:
                    yield event
            elif event.kind == e.PAUSE or (key not in self.unlanded and key not in self._spent):
                yield event

    def _reserve(self, key: Key, event: Event) -> None:
        self._begun += 1
        self._last_begun[key[0]] = self._begun
        self._last_key = key
        self._wants.pop(key[0], None)
        self.unlanded[key] = Request(event.at, event.value, [window.due for window in self._windows])
        for window in self._windows:
            window.reserve(event.at)

    def _free(self, key: Key) -> None:
        request = self.unlanded.pop(key, None)
        if request is not None and key == self._last_key:
            for window, due in zip(self._windows, request.before, strict=True):
                window.due = due

    def _land(self, key: Key, at: float) -> None:
        request = self.unlanded.pop(key, None)
        if request is not None:
            self._count(at, 1)
            self._spend(at, key, request.tokens)

    def _note(self, event: Event, key: Key) -> None:
        """Requests of the past: singly, with their tokens, or many together at the time of the last."""
        self._count(event.at, event.requests)
        for window in self._windows:
            if event.requests:
                window.reserve(event.at)
        if event.value:
            self._past += key == (0, 0)
            self._spend(event.at, key if key != (0, 0) else (0, self._past), event.value)

    def _count(self, at: float, count: int) -> None:
        landed, keep = self._landed, self._keep
        if count == 1 and (not landed or at >= landed[-1]):
            landed.append(at)
        elif count == 1:
            insort(landed, at)
        elif count:
            where = bisect_right(landed, at)
            landed[where:where] = [at] * min(count, keep)
        if len(landed) > 2 * keep + 64:
            del landed[: len(landed) - keep]

    def _spend(self, at: float, key: Key, tokens: float) -> None:
        if self._per_minute is not None:
            self._spent[key] = tokens
            self._spent_total += tokens
            insort(self._spent_order, (at, key))

    def _correct(self, key: Key, tokens: float) -> None:
        if (request := self.unlanded.get(key)) is not None:
            request.tokens = tokens
        elif (spent := self._spent.get(key)) is not None:
            self._spent_total += tokens - spent
            self._spent[key] = tokens

    def _want(self, event: Event) -> None:
        since, _, told = self._wants.get(event.owner, (event.at, 0.0, event.at))
        self._wants[event.owner] = (since if told > event.at - _WANT_S else event.at, event.value, event.at)

    def _tokens_at(self, tokens: float, now: float, me: int) -> float:
        """When the tokens fit, after those of processes that have waited for longer."""
        if self._per_minute is None:
            return 0.0
        mine = self._wants.get(me, (now, 0.0, now))[0]
        ahead = sum(
            want for owner, (since, want, told) in self._wants.items()
            if owner != me and told > now - _WANT_S and (since, owner) < (mine, me)
        )  # fmt: skip
        unlanded = sum(it.tokens for it in self.unlanded.values()) + ahead
        excess = self._spent_total + unlanded + tokens - self._per_minute
        if excess <= 0:
            return 0.0
        at = now
        for landed_at, key in self._spent_order:
            at = landed_at + _TOKEN_WINDOW_S
            excess -= self._spent[key]
            if excess <= 0:
                return at
        return now + _TOKEN_WINDOW_S if unlanded else at
