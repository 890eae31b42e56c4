"""The desk: one actor that holds what the workers of a run have in common. It knows nothing of Ray."""

import asyncio
import contextlib
import os
import secrets
import time
from collections import deque
from decimal import Decimal
from pathlib import Path

import msgspec

from batchchat.hostlimits.place import boot_id
from batchchat.leases import Answer, Ask, DeskAwayError, DeskFile, DeskService
from batchchat.ray.desk_memory import DeskMemory, Remembered, sum_figures
from batchchat.ray.ledger import BudgetAsk, BudgetLedger, Granted
from batchchat.ray.nonce_takers import NonceTakers
from batchchat.ray.words import (
    DRAIN,
    GO,
    MOST_ATTEMPTS,
    DeskOpening,
    FailedAttempt,
    FailedPrompt,
    Figures,
    Sight,
    Told,
    Word,
)
from batchchat.stopping import StopReason, StopRules

__all__ = ["Desk"]

# Who hears nothing new is answered after so long, so that a lost connection is noticed.
_HOLD_S = 20.0
# The driver is told no more often than this.
_SIGHT_S = 0.2
# More changes than a desk ever makes.
_REVISIONS = 10**9


class Desk:
    """Every method may be called again with the same arguments, as Ray does where an answer was lost."""

    def __init__(self, opening: DeskOpening) -> None:
        self._opening = opening
        with contextlib.suppress(OSError):  # what needs it says so
            os.makedirs(os.path.dirname(opening.memory), exist_ok=True)
        self._memory = DeskMemory(f"{opening.memory}-figures")
        known = self._memory.read()
        self._number = max(time.time_ns(), known.number + _REVISIONS)
        self._figures, self._told_last = dict(known.figures), dict(known.told)
        limit = opening.budget_usd
        self._ledger = None if limit is None else _ledger(Decimal(repr(limit)), known)
        self._short = False  # as was said last
        self._grants: dict[str, asyncio.Future[Granted]] = {}
        self._rules = StopRules(**opening.rules)
        self._lives, self._ended = dict(known.lives), set(known.ended)
        counted = self._take_up(known)
        self._stop = known.stop or counted
        self._stage, self._all_cut = GO if self._stop is None else DRAIN, False
        # Each with the revision of the sight that shows it first.
        self._notices: deque[tuple[int, tuple[str, int]]] = deque(maxlen=MOST_ATTEMPTS)
        self._attempts: deque[tuple[int, FailedAttempt]] = deque(maxlen=MOST_ATTEMPTS)
        self._told: set[str] = set()
        self._word_at = self._sight_at = self._number  # so that nobody knows it yet
        self._word_moved, self._sight_moved = asyncio.Event(), asyncio.Event()
        self._nonces = NonceTakers()
        self._leases: DeskService | None = None

    async def tell(self, told: Told) -> Word:
        """Takes in what a worker has done; how far the run is."""
        ended = told.life in self._ended
        if not ended:
            self._born(told.worker, told.life)
        if not told.number or told.number > self._told_last.get(told.life, 0):  # else it is known from the file
            self._count(told)
        if not ended:  # what else it has to say is of a worker that is cut off
            for notice in told.notices:
                self._notice(notice)
            self._attempts.extend((self._sight_at + 1, attempt) for attempt in told.attempts)
            if told.stop is not None:
                self._stop_for(told.stop)
        if told.last and not ended:
            await self.lost(told.worker)
        self._see()
        self._remember(at_most_every_s=0.0 if told.failures else 1.0)
        return self._word

    async def hear(self, revision: int) -> Word:
        """How far the run is, as soon as that is another than the worker knows."""
        while revision == self._word_at:
            self._word_moved.clear()
            try:
                async with asyncio.timeout(_HOLD_S):
                    await self._word_moved.wait()
            except TimeoutError:
                break
        return self._word

    async def watch(self, revision: int) -> Sight:
        """What all workers have done, as soon as there is something new, some times a second at most.

        Args:
            revision: Of the last sight that the driver has taken in. What came with it is forgotten, and nothing else
                is: the call may go on where nobody waits for its answer any more.
        """
        self._forget(revision)
        if revision == self._sight_at:
            self._sight_moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HOLD_S):
                    await self._sight_moved.wait()
        await asyncio.sleep(_SIGHT_S)
        return self._sight()

    async def look(self, revision: int = -1, whole: bool = True) -> Sight:
        """The same, now.

        Args:
            whole: What came with it is forgotten; else it is not told, and comes with another sight.
        """
        self._forget(revision)
        sight = self._sight()
        if not whole:
            return msgspec.structs.replace(sight, notices=(), attempts=())
        self._forget(self._sight_at)
        return sight

    async def set_stage(self, stage: int, all_cut: bool) -> None:
        """The driver's word for all."""
        if stage > self._stage or all_cut != self._all_cut:
            self._stage, self._all_cut = max(stage, self._stage), all_cut
            self._say()

    async def lost(self, worker: int) -> None:
        """A worker is gone, for good or to come again under another name."""
        if (life := self._lives.pop(worker, None)) is not None:
            self._end(life)

    async def gone(self, worker: int) -> None:
        """A worker was given up: no other life of it will come."""
        await self.lost(worker)

    async def grant(self, ask: BudgetAsk) -> Granted:
        """What a worker may spend, once it is as much as it wants or nothing more can be had."""
        if self._ledger is None:
            raise RuntimeError("there is no budget")
        if ask.life in self._ended:
            return self._ledger.refused(ask)
        self._ledger.ask(ask)
        waiting: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()
        self._grants[ask.life] = waiting
        self._serve_budget()
        return await waiting

    async def update_budget(self, ask: BudgetAsk) -> None:
        """How a worker does that waits for more, or gives back."""
        if self._ledger is not None and ask.life not in self._ended:
            self._ledger.update(ask)
            self._serve_budget()

    async def exchange(self, ask: Ask) -> Answer:
        """See ``DeskService.exchange``."""
        if self._leases is None:
            try:
                self._leases = self._opened_leases()
            except OSError as error:  # the next ask may find it well again
                raise DeskAwayError(f"what is leased cannot be kept ({error.strerror or error})") from error
        return await self._leases.exchange(ask)

    def _opened_leases(self) -> DeskService:
        opening = self._opening
        file = DeskFile(Path(f"{opening.memory}-leases"), clock=boot_id())
        limits = file.open(
            opening.rates,
            burst=opening.burst,
            tokens_per_minute=opening.tokens_per_minute,
            number=secrets.randbits(32),
        )
        return DeskService(limits, file.remember)

    async def take_nonce(self, life: str, refused: str | None) -> tuple[str, float] | None:
        """The nonce that all use, with its age in seconds; None where the worker is to get one."""
        return None if life in self._ended else await self._nonces.take(life, refused)

    async def keep_nonce(self, life: str, value: str, age_s: float) -> None:
        """A worker has a new nonce for all."""
        self._nonces.keep(life, value, age_s)

    async def fail_nonce(self, life: str) -> None:
        """A worker got none."""
        self._nonces.fail(life)

    @property
    def _word(self) -> Word:
        return Word(
            desk=self._number,
            revision=self._word_at,
            stage=self._stage,
            all_cut=self._all_cut,
            give_back=self._ledger is not None and self._ledger.short,
        )

    def _sight(self) -> Sight:
        return Sight(
            desk=self._number,
            revision=self._sight_at,
            figures=sum_figures(self._figures.values()),
            notices=tuple(notice for _, notice in self._notices),
            attempts=tuple(attempt for _, attempt in self._attempts),
            stop=self._stop,
        )

    def _forget(self, revision: int) -> None:
        """The driver has this sight."""
        for told in (self._notices, self._attempts):
            while told and told[0][0] <= revision:
                told.popleft()

    def _born(self, worker: int, life: str) -> None:
        before = self._lives.get(worker)
        if before != life:
            self._lives[worker] = life
            if before is not None:
                self._end(before)

    def _end(self, life: str) -> None:
        """A life of a worker is over; what it did stays counted."""
        self._ended.add(life)
        if (figures := self._figures.get(life)) is not None:
            self._figures[life] = _at_rest(figures)
        self._nonces.lost(life)
        if self._ledger is not None:
            self._ledger.lost(life)
            self._serve_budget()
        self._remember()  # nobody will tell it again
        self._see()

    def _count(self, told: Told) -> None:
        """What a worker has done since it told last."""
        self._told_last[told.life] = told.number
        self._figures[told.life] = _at_rest(told.figures) if told.life in self._ended else told.figures
        for failed in told.failures:
            self._judge(failed)
        if told.answers:
            self._answers(told.answers)

    def _judge(self, failed: FailedPrompt) -> None:
        self._answers(failed.answers)
        error = None if failed.error is None else failed.error.error()
        if (reason := self._rules.failed(failed.id, error)) is not None:
            self._stop_for(reason)

    def _answers(self, count: int) -> None:
        if count:
            self._rules.answered()
            for _ in range(count):
                self._rules.completed()

    def _stop_for(self, reason: StopReason) -> None:
        if self._stop is None:
            self._stop = reason
            self._stage = max(self._stage, DRAIN)
            self._remember()  # a worker that has heard of it asks nothing more
            self._say()
            self._see()

    def _notice(self, notice: tuple[str, int]) -> None:
        """Once for all workers, where several say the same."""
        if notice[1] > 0 or notice[0] not in self._told:
            self._told.add(notice[0])
            self._notices.append((self._sight_at + 1, notice))

    def _say(self) -> None:
        self._word_at += 1
        self._word_moved.set()

    def _see(self) -> None:
        self._sight_at += 1
        self._sight_moved.set()

    def _serve_budget(self) -> None:
        if self._ledger is None:
            return
        said = self._ledger.grants()
        if said:
            self._remember()  # before a worker hears of it
        for life, granted in said.items():
            if (waiting := self._grants.pop(life, None)) is not None and not waiting.done():
                waiting.set_result(granted)
        if self._short != self._ledger.short:
            self._short = self._ledger.short
            self._say()

    def _take_up(self, known: Remembered) -> StopReason | None:
        """The failures of before count on; the reason to stop, if they are one."""
        reason = None
        for figures in known.figures.values():
            self._answers(figures.completed)
        for _ in range(sum(figures.failed for figures in known.figures.values())):
            reason = self._rules.failed("", None)
        return reason

    def _remember(self, at_most_every_s: float = 0.0) -> None:
        ledger = self._ledger
        remembered = Remembered(
            figures=self._figures,
            told=self._told_last,
            granted={} if ledger is None else ledger.granted,
            asked={} if ledger is None else ledger.asked,
            lives=self._lives,
            ended=frozenset(self._ended),
            number=self._number,
            stop=self._stop,
        )
        self._memory.write(remembered, at_most_every_s)


def _at_rest(figures: Figures) -> Figures:
    """Those of a worker that is gone."""
    return msgspec.structs.replace(figures, in_flight=0, retrying=0, slots=0)


def _ledger(limit: Decimal, known: Remembered) -> BudgetLedger:
    return BudgetLedger(limit, known.granted, asked=known.asked, gone=known.ended)
