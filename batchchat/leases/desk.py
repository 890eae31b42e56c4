"""The desk: who waits for leases, whose turn it is, and what all have to know. Pure; the time is passed in."""

import math
from collections.abc import Iterable, Sequence

from batchchat.durations import Rate
from batchchat.leases.messages import Answer, Ask, Lease, Totals
from batchchat.leases.roster import Roster
from batchchat.leases.schedule import Schedule, Slot
from batchchat.leases.watchers import Held, Watchers
from batchchat.rate_headers import RateHeaders

__all__ = ["Desk"]

# A lease is given this long before its time: the less is lost with a worker, the sooner all heed a pause.
_AHEAD_S = 0.05
# Where nothing is to be said, an ask is answered after so long, not all in the same moment; and a turn is kept so long
# for a worker that has to ask again.
_HOLD_S, _HOLD_MORE_S, _KEPT_S = 20.0, 10.0, 5.0
_TIDY_S = 1.0
# A worker whose clock may be further off than this cannot send.
_MOST_ERROR_S = 2.0
# A pause that a service asks each of many workers for is made a little longer at once, so that those who say the same
# a moment later change nothing that all would have to be told: by this share, at most by this time.
_PAUSE_SHARE, _PAUSE_MORE_S = 0.1, 0.5
_NONE = Totals()


class _Turn:
    """A worker's place in the line; ``held`` is None while it is kept for a worker that has to ask again."""

    __slots__ = ("held", "left_at", "since")

    def __init__(self, held: Held, since: float) -> None:
        self.held: Held | None = held
        self.since, self.left_at = since, 0.0


