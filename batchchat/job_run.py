"""One run of one job: what it holds, what stops it, how it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from typing import Literal

import msgspec

from batchchat.admission import Abandoned, Admission
from batchchat.breaker import Breaker
from batchchat.config import JobConfig
from batchchat.control.run_control import RunControl
from batchchat.delivery import Delivery
from batchchat.errors import BatchchatError, ProviderError
from batchchat.fingerprints import Fingerprints
from batchchat.input_survey import InputSurvey
from batchchat.job_setup import (
    answer_rule,
    checked_files,
    fault_outcome,
    make_meter,
    make_provider,
    make_rules,
    make_slots,
    output_settings,
    warnings,
)
from batchchat.limit_scope import make_limiter
from batchchat.live_figures import LiveFigures
from batchchat.look_ahead import Found, LookAhead
from batchchat.observer import Observers, RunPlan, RunReport
from batchchat.pool import InputOrder, PromptSource, Source, WorkerPool
from batchchat.prompts import PromptReader
from batchchat.records import InputFault, Prompt, PromptId
from batchchat.retry import RetryPolicy
from batchchat.run_output import RunOutput, close_output, open_output
from batchchat.run_report import EXIT_CODES, final_report
from batchchat.run_signals import RunSignals
from batchchat.shared_answers import AnswerStore, Ask, SharedAnswers
from batchchat.shown_settings import shown_settings
from batchchat.stopping import StopReason, StopRules
from batchchat.survey import Survey, ToDo, to_do
from batchchat.tally import Tally
from batchchat.window_watch import WindowWatch
from batchchat.worker import Worker

__all__ = ["JobRun"]

# Of a run's deadline, what is on the wire has the last part to finish: this share, at most the grace time.
_SHARE_TO_FINISH = 0.05


class JobRun:
    """The state of one run; used once."""

    def __init__(self, job: JobConfig, observer: Observers, environ: Mapping[str, str]) -> None:
        self._job, self._observer = job, observer
        self._files = checked_files(job)
        self._stop_reason: StopReason | None = None
        self._pool: WorkerPool[ToDo] | None = None
        self._worker: Worker | None = None
        self._order = InputOrder() if job.output.order == "input" else None
        stop = lambda why: self.stop(StopReason(kind="limit", message=why))  # noqa: E731
        self._limiter = make_limiter(job, observer, lambda: self._provider, stop)
        self._meter = make_meter(job, observer, stop)
        self._admission = Admission(self._limiter, self._meter)
        self._slots = make_slots(job.concurrency, job.processes, self._admission, observer.notice)
        self._provider = make_provider(job, self._admission, observer, environ, concurrency=self._slots.most)
        self.check_prompt: Callable[[Prompt], None] = self._meter.checking(
            getattr(self._provider, "check_prompt", None)
        )
        self._rule = answer_rule(job)
        schema = None if self._rule is None else self._rule.schema
        self._fingerprints = Fingerprints(self._provider, job.prompt.params, schema)
        self._reader = PromptReader(job.input_settings())
        self._tally = Tally()
        self._rules = StopRules()
        self._exit_code: int | None = None
        self._survey = InputSurvey(
            job,
            self._files,
            self._reader,
            fingerprints=self._fingerprints,
            check=self.check_prompt,
            notice=lambda sentence: observer.notice(sentence, 0),
            stopped=lambda: self._stop_reason is not None,
        )
        self._total: int | None = None
        self._settings = shown_settings(job)
        self._live = LiveFigures(
            limiter=self._limiter,
            admission=self._admission,
            tally=self._tally,
            slots=self._slots.slots,
            spent=lambda: self._meter.budget.spent,
        )
        self._control = RunControl(
            self._files,
            limiter=self._limiter,
            admission=self._admission,
            tally=self._tally,
            slots=self._slots.slots,
            figures=self._live,
            notice=observer.notice,
        )

    async def run(self, *, handle_signals: bool) -> RunReport:
        """See ``run_job``."""
        timer = None
        with RunSignals(self._first_signal, self.abort) if handle_signals else nullcontext():
            if self._job.timeout.run_s:
                whole_s = self._job.timeout.run_s
                left_s = min(self._job.grace_s, whole_s * _SHARE_TO_FINISH)
                timer = asyncio.get_running_loop().call_later(whole_s - left_s, self._deadline, left_s)
            output = await open_output(self._files, output_settings(self._job))
            troubles: list[str] = []
            whole = False
            try:
                for sentence in output.repairs:
                    self._observer.notice(sentence, 0)
                async with self._control:
                    survey = await self._survey.read(output)
                    with AnswerStore() as store:
                        await self._load_answers(store, survey)
                        await self._run_pool(output, survey, store)
                whole = self._stop_reason is None and self._job.limit is None and self._job.sample is None
            finally:
                if timer is not None:
                    timer.cancel()
                # An errors file that is asked again and was not asked to its end holds what is still to be asked.
                keep_errors = self._survey.errors_are_input and not whole
                troubles = await close_output(output, keep_errors=keep_errors)
            if keep_errors:
                self._observer.notice(
                    f"{self._files.errors} stays as it was, as prompts in it are still to be asked", 0
                )
            for sentence in troubles:
                told = self._stop_reason
                if told is None or told.kind != "results":
                    self._stop_for_results(sentence)
                elif sentence and sentence != told.message:  # also where answers went that came since
                    self._observer.notice(sentence, 0)
            report = self._report(survey)
            if (trouble := output.write_report(report, self._settings)) is not None:
                self._observer.notice(trouble, 0)
            self._observer.run_finished(report)
            return report

    def stop(self, reason: StopReason, *, exit_code: int | None = None) -> None:
        """Sends nothing new; what is on the wire may come to its end within the grace time. The first reason counts."""
        if self._stop_reason is not None:
            return
        self._stop_reason = reason
        self._exit_code = exit_code
        self._admission.close()
        if reason.message:
            self._observer.notice(f"stopping: {reason.message}", 0)
        if self._pool is not None:
            self._pool.drain()
            asyncio.get_running_loop().call_later(self._job.grace_s, self.abort)

    def abort(self) -> None:
        """Gives up what is on the wire."""
        self._admission.close()
        if self._pool is not None:
            self._pool.abort()

    def _found_ahead(self, found: Found) -> None:
        """What the whole of a big input holds, while the run is somewhere in it."""
        if found.fault is not None:
            message = f"{found.fault}; 'batchchat check' finds this before a run"
            self.stop(StopReason(kind="input", message=message), exit_code=EXIT_CODES["input"])
            return
        self._total = found.total
        if (plan := self._live.plan) is not None:
            self._live.plan = msgspec.structs.replace(plan, total=found.total, counting=False)
            self._observer.plan_changed(self._live.plan)

    async def _load_answers(self, store: AnswerStore, survey: Survey | None) -> None:
        """Takes in what may be reused, before a file is touched: one that cannot be read leaves all as it was."""
        job = self._job
        if not (job.dedup or job.reuse) or self._stop_reason is not None or _is_done(survey):
            return
        own = self._files.results if job.dedup and not self._files.stream else None
        stopped = lambda: self._stop_reason is not None  # noqa: E731
        for sentence in await asyncio.to_thread(store.load, job.reuse, own, cancelled=stopped):
            self._observer.notice(sentence, 0)

    async def _run_pool(self, output: RunOutput, survey: Survey | None, store: AnswerStore) -> None:
        job = self._job
        total = None if survey is None else survey.total
        completed = 0 if survey is None else survey.completed
        plan = RunPlan(
            total=total,
            completed=completed,
            concurrency=self._slots.most,
            output=self._files.results,
            finds_concurrency=self._slots.found,
            counting=self._survey.looks_ahead,
        )
        self._rules = make_rules(job, total)
        async with AsyncExitStack() as stack:
            if self._stop_reason is None and not _is_done(survey):
                if (prepare := getattr(self._provider, "prepare", None)) is not None:
                    await prepare()  # what is missing there ends a run that has not begun
                await stack.enter_async_context(self._limiter)
            await self._begin(output, survey, plan, store)

    async def _begin(self, output: RunOutput, survey: Survey | None, plan: RunPlan, store: AnswerStore) -> None:
        job, total, completed = self._job, plan.total, plan.completed
        trouble = output.begin(self._settings, lambda error: self._stop_for_results("" if error.quiet else str(error)))
        if trouble is not None:
            self._observer.notice(trouble, 0)
        self._live.plan = plan
        self._observer.figures_at_hand(self._live.now)
        self._observer.run_started(plan)
        for warning in warnings(job, self._files, self._slots.most, 0 if total is None else total - completed):
            self._observer.notice(warning, 0)
        if self._stop_reason is not None or _is_done(survey):
            return
        await self._meter.prepare()
        if self._stop_reason is not None:
            return
        breaker = Breaker(
            job.breaker, self._limiter, self._observer, slots=self._slots.usual, give_up=self._stop_for_service
        )
        async with self._provider, WindowWatch(job.run.windows(), self._limiter, self._observer), breaker, self._meter:
            if self._stop_reason is not None:
                return
            worker = self._made_worker(breaker)
            self._tally.attempts = worker.attempts
            self._worker = worker
            self._live.begin(worker)
            await self._work(self._asking(worker, store), output)

    def _made_worker(self, breaker: Breaker) -> Worker:
        job = self._job
        return Worker(
            self._provider,
            limiter=self._limiter,
            admission=self._admission,
            policy=RetryPolicy(retries=job.retry.retries),
            rules=self._rules,
            observer=self._observer,
            slots=self._slots.slots,
            params=job.prompt.params,
            judge=self._judge,
            prompt_s=job.timeout.prompt_s,
            hold_slot=self._order is None,
            rule=self._rule,
            attempt_ended=self._observer.attempt_ended,
            breaker=breaker,
            around=self._slots.around,
        )

    def _asking(self, worker: Worker, store: AnswerStore) -> Ask:
        """What asks for a prompt's answer: the worker, or what looks first whether there is one already."""
        job = self._job
        if not (job.dedup or job.reuse):
            return worker.complete_prompt
        return SharedAnswers(
            store,
            worker.complete_prompt,
            lambda prompt_id: self._judge(prompt_id, None),
            notice=lambda sentence: self._observer.notice(sentence, 0),
            dedup=job.dedup,
            rule=self._rule,
        ).complete

    async def _work(self, ask: Ask, output: RunOutput) -> None:
        job = self._job
        items = to_do(
            self._survey.items(output),
            output.completed,
            self._fingerprints.of,
            on_change=job.on_change,
            lenient=job.lenient,
            skipped=self._tally.skip,
            check=self.check_prompt if self._survey.looks_ahead else None,
        )
        source: PromptSource[ToDo] = PromptSource(items, ahead=self._slots.most)

        def handle(item: ToDo) -> Awaitable[None]:
            return self._handle(item, ask, delivery)

        # Twice as many tasks as slots: a prompt that waits for its next attempt leaves its slot to another.
        keep = self._admission.in_flight
        # Answers that are shared need no slot.
        slots = None if job.dedup or job.reuse else self._slots.slots
        metered: Source[ToDo]
        metered, handled = self._slots.metered(source, handle)
        self._pool = WorkerPool(metered, handled, tasks=2 * self._slots.most, keep=keep, slots=slots)
        if self._worker is not None and (second_s := job.stragglers.second_attempt_s):
            self._pool.ended = self._worker.allow_second_attempts(second_s, lambda: source.exhausted)
        delivery = Delivery(
            output,
            order=self._order,
            writing=self._pool.writing,
            tally=self._tally,
            observer=self._observer,
            failed=self._stop_for_results,
        )
        settings, found = self._reader.settings, self._found_ahead
        ahead = LookAhead(settings, lenient=job.lenient, found=found) if self._survey.looks_ahead else nullcontext()
        try:
            async with ahead:
                await self._pool.run()
        except* BatchchatError as group:
            raise group.exceptions[0] from None

    async def _handle(self, item: ToDo, ask: Ask, delivery: Delivery) -> None:
        """One item's whole life; an answer that arrived is written whatever happens meanwhile."""
        if isinstance(item, BatchchatError):
            self.stop(StopReason(kind="input", message=str(item)), exit_code=item.exit_code)
            return
        ticket = self._order.ticket() if self._order is not None else None
        try:
            if isinstance(item, InputFault):
                self._judge(item.id, None)
                await delivery.record(fault_outcome(item), ticket)
            else:
                deliver = delivery.record if ticket is None else partial(delivery.record, ticket=ticket)
                await ask(*item, deliver)
        except Abandoned:
            return
        finally:
            if self._order is not None and ticket is not None:
                self._order.leave(ticket)

    def _judge(self, prompt_id: PromptId, error: ProviderError | None) -> None:
        """Stops the run where a failure for good says that the prompts to come would fail as well."""
        if (reason := self._rules.failed(prompt_id, error)) is not None:
            self.stop(reason)

    def _deadline(self, left_s: float) -> None:
        """Sends nothing new; what is on the wire has the rest of the time to finish."""
        self.stop(StopReason(kind="limit", message=f"the run's --deadline of {self._job.timeout.run_s:g} s is reached"))
        asyncio.get_running_loop().call_later(left_s, self.abort)

    def _stop_for_service(self, sentence: str) -> None:
        self.stop(StopReason(kind="service", message=sentence))

    def _stop_for_results(self, sentence: str) -> None:
        """Results cannot be written: whatever else stopped the run, this is what the user must know."""
        if self._stop_reason is not None and self._stop_reason.kind != "results":
            self._observer.notice(sentence, 0)
            self._stop_reason, self._exit_code = None, None
        self.stop(StopReason(kind="results", message=sentence))

    def _first_signal(self, kind: Literal["interrupted", "terminated"]) -> None:
        if self._stop_reason is not None:  # it is stopping already; the user wants it over
            self.abort()
        self.stop(StopReason(kind=kind, message=f"{kind}; prompts in flight may finish, once more ends at once"))

    def _report(self, survey: Survey | None) -> RunReport:
        return final_report(
            self._tally,
            survey,
            reason=self._stop_reason,
            exit_code=self._exit_code,
            total=self._total,
            requests=self._limiter.admitted,
            spent=self._meter.budget.spent,
            price_sources=self._meter.prices.sources,
            second_attempts=0 if self._worker is None else self._worker.second_attempts,
            concurrency=self._slots.limit,
        )


def _is_done(survey: Survey | None) -> bool:
    return survey is not None and survey.completed == survey.total
