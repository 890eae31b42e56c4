"""The driver: what a run on a cluster does in the place of asking by itself."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from batchchat.admission import Admission
from batchchat.asking import Asking, Asks, Judge, Shared, Stop, Work
from batchchat.auto_concurrency import MOST
from batchchat.budget import Spent
from batchchat.config import JobConfig
from batchchat.env_file import with_env_file
from batchchat.errors import ResultsWriteError
from batchchat.job_setup import output_settings
from batchchat.leases import DeskAwayError, SteeringLimiter
from batchchat.limits import Limiter
from batchchat.live_figures import AtWork
from batchchat.observer import Observers
from batchchat.pool import InputOrder
from batchchat.prompts import PromptReader
from batchchat.ray.actor import Actor, WorkerLostError
from batchchat.ray.checks import check_job
from batchchat.ray.cluster import Cluster
from batchchat.ray.far_work import FarAdmission, FarRules, FarSlots, FarWork
from batchchat.ray.readiness import await_ready, forget
from batchchat.ray.sharing import Sharing
from batchchat.ray.spread import SpreadWork
from batchchat.ray.words import ABORT, DRAIN, GO, DeskOpening, Sight, WorkerOpening
from batchchat.ray.worker_job import worker_job
from batchchat.records import PromptId
from batchchat.results import RunFiles
from batchchat.run_output import RunOutput
from batchchat.shards.work_folder import WorkFolder
from batchchat.shards.work_place import WorkPlace
from batchchat.shared_answers import AnswerStore, SharedAnswers
from batchchat.stopping import StopReason, StopRules
from batchchat.survey import ToDo
from batchchat.window_watch import WindowWatch

__all__ = ["RayAsking"]

_CLOSE_S = 20.0
# Prompts that a worker of a run that finds out how many pay is given at first.
_AT_START = 16
# How stores and a collector of telemetry are reached.
_CARRIED = ("AWS_", "OTEL_")


class RayAsking(Asking):
    """See ``Asking``; the workers of a cluster ask."""

    def __init__(self, job: JobConfig, observer: Observers, environ: Mapping[str, str], stop: Stop) -> None:
        check_job(job)
        self._far, self._far_rules = FarWork(), FarRules()
        super().__init__(job, observer, environ, stop, Shared(limiter=self._made_limiter))
        self._environ = dict(with_env_file(job.env_file, environ))
        self._cluster: Cluster | None = None
        self._desk: Actor | None = None
        self._place: WorkPlace | None = None
        self._workers: list[Actor] = []
        self._share = 1
        self._results = ""
        self._work: SpreadWork | None = None
        self._stage, self._all_cut = GO, False
        self._seen = -1
        self._telling: set[asyncio.Future[None]] = set()
        self.admission.when_closed(lambda: self.say(abort=False, all_cut=True))

    @property
    def spent(self) -> Spent:
        """See ``Asking``."""
        return self._far.figures.spent

    def counted(self) -> tuple[int, int]:
        """See ``Asking``."""
        return self._far.figures.completed, self._far.figures.failed

    @property
    def price_sources(self) -> tuple[str, ...]:
        """See ``Asking``."""
        return self._far.figures.price_sources

    @property
    def second_attempts(self) -> int:
        """See ``Asking``."""
        return self._far.figures.second_attempts

    @property
    def at_work(self) -> AtWork | None:
        """See ``Asking``."""
        return self._far

    def _made_limiter(self) -> Limiter:
        job = self.job
        return SteeringLimiter(
            job.rate,
            exchange=self._exchange,
            failed=lambda sentence: self._stop(StopReason(kind="service", message=sentence)),
            notice=lambda sentence: self._observer.notice(sentence, 0),
            burst=job.burst,
            tokens_per_minute=job.tokens_per_minute,
        )

    def _made_admission(self) -> Admission:
        return FarAdmission(self.limiter, self._far)

    def _made_slots(self) -> FarSlots:
        wanted = self.job.concurrency
        self._far_slots = FarSlots(MOST, found=True) if wanted == "auto" else FarSlots(wanted)
        return self._far_slots

    async def _exchange(self, ask: Any) -> Any:
        if self._desk is None:
            raise DeskAwayError
        try:
            return await self._desk.exchange(ask)
        except WorkerLostError as error:
            raise DeskAwayError from error

    async def prepare(
        self,
        stack: AsyncExitStack,
        files: RunFiles | None = None,
        total: int | None = None,
        left: int | None = None,
        remote: str | None = None,
    ) -> None:
        """Connects to the cluster and starts what the run needs there."""
        job = self.job
        cluster = self._cluster = await stack.enter_async_context(Cluster(job.ray_address))
        if self.admission.closed:  # by a signal meanwhile
            return
        self._results = str(job.output.path) if files is None else files.results
        self._place = await asyncio.to_thread(_work_place, self._results, remote)
        stack.push_async_callback(self._remove_place)
        rules = {
            "max_wait_s": job.retry.max_wait_s,
            "max_failures": job.stop.max_failures_count,
            "max_failed_share": job.stop.max_failures_share,
            "total": total,
        }
        self._desk = await asyncio.to_thread(
            cluster.start_desk,
            DeskOpening(
                rates=tuple(job.rate),
                burst=job.burst,
                tokens_per_minute=job.tokens_per_minute,
                budget_usd=job.stop.budget_usd,
                rules=rules,
                memory=self._place.desk_memory,
            ),
        )
        await self._start_workers(cluster, left)
        if self.admission.closed:
            return
        await stack.enter_async_context(self.limiter)
        watch = asyncio.create_task(self._watch(self._desk))
        stack.push_async_callback(self._end_watch, watch)

    @asynccontextmanager
    async def opened(self, rules: StopRules, judge: Judge, *, hold_slot: bool = True) -> AsyncIterator[None]:
        """See ``Asking``; the workers are open already."""
        async with WindowWatch(self.job.run.windows(), self.limiter, self._observer):
            yield

    def work(
        self,
        asks: Asks,
        items: Iterable[ToDo],
        output: RunOutput,
        *,
        reader: PromptReader,
        store: AnswerStore | None = None,
        order: InputOrder | None = None,
        left: int | None = None,
    ) -> Work:
        """See ``Asking.work``."""
        if self._place is None:
            raise RuntimeError("work before 'prepare'")
        self._work = SpreadWork(
            asks,
            items,
            output,
            reader=reader,
            order=order,
            workers=self._workers,
            share=self._share,
            left=left,
            place=self._place,
            desks=self,
            fingerprint_of=self.fingerprints.of,
            sharing=None if store is None else self._sharing(store),
        )
        return self._work

    def _sharing(self, store: AnswerStore) -> Sharing:
        async def nobody(*_: object) -> None:
            raise RuntimeError("the workers ask")

        shared = SharedAnswers(
            store,
            nobody,
            lambda prompt_id: None,
            notice=lambda sentence: self._observer.notice(sentence, 0),
            dedup=self.job.dedup,
            rule=self.rule,
        )
        return Sharing(store, shared, dedup=self.job.dedup)

    def say(self, *, abort: bool, all_cut: bool) -> None:
        """See ``Desks``."""
        self._all_cut = self._all_cut or all_cut
        self._stage = max(self._stage, ABORT if abort else DRAIN if self.admission.closed else GO)
        if self._desk is not None:
            self._later(self._desk.set_stage(self._stage, self._all_cut))

    async def judge(self, prompt_id: PromptId) -> None:
        """See ``Desks``."""
        if self._desk is None or self.job.stop.max_failures is None:  # which is all that counts them
            return
        with suppress(WorkerLostError):  # whoever watches the desk ends the run then
            if await self._far_rules.failed(self._desk, prompt_id):
                await self.look()

    async def look(self) -> None:
        """See ``Desks``."""
        if self._desk is not None:
            with suppress(WorkerLostError):  # whoever watches the desk ends the run then
                # What is said to the user comes with the watch, which may be on its way just now, or at the end.
                self._take(await self._desk.look(-1, False))

    async def give_up(self, worker: Actor) -> None:
        """See ``Desks``."""
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.give_up, worker)
        if self._desk is not None:
            self._later(self._desk.gone(self._workers.index(worker) + 1))

    async def _start_workers(self, cluster: Cluster, left: int | None) -> None:
        job, place = self.job, self._place
        if place is None:
            raise RuntimeError("workers before their place")
        most = self.slots.most
        wanted = await asyncio.to_thread(cluster.room) if job.workers is None else job.workers
        count = min(wanted, most, most if left is None else max(1, left))
        keys = getattr(self.provider, "asked_keys", None)
        told = None if keys is None else keys()
        found = self.slots.found
        self._share = min(_AT_START, most) if found else -(-most // count)
        for number in range(1, count + 1):
            share = most // count + (number <= most % count)
            opening = WorkerOpening(
                number=number,
                job=worker_job(job, "auto" if found else share),
                environ=self._environ,
                keys=told,
                place=place,
                output=output_settings(job),
                carried={name: value for name, value in os.environ.items() if name.startswith(_CARRIED)},
            )
            self._workers.append(cluster.start_worker(opening))
        await await_ready(self._workers, self.admission)

    async def _watch(self, desk: Actor) -> None:
        """Takes in what the workers have done, as the desk tells it."""
        number = 0
        while True:
            try:
                sight: Sight = await desk.watch(self._seen)
            except WorkerLostError as error:
                self._stop(StopReason(kind="service", message=f"the cluster cannot be reached any more: {error}"))
                return
            self._seen = sight.revision
            if number not in (0, sight.desk):  # another start of it, which knows nothing of this
                self.say(abort=False, all_cut=self._all_cut)
            number = sight.desk
            self._take(sight)

    def _take(self, sight: Sight) -> None:
        self._far.take(sight.figures)
        self._far_slots.take(sight.figures)
        self.limiter.admitted = sight.figures.requests
        for sentence, level in sight.notices:
            self._observer.notice(sentence, level)
        for attempt in sight.attempts:
            self._observer.attempt_failed(attempt.id, attempt.number, attempt.error.error(), attempt.retried)
        if sight.stop is not None:
            self._stop(sight.stop)

    async def _end_watch(self, watch: "asyncio.Task[None]") -> None:
        """Takes in the last figures."""
        watch.cancel()
        await asyncio.wait([watch])
        if watch.cancelled() is False and watch.exception() is not None:
            raise watch.exception() or RuntimeError
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.look()  # workers that have ended have no slots any more
        await self._close_workers()
        if self._desk is not None:
            with suppress(TimeoutError, WorkerLostError):
                async with asyncio.timeout(_CLOSE_S):
                    self._take(await self._desk.look(self._seen))

    async def _close_workers(self) -> None:
        workers, self._workers = self._workers, []
        closing = [asyncio.ensure_future(worker.close()) for worker in workers]
        if closing:
            await asyncio.wait(closing, timeout=_CLOSE_S)
        for each in closing:
            each.cancel()
            each.add_done_callback(forget)

    async def _remove_place(self) -> None:
        """Nothing is left there that is not in the results, or the next run takes it in."""
        if self._place is None or (self._work is not None and self._work.unmerged):
            return
        try:
            await asyncio.to_thread(_sync, self._results)
            await asyncio.to_thread(self._place.remove)
        except ResultsWriteError as error:
            self._observer.notice(f"{error}; what workers left there, the next run takes away", 0)
        except OSError as error:
            self._observer.notice(f"{self._place.told} cannot be removed: {error.strerror or error}", 0)

    def _later(self, call: Any) -> None:
        task = asyncio.ensure_future(call)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        task.add_done_callback(forget)


def _work_place(results: str, remote: str | None) -> WorkPlace:
    """Beside the results, wherever these are; blocks.

    Raises:
        ResultsWriteError: It cannot be made.
    """
    if remote is None:
        return WorkFolder.make(results)
    from batchchat.shards.work_store import WorkStore  # not needed by most runs

    return WorkStore.make(remote)


def _sync(path: str) -> None:
    """Brings the results to the disk, before what they are made of is removed."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