class Desk:
    """Leases send times to workers, first come first served, each its share at a time.

    Args:
        number: Of this start of the desk; see ``Answer.desk``.
        first_lease: Number of the first lease.
        began_at: Desk time before which nobody waited in vain; see ``Pace.take``.

    Attributes:
        schedule: The limits.
        roster: The workers.
        paused_until: Desk time until which a service asked everybody to wait.
        holds: Words that hold everybody up.
        void_before: See ``Answer``.
        next_lease: Number of the next lease.
        leased: What was leased since somebody last looked; None where nobody does.
        freed: Numbers of leases that will not be sent, the same.
        told: What the service told last of its own limits, and when.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        burst: int = 1,
        number: int = 0,
        first_lease: int = 1,
        began_at: float = -math.inf,
    ) -> None:
        self.schedule, self._burst, self._number = schedule, burst, number
        self.roster = Roster()
        self.paused_until, self.next_lease, self.void_before = 0.0, first_lease, 0
        self.holds: set[str] = set()
        self._revision = 1
        self._was_blocked = False
        self._turns: dict[str, _Turn] = {}
        self._watchers = Watchers()
        self._ready: list[tuple[int, Answer]] = []
        self._tickets = 0
        self._totals = _NONE
        self._there_since, self._emptied_at = began_at, -math.inf
        self.leased: list[Slot] | None = None
        self.freed: list[int] = []
        self.told: tuple[float, RateHeaders] | None = None
        self._opens_at: float | None = None
        self._tidy_at = 0.0

    def take(self, ask: Ask, now: float) -> int:
        """Takes a message in; its answer comes from ``due``, with the number that is returned."""
        self._tickets += 1
        held = Held(self._tickets, ask, now)
        held.over_at = now + _HOLD_S + _HOLD_MORE_S * (held.ticket % 97) / 97
        self.roster.seen(ask, now)
        self._take_told(ask, now)
        if ask.gone:
            self.lost(ask.worker)
        if ask.wants:
            self._line_up(held, now)
        elif ask.news == self._revision and not (ask.steers and self._watchers.notices):
            self._answer(self._watchers.add(held), now)
        else:
            self._answer(held, now)
        return held.ticket

    def drop(self, ticket: int) -> None:
        """Nobody waits for this answer any more."""
        self._ready = [each for each in self._ready if each[0] != ticket]
        for worker, turn in list(self._turns.items()):
            if turn.held is not None and turn.held.ticket == ticket:
                del self._turns[worker]
        self._watchers.drop(ticket)

    def due(self, now: float) -> list[tuple[int, Answer]]:
        """Answers that can be given now, each with the number of its ask."""
        self._opens_at = None
        blocked = bool(self.holds) or self.paused_until > now
        if not blocked:
            if self._was_blocked:
                self._there_since = now
            self._serve(now)
        self._was_blocked = blocked
        if now >= self._tidy_at:
            self._tidy(now)
        watchers = self._watchers
        for held in (*watchers.news(self._revision), *watchers.figures(now, lambda: self.roster.totals, self._totals)):
            self._answer(held, now)
        ready, self._ready = self._ready, []
        return ready

    def next_at(self, now: float) -> float:
        """When ``due`` has more to say if nothing happens until then."""
        at = min(self._tidy_at, self._watchers.figures_at)
        if self._turns and not self.holds:
            if self.paused_until > now:
                at = min(at, self.paused_until)
            elif self._opens_at is not None:
                at = min(at, self._opens_at)
        return max(at, now)

    def lost(self, worker: str) -> None:
        """The worker is dead; what was leased to it counts as sent."""
        self._turns.pop(worker, None)
        self._watchers.lost(worker)
        self._over(self.roster.lost(worker))

    def hold(self, words: Iterable[str]) -> None:
        """Leases nothing until all these are released."""
        if not self.holds.issuperset(words):
            self.holds.update(words)
            self._change()

    def release(self, words: Iterable[str]) -> None:
        """Ends holds; those that are not in force are fine."""
        if not self.holds.isdisjoint(words):
            self.holds.difference_update(words)
            self._change(void=False)

    def pause(self, seconds: float, now: float) -> None:
        """Nobody sends for so many seconds; a longer pause in force stays."""
        until = now + seconds
        if until > self.paused_until:
            more_s = min(_PAUSE_MORE_S, _PAUSE_SHARE * seconds) if len(self.roster.members) > 1 else 0.0
            self.paused_until = until + more_s
            self._change()

    def set_rates(self, rates: Sequence[Rate], now: float) -> None:
        """Other rates from now on; what was leased before counts."""
        if tuple(rates) != self.schedule.rates:
            self.schedule.set_rates(rates, now)
            self._change()

    def close(self, now: float) -> list[tuple[int, Answer]]:
        """Answers everything that is held."""
        for turn in self._turns.values():
            self._answer(turn.held, now)
        for held in self._watchers.all():
            self._answer(held, now)
        self._turns.clear()
        ready, self._ready = self._ready, []
        return ready

    def _change(self, *, void: bool = True) -> None:
        self._revision += 1
        if void:
            self.void_before = self.next_lease

    def _take_told(self, ask: Ask, now: float) -> None:
        slots = self.roster.members[ask.worker].slots
        for number, after_s in ask.sent:
            if (slot := slots.get(number)) is not None:
                slot.at = max(slot.start, slot.until + after_s)
        for number in ask.unused:
            if (slot := slots.pop(number, None)) is not None:
                self.schedule.forget(slot)
                if self.leased is not None:
                    self.freed.append(number)
        for number, tokens in ask.tokens:
            if (slot := slots.get(number)) is not None:
                self.schedule.correct(slot, tokens, now)
        limited = self.schedule.limited
        for told in ask.told:
            self.told = (now, told.headers)
            sentence = self.schedule.observe(told.headers, slots.get(told.number, told), now)
            if sentence is not None:
                self._watchers.notices.append(sentence)
        for number in ask.over:
            if (slot := slots.get(number)) is not None:
                self.schedule.over(slot)
                if not self.schedule.counts_tokens:  # else what it cost may be told yet
                    del slots[number]
        if self.schedule.limited != limited:
            self._change()
        self.hold(ask.hold)
        self.release(ask.release)
        if ask.pause_s:
            self.pause(ask.pause_s, now)
        if ask.rates is not None:
            self.set_rates(ask.rates, now)

    def _line_up(self, held: Held, now: float) -> None:
        """Puts a worker at the end of the line, or where it stands already."""
        worker = held.ask.worker
        self.roster.wants(worker, now)
        turn = self._turns.get(worker)
        if turn is not None:
            before, turn.held = turn.held, held
            self._answer(before, now)
            return
        waits_since = now - held.ask.waited_s
        if not self._turns and waits_since > self._emptied_at:
            self._there_since = max(self._there_since, waits_since)  # for a while nobody waited
        self._turns[worker] = _Turn(held, now)

    def _serve(self, now: float) -> None:
        oldest = next(iter(self._turns.values()), None)
        if oldest is None:
            return
        schedule = self.schedule
        size = self.roster.share(schedule.per_s, self._burst, now - oldest.since, now)
        for worker, turn in list(self._turns.items()):
            if (held := turn.held) is None:
                continue
            if schedule.limited:
                leases = self._grant(held.ask, size, now)
                if not leases:
                    return
            else:
                leases = ()
            self.roster.wants(worker, now)
            del self._turns[worker]
            self._answer(held, now, leases)
        if not self._turns:
            self._emptied_at = now

    def _grant(self, ask: Ask, size: int, now: float) -> tuple[Lease, ...]:
        """Leases for the first of what is wanted, as many as are near enough; none where that is nothing yet."""
        schedule, slots = self.schedule, self.roster.members[ask.worker].slots
        slack_s = schedule.slack_for(min(ask.clock_error_s, _MOST_ERROR_S), ask.late_s)
        ahead_s = max(_AHEAD_S, 2 * ask.lead_s)
        near = now + ahead_s
        leases: list[Lease] = []
        for tokens in ask.wants[:size]:
            by_rates, others = schedule.open_at(tokens, now, ask.lead_s)
            at = max(by_rates, others)
            if others > by_rates:
                self._there_since = max(self._there_since, others)
            if at > near:
                if not leases:
                    self._opens_at = at - ahead_s
                break
            slot = Slot(self.next_lease, at, at + slack_s, tokens)
            self.next_lease += 1
            schedule.take(slot, self._there_since)
            slots[slot.number] = slot
            if self.leased is not None:
                self.leased.append(slot)
            leases.append(Lease(slot.number, at, slot.at, tokens))
            near = now + 2 * ahead_s
        return tuple(leases)

    def _answer(self, held: Held | None, now: float, leases: tuple[Lease, ...] = ()) -> None:
        if held is None:
            return
        steers, totals = held.ask.steers, _NONE
        if steers:
            totals = self._totals = self.roster.totals
        answer = Answer(
            desk=self._number,
            taken_at=held.taken_at,
            at=now,
            revision=self._revision,
            void_before=self.void_before,
            leases=leases,
            limited=self.schedule.limited,
            counts_tokens=self.schedule.counts_tokens,
            pause_s=max(0.0, self.paused_until - now),
            holds=tuple(sorted(self.holds)),
            rates=self.schedule.rates,
            tell_s=self.roster.lease_s,
            totals=totals,
            notices=tuple(self._watchers.notices) if steers else (),
        )
        if steers:
            self._watchers.notices.clear()
        self._ready.append((held.ticket, answer))

    def _tidy(self, now: float) -> None:
        """Answers what was held for long, and forgets who is gone."""
        self._tidy_at = now + _TIDY_S
        for worker, turn in list(self._turns.items()):
            if turn.held is None:
                if turn.left_at < now - _KEPT_S:
                    del self._turns[worker]
            elif turn.held.over_at < now:
                self._answer(turn.held, now)
                turn.held, turn.left_at = None, now
        for held in self._watchers.over(now):
            self._answer(held, now)
        self._over(self.roster.tidy(now))

    def _over(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            self.schedule.over(slot)
