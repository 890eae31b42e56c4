"""What the desk keeps for its next start: what was leased of late, pauses, holds, rates. Pure.

A record is one line of JSON. Each tells what came since the one before; one that is ``whole`` stands for all before it.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

from batchchat.durations import Rate
from batchchat.leases.desk import Desk
from batchchat.leases.schedule import Schedule, Slot
from batchchat.rate_headers import Quota, RateHeaders

__all__ = ["DeskMemory", "restored"]

# Requests remembered one by one in a whole record; of those before, only how many there were in each second.
_MOST_SENT = 5000
# How far the clocks of two machines may be apart, or be set meanwhile, where the desk starts on another one.
_CLOCKS_S = 2.0


class _Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Times are the desk's.

    Attributes:
        wall: Seconds since 1970 when it was written.
        at: The same moment at the desk.
        clock: Stands for the machine and its start: times of two records with one value compare.
        leased: Number, start, latest time, tokens of each.
        freed: Numbers of leases that were never sent.
        spent: Latest times and tokens, for all that is not among ``leased``.
        past: Latest times and numbers of requests, the same.
        told: What the service told last of its own limits, and when.
    """

    wall: float
    at: float
    clock: str
    whole: bool = False
    leased: list[tuple[int, float, float, float]] = []
    freed: list[int] = []
    spent: list[tuple[float, float]] = []
    past: list[tuple[float, int]] = []
    paused_until: float = 0.0
    holds: list[str] = []
    rates: list[Rate] | None = None
    told: tuple[float, RateHeaders] | None = None


class DeskMemory:
    """Follows a desk.

    Args:
        clock: See ``_Record``; empty where nothing is known.
    """

    def __init__(self, desk: Desk, clock: str) -> None:
        self._desk, self._clock = desk, clock
        self._told: tuple[object, ...] = ()
        desk.leased, desk.freed = [], []

    def latest(self, now: float, wall: float) -> bytes:
        """A record of what came since the last one; empty where nothing did."""
        desk = self._desk
        leased, freed = desk.leased or [], desk.freed
        state = (desk.paused_until, frozenset(desk.holds), desk.schedule.rates, desk.told)
        if not leased and state == self._told:
            return b""  # what was freed is told along with what is leased next
        desk.leased, desk.freed, self._told = [], [], state
        return self._dump(now, wall, leased=[_row(slot) for slot in leased], freed=freed)

    def whole(self, now: float, wall: float) -> bytes:
        """A record of all that counts."""
        desk = self._desk
        desk.leased, desk.freed = [], []
        schedule = desk.schedule
        sent = [slot for slot in schedule.sent if isinstance(slot, Slot)][-_MOST_SENT:]
        exactly = {slot.number for slot in sent}
        spent = [(slot.at, slot.tokens) for slot in schedule.spent if getattr(slot, "number", 0) not in exactly]
        past = schedule.history.before(len(sent))
        return self._dump(now, wall, whole=True, leased=[_row(slot) for slot in sent], spent=spent, past=past)

    def _dump(self, now: float, wall: float, **fields: object) -> bytes:
        desk = self._desk
        record = _Record(
            wall=wall,
            at=now,
            clock=self._clock,
            paused_until=desk.paused_until,
            holds=sorted(desk.holds),
            rates=list(desk.schedule.rates),
            told=desk.told,
            **fields,  # type: ignore[arg-type]
        )
        return msgspec.json.encode(record) + b"\n"


def restored(
    lines: Iterable[bytes],
    rates: Sequence[Rate],
    *,
    burst: int = 1,
    tokens_per_minute: int | None = None,
    number: int,
    now: float,
    wall: float,
    clock: str,
) -> Desk:
    """A desk that begins anew and knows what the one before it leased: all of that counts as sent.

    Args:
        lines: The records, the oldest first. One that is torn is the last, and nobody was told of what it holds.
        rates: Those of the job; rates that were set since then count in their place.
        number: Of this start; see ``Desk``.
        now: The desk's time now.
        wall: Seconds since 1970 now.
        clock: See ``DeskMemory``. Where it is another one than before, times are taken to be as late as the clocks of
            two machines allow that are no more than two seconds apart.
    """
    past = _Past()
    for line in lines:
        try:
            record = msgspec.json.decode(line, type=_Record)
        except msgspec.DecodeError:
            continue
        same = record.clock == clock and clock
        past.add(record, 0.0 if same else now - record.at - max(0.0, wall - record.wall - _CLOCKS_S))
    schedule = Schedule(rates if past.rates is None else past.rates, burst=burst, tokens_per_minute=tokens_per_minute)
    desk = Desk(schedule, burst=burst, number=number, first_lease=past.last + 1, began_at=now)
    desk.paused_until, desk.void_before = past.paused_until, past.last + 1
    desk.holds.update(past.holds)
    slots = past.slots()
    schedule.restore(past.requests, past.spent, slots, now)
    if (told := past.told(now)) is not None:
        schedule.observe(told, told, now)
        desk.told = (now, told)
    return desk


class _Past:
    """What all records amount to, in times of the new desk."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}
        self.spent: list[tuple[float, float]] = []
        self.requests: list[tuple[float, int]] = []
        self.paused_until, self.last = 0.0, 0
        self.holds: list[str] = []
        self.rates: list[Rate] | None = None
        self._told: tuple[float, RateHeaders] | None = None

    def add(self, record: _Record, shift_s: float) -> None:
        """Takes one more record in, whose times are to be moved by so much."""
        if record.whole:
            self._slots = {}
            self.spent = [(at + shift_s, tokens) for at, tokens in record.spent]
            self.requests = [(at + shift_s, count) for at, count in record.past]
        for number, start, at, tokens in record.leased:
            self._slots[number] = Slot(number, start + shift_s, at + shift_s, tokens)
            self.last = max(self.last, number)
        for number in record.freed:
            self._slots.pop(number, None)
        self.paused_until = max(self.paused_until, record.paused_until + shift_s)
        self.holds, self.rates = record.holds, record.rates
        if record.told is not None:
            self._told = (record.told[0] + shift_s, record.told[1])

    def told(self, now: float) -> RateHeaders | None:
        """What is left of the service's own limits, if all was sent that was leased since it told of them."""
        if self._told is None:
            return None
        at, headers = self._told
        since = [slot for slot in self._slots.values() if slot.start > at]
        tokens = math.ceil(sum(slot.tokens for slot in since))
        return RateHeaders(
            requests=_left(headers.requests, len(since), now - at), tokens=_left(headers.tokens, tokens, now - at)
        )

    def slots(self) -> list[Slot]:
        """The leases that were not freed, in the order of their times."""
        return sorted(self._slots.values(), key=lambda slot: slot.start)


def _left(quota: Quota | None, spent: int, passed_s: float) -> Quota | None:
    """What is left of a limit; None for one that is whole again."""
    if quota is None or passed_s >= quota.reset_s:
        return None
    return Quota(
        remaining=max(0, quota.remaining - spent), limit=quota.limit, reset_s=quota.reset_s - max(0.0, passed_s)
    )


def _row(slot: Slot) -> tuple[int, float, float, float]:
    return (slot.number, slot.start, slot.at, slot.tokens)
