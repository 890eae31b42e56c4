"""One process's view of the shared file: reserve a time to leave, leave, land."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from batchchat.durations import Rate
from batchchat.hostlimits import events as e
from batchchat.hostlimits.events import Event
from batchchat.hostlimits.folding import fold_events
from batchchat.hostlimits.members import Membership
from batchchat.hostlimits.place import boot_id
from batchchat.hostlimits.store import EventStore
from batchchat.hostlimits.table import LEASE_S, Table

__all__ = ["Later", "Ledger", "Start"]

T = TypeVar("T")

# A time to leave is reserved only shortly before it: the less is lost with a process that ends in between.
_HORIZON_S = 0.05
# How long to rely on what may still change by what other processes do.
_UNCERTAIN_S = 1.0
# How often to look for what hardly ever happens: a process that died, a lock file that someone removed.
_CHECK_EVERY_S = 1.0
_FOLD_BYTES = 1_500_000


class Start(msgspec.Struct, frozen=True, gc=False):
    """Request ``seq`` may leave at ``at``."""

    seq: int
    at: float


class Later(msgspec.Struct, frozen=True, gc=False):
    """Nothing is free yet: ask again at ``at``, or where it is not ``certain`` when something of one's own changed."""

    at: float
    certain: bool


class Ledger:
    """Requests of all processes under one service and key; times are of the machine's monotonic clock.

    Nothing here waits but ``wait_lock``. Everything between ``try_lock`` and ``unlock`` takes microseconds, but for
    ``fold``, which is due about once in ten thousand requests.

    Args:
        folder: See ``limits_folder``.
        service: See ``service_digest``.
        tell: Called with a sentence when the file had to be mended.
    """

    def __init__(
        self,
        folder: Path,
        service: str,
        rates: Sequence[Rate],
        *,
        burst: int = 1,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.owner = int.from_bytes(os.urandom(8)) | 1
        self.clock, self._tell = clock, tell
        self._store = EventStore(folder, service, boot_id(), self._renew)
        self._table = Table(rates, burst, tokens_per_minute)
        self._members = Membership(self._store.path, self.owner)
        self._seq = 0
        self._pending: list[Event] = []
        self._checked_at = 0.0
        self._fold_at = _FOLD_BYTES
        self._told = False

    @property
    def paused_until(self) -> float:
        """Until when a service asked everybody to wait, as far as it was read."""
        return self._table.paused_until

    @property
    def pending(self) -> bool:
        """Whether something is to be written that could wait."""
        return bool(self._pending)

    @property
    def fold_due(self) -> bool:
        """Whether the file has grown so far that it should be folded."""
        return self._store.size > self._fold_at

    def open(self) -> None:
        """Joins the others.

        Raises:
            OSError: The folder or the file cannot be used.
        """
        self._store.open()
        try:
            self._store.wait_lock()
            try:
                self._members.tidy()
                self._members.join()
                self._read()
            finally:
                self._store.unlock()
        except BaseException:
            self.close()
            raise
        self._store.tidy()

    def close(self) -> None:
        """Leaves; what was reserved and did not leave is free for the others at once."""
        self._members.leave()
        self._store.close()

    def disown(self) -> None:
        """Closes the files in a child that was forked with them; nothing is written."""
        self._members.forget()
        self._store.close()

    def try_lock(self) -> bool:
        """Takes the lock if it is free."""
        return self._store.try_lock()

    def wait_lock(self) -> None:
        """Takes the lock; blocks until it is free."""
        self._store.wait_lock()

    def unlock(self) -> None:
        """Gives the lock up."""
        self._store.unlock()

    def reserve(self, tokens: float) -> Start | Later:
        """Reserves the next time to leave, or tells when to ask again. Needs the lock, as all below.

        Raises:
            OSError: The file cannot be written.
        """
        self._read()
        now = self.clock()
        at, certain = self._table.next_start(tokens, now, self.owner)
        # Who has waited longest may reserve first, the others a little later.
        early = _HORIZON_S * (1 - 0.8 / (1 + max(0, self._table.turn(self.owner))))
        if at > now + early:
            if not certain and tokens:
                self._pending.append(Event(e.WANT, 0, self.owner, now, tokens))
            self._write()
            return Later(at - early if certain else min(at, now + _UNCERTAIN_S), certain)
        self._seq += 1
        self._write(Event(e.RESERVE, self._seq, self.owner, at, tokens))
        return Start(self._seq, at)

    def leave(self, seq: int) -> bool:
        """Marks a request as on its way to the service, right before it is written.

        From then on it counts until it lands, however long that takes.

        Returns:
            Whether it may go; if not, its time is over and it is forgotten.

        Raises:
            OSError: The file cannot be written.
        """
        self._read()
        now = self.clock()
        request = self._table.unlanded.get((self.owner, seq))
        if request is None or request.at + LEASE_S < now:
            self._write(Event(e.FREE, seq, self.owner, now))
            return False
        self._write(Event(e.LEAVE, seq, self.owner, now))
        return True

    def flush(self) -> None:
        """Writes what could wait.

        Raises:
            OSError: The file cannot be written.
        """
        self._read()
        self._write()

    def set_rates(self, rates: Sequence[Rate], *, burst: int, tokens_per_minute: int | None) -> None:
        """Other limits from now on; what was sent before counts.

        Raises:
            OSError: The file cannot be read.
        """
        self._table = Table(rates, burst, tokens_per_minute)
        self._store.forget()
        self._read()

    def fold(self) -> None:
        """Makes the file small; takes tens of milliseconds.

        Raises:
            OSError: It cannot be written.
        """
        self._read()
        now = self.clock()
        folded = fold_events(self._store.read_whole(), now)
        self._store.rewrite(folded, now)
        self._table.clear()
        self._table.apply(folded)
        self._fold_at = max(_FOLD_BYTES, 2 * self._store.size)

    def land(self, seq: int) -> None:
        """The request has been written by now. This and what follows is written later and needs no lock."""
        self._pending.append(Event(e.LAND, seq, self.owner, self.clock()))

    def free(self, seq: int) -> None:
        """The request will not be sent."""
        self._pending.append(Event(e.FREE, seq, self.owner, self.clock()))

    def correct(self, seq: int, tokens: float) -> None:
        """The request cost so many tokens."""
        self._pending.append(Event(e.CORRECT, seq, self.owner, self.clock(), tokens))

    def pause(self, seconds: float) -> None:
        """Nobody sends for so many seconds from now."""
        self._pending.append(Event(e.PAUSE, 0, self.owner, self.clock() + seconds, seconds))

    def _write(self, *events: Event) -> None:
        batch = [*self._pending, *events]
        if batch:
            self._store.append(batch)
            self._pending.clear()
            self._table.apply(batch)

    def _read(self) -> None:
        """Takes in what others wrote; a file that is gone is made again of what is known here."""
        store, table = self._store, self._table
        now = self.clock()
        due = now - self._checked_at > _CHECK_EVERY_S
        if due and store.lost():
            self._renew()
        found = store.read(now)
        if found.sentence is not None and not self._told:
            self._told = True
            self._tell(found.sentence)
        anew = found.whole and (found.lost or not found.events)
        known = table.dump(now, self.owner) if anew else ()
        if found.whole:
            table.clear()
        if found.events:
            table.apply(found.events)
        # Each of several processes knows requests that the others had not read of; what two know counts once.
        if missing := list(table.missing(known)):
            store.append(missing)
            table.apply(missing)
        table.expire(now)
        if due:
            self._checked_at = now
            self._bury(now)

    def _renew(self) -> None:
        """Someone removed the files: begins anew with those that have the new ones, locked as the old ones were."""
        self._members.leave()
        self._store.close()
        self._store.open()
        self._store.wait_lock()
        self._members.join()

    def _bury(self, now: float) -> None:
        """Ends what dead processes left: what had not left is free, what had may have reached the service now."""
        buried = []
        for owner in self._table.suspects(now, self.owner):
            if not self._members.is_alive(owner):
                buried += [
                    Event(e.LAND if it.leaving else e.FREE, seq, owner, now) for seq, it in self._table.of(owner)
                ]
        if buried:
            self._store.append(buried)
            self._table.apply(buried)
