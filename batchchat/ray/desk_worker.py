"""What asks on a cluster: limits, nonce, budget and stop rules of the desk around what asks in one process."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from decimal import Decimal

from batchchat.asking import Asking, Shared
from batchchat.budget import Budget
from batchchat.config import JobConfig
from batchchat.errors import ProviderError
from batchchat.leases import Answer, Ask, DeskAwayError, LeasedLimiter
from batchchat.limits import Limiter
from batchchat.observer import Observers
from batchchat.otlp import AttemptTelemetry, OtlpTelemetry
from batchchat.pool_work import LocalAsking, PoolWork
from batchchat.processes.messages import CarriedError
from batchchat.ray.actor import WorkerLostError
from batchchat.ray.desk_budget import DeskBudget
from batchchat.ray.desk_line import DeskCalls, DeskLine, DeskNonce
from batchchat.ray.shared_rules import SharedRules
from batchchat.ray.words import ABORT, DRAIN, GO, MOST_ATTEMPTS, FailedAttempt, Figures, Told, Word
from batchchat.records import PromptId
from batchchat.stopping import StopReason
from batchchat.tally import Tally

__all__ = ["DeskWorker"]

_JUDGING = "judging"


class DeskWorker:
    """Asks prompts as one of several workers; what they have in common is the desk's. ``open`` before the first one.

    Args:
        number: Another one for each worker of a desk.
        job: Its paths are absolute, its concurrency is the worker's share.
        environ: Where keys and proxies are looked up.
        keys: See ``Shared``.
        desk: Where the desk is.

    Attributes:
        tally: Counts what it did.
        observer: Passes on what the user is to be told.
    """

    def __init__(
        self,
        number: int,
        job: JobConfig,
        environ: Mapping[str, str],
        keys: list[str | None] | None,
        desk: DeskCalls,
    ) -> None:
        self._number, self._job, self._environ, self._keys, self._desk = number, job, environ, keys, desk
        self.tally = Tally()
        self._teller = _Teller(self._notice)
        self.observer = Observers([self._teller])
        self._notices: list[tuple[str, int]] = []
        self._stop: StopReason | None = None
        self._stage, self._all_cut = GO, False
        self._last_word: Word | None = None
        self._works: set[PoolWork] = set()
        self._stack = AsyncExitStack()
        self._opened: asyncio.Task[None] | None = None
        self._line: DeskLine
        self._rules: SharedRules
        self._asking: Asking
        self._budget: DeskBudget | None = None

    async def open(self) -> None:
        """Gets ready to ask; more than one may wait for that.

        Raises:
            BatchchatError: It cannot ask.
        """
        if self._opened is None:
            self._opened = asyncio.ensure_future(self._open())
        await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Ends what the worker has open, and tells the desk its last figures."""
        if self._opened is not None:
            await asyncio.wait([self._opened])
            await self._stack.aclose()

    def all_read(self) -> bool:
        """See ``Asks``."""
        return self._all_cut and all(work.exhausted for work in self._works)

    def stop(self, reason: StopReason, *, exit_code: int | None = None) -> None:
        """See ``Asks``; the desk tells the others."""
        if self._stop is None:
            self._stop = reason
            self._go_to(DRAIN)
            self._line.hurry()

    def stop_for_results(self, sentence: str) -> None:
        """See ``Asks``."""
        self.stop(StopReason(kind="results", message=sentence))

    def judge(self, prompt_id: PromptId, error: ProviderError | None) -> None:
        """See ``Asks``; where failures are counted over all workers, nothing goes out before this one is."""
        reason = self._rules.failed(prompt_id, error)
        if self._job.stop.max_failures is not None:
            self._asking.limiter.hold(_JUDGING)
        self._line.hurry()
        if reason is not None:
            self.stop(reason)

    async def _open(self) -> None:
        self._tell_attempts()
        self._rules = SharedRules(max_wait_s=self._job.retry.max_wait_s)
        self._line = DeskLine(
            self._desk, told=self._told, heard=self._heard, acknowledged=self._acknowledged, failed=self._fail
        )
        shared = Shared(
            limiter=self._made_limiter,
            budget=self._made_budget,
            nonce=DeskNonce(self._desk, lambda: self._line.life),
            keys=self._keys,
        )
        self._asking = asking = LocalAsking(self._job, self.observer, self._environ, self.stop, shared)
        await self._stack.enter_async_context(self._line)
        if self._budget is not None:
            self._stack.push_async_callback(self._budget.close)
        await asking.prepare(self._stack)
        await asking.meter.prepare()
        await self._stack.enter_async_context(asking.opened(self._rules, self.judge))
        self.tally.attempts = asking.opened_worker.attempts

    def _tell_attempts(self) -> None:
        telemetry = self._job.telemetry
        if telemetry.otlp:
            told = OtlpTelemetry(self._job.provider, ids=telemetry.ids, content=telemetry.content, notice=self._notice)
            self._stack.push_async_callback(told.close_attempts)
            self.observer = Observers([self._teller, AttemptTelemetry(told)])

    async def _run(self, work: PoolWork) -> None:
        """Does a work, as far as the desk's word lets it."""
        self._works.add(work)
        try:
            await work.run()
        finally:
            self._works.discard(work)

    def _made_limiter(self) -> Limiter:
        job = self._job
        return LeasedLimiter(
            job.rate,
            burst=job.burst,
            tokens_per_minute=job.tokens_per_minute,
            exchange=self._exchange,
            failed=self._fail,
            notice=lambda sentence: self._notice(sentence, 0),
        )

    async def _exchange(self, ask: Ask) -> Answer:
        try:
            answer: Answer = await self._desk.exchange(ask)
            return answer
        except WorkerLostError as error:
            raise DeskAwayError from error

    def _made_budget(self, exhausted: Callable[[str], None]) -> Budget:
        limit = self._job.stop.budget_usd
        if limit is None:
            return Budget(None, exhausted)
        self._budget = DeskBudget(Decimal(repr(limit)), exhausted, desk=self._desk, life=lambda: self._line.life)
        return self._budget

    def _told(self) -> Told:
        asking, worker = self._asking, self._asking.worker
        failures, answers = self._rules.take()
        notices, self._notices = tuple(self._notices), []
        lives = {} if worker is None else worker.lives
        return Told(
            worker=self._number,
            life=self._line.life,
            figures=Figures(
                completed=self._rules.prompts_completed,
                failed=self._rules.prompts_failed,
                attempts=dict(self.tally.attempts),
                requests=asking.limiter.admitted,
                second_attempts=asking.second_attempts,
                in_flight=len(asking.admission.in_flight),
                retrying=sum(1 for life in lives.values() if life.attempts and not life.holds_slot),
                slots=asking.slots.limit,
                spent=asking.spent,
                price_sources=asking.price_sources,
            ),
            failures=failures,
            answers=answers,
            notices=notices,
            attempts=self._teller.take_attempts(),
            stop=self._stop,
        )

    def _heard(self, word: Word) -> None:
        before = self._last_word
        if before is not None and word.desk == before.desk and word.revision < before.revision:
            return  # words come on two ways, and this one is late
        self._last_word = word
        self._all_cut = word.all_cut
        if self._budget is not None:
            self._budget.short(word.give_back)
            if before is not None and word.desk != before.desk:
                self._budget.desk_began_again()
        self._go_to(word.stage)

    def _go_to(self, stage: int) -> None:
        """Nothing new is sent from now on; nor is waited for what is on the wire where the stage is ``ABORT``."""
        if stage <= self._stage:
            return
        self._stage = stage
        self._asking.admission.close()
        for work in self._works:
            if stage == ABORT:
                work.abort()
            else:
                work.drain()

    def _notice(self, sentence: str, level: int) -> None:
        self._notices.append((sentence, level))

    def _acknowledged(self) -> None:
        if not self._rules.untold:
            self._asking.limiter.release(_JUDGING)

    def _fail(self, sentence: str) -> None:
        """The desk is gone for good: without it, limits could be broken."""
        self.stop(StopReason(kind="service", message=sentence))


class _Teller:
    """Passes on what the user is to be told."""

    def __init__(self, notice: Callable[[str, int], None]) -> None:
        self.notice = notice
        self._attempts: deque[FailedAttempt] = deque(maxlen=MOST_ATTEMPTS)

    def take_attempts(self) -> tuple[FailedAttempt, ...]:
        """Failed attempts that were not told yet."""
        attempts = tuple(self._attempts)
        self._attempts.clear()
        return attempts

    def run_started(self, plan: object) -> None:
        """See ``RunObserver``."""

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """See ``RunObserver``."""
        self._attempts.append(FailedAttempt(prompt_id, number, CarriedError.of(error), retried))

    def prompt_finished(self, outcome: object) -> None:
        """See ``RunObserver``."""

    def run_finished(self, report: object) -> None:
        """See ``RunObserver``."""
