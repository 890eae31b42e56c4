"""The workers that the desk knows of: what each has told, what is leased to it, how much is its share. Pure."""

import math
from collections import deque

from batchchat.leases.messages import Ask, Totals
from batchchat.leases.schedule import Slot

__all__ = ["CALLS_PER_S", "LEASE_S", "Member", "Roster"]

# A lease is so many seconds of a worker's share, or more where there are so many workers that the desk would answer
# more calls than this in a second.
LEASE_S, CALLS_PER_S = 0.05, 300.0
# Who has wanted nothing for so long takes no part in sharing.
_WANTED_S = 1.0
# A worker that has said nothing for so long is forgotten; it asks for news more often than that.
_SILENT_S = 120.0
# How long a lease is remembered, for the tokens that it turns out to cost; they count for a minute.
_KEPT_S = 90.0


class Member:
    """One worker.

    Attributes:
        seen_at: When it said anything.
        steers: Whether it only steers, and sends nothing.
        slots: Leases that it has, by number, the oldest first.
    """

    __slots__ = ("admitted", "seen_at", "slots", "steers", "waiting")

    def __init__(self) -> None:
        self.seen_at, self.steers = 0.0, False
        self.slots: dict[int, Slot] = {}
        self.admitted = self.waiting = 0


class Roster:
    """All workers by name."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._left_admitted = 0
        self._wanting: deque[tuple[float, str]] = deque()
        self._lately: dict[str, int] = {}

    def seen(self, ask: Ask, now: float) -> Member:
        """The worker that asks, with what it tells of itself."""
        member = self.members.setdefault(ask.worker, Member())
        member.steers = ask.steers
        member.seen_at, member.admitted, member.waiting = now, ask.admitted, ask.waiting
        return member

    def wants(self, worker: str, now: float) -> None:
        """A worker wanted leases, or was given some."""
        self._wanting.append((now, worker))
        self._lately[worker] = self._lately.get(worker, 0) + 1

    def share(self, per_s: float, burst: int, cycle_s: float, now: float) -> int:
        """How many leases a worker gets at once, at least 1.

        Args:
            per_s: Requests a second that the rates allow; infinite for any number.
            cycle_s: Seconds since whoever waits for longest has waited.
        """
        kept_from = now - max(_WANTED_S, cycle_s)
        while self._wanting and self._wanting[0][0] < kept_from:
            _, worker = self._wanting.popleft()
            self._lately[worker] -= 1
            if not self._lately[worker]:
                del self._lately[worker]
        workers = max(1, len(self._lately))
        if math.isinf(per_s):
            return max(1, math.ceil(256 / workers))
        return max(1, math.ceil(per_s * self.lease_s / workers), math.ceil(burst / workers))

    @property
    def lease_s(self) -> float:
        """Seconds of a worker's share that a lease is."""
        return max(LEASE_S, len(self._lately) / CALLS_PER_S)

    def lost(self, worker: str) -> list[Slot]:
        """Forgets a worker; what it had, all of which counts as sent."""
        member = self.members.pop(worker, None)
        if member is None:
            return []
        self._left_admitted += member.admitted
        return list(member.slots.values())

    def tidy(self, now: float) -> list[Slot]:
        """Forgets workers that fell silent and leases that are long over; these."""
        gone = [worker for worker, member in self.members.items() if member.seen_at < now - _SILENT_S]
        over = [slot for worker in gone for slot in self.lost(worker)]
        for member in self.members.values():
            while member.slots and (slot := next(iter(member.slots.values()))).start < now - _KEPT_S:
                over.append(member.slots.pop(slot.number))
        return over

    @property
    def totals(self) -> Totals:
        """All workers together."""
        members = [member for member in self.members.values() if not member.steers]
        admitted = self._left_admitted + sum(member.admitted for member in members)
        return Totals(len(members), admitted, sum(member.waiting for member in members))
