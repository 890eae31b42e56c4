"""One run of one job: what it holds, what stops it, how it ends."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Literal

import msgspec

from batchchat.asking import Asking, Work
from batchchat.config import JobConfig
from batchchat.control.run_control import RunControl
from batchchat.errors import ProviderError
from batchchat.input_survey import InputSurvey
from batchchat.job_setup import checked_files, make_rules, output_settings, warnings
from batchchat.live_figures import LiveFigures
from batchchat.look_ahead import Found, LookAhead
from batchchat.observer import Observers, RunPlan, RunReport
from batchchat.pool import InputOrder
from batchchat.pool_work import LocalAsking
from batchchat.prompts import PromptReader
from batchchat.records import PromptId
from batchchat.run_output import RunOutput, close_output, open_output
from batchchat.run_report import EXIT_CODES, final_report
from batchchat.run_signals import RunSignals
from batchchat.shared_answers import AnswerStore
from batchchat.shown_settings import shown_settings
from batchchat.stopping import StopReason, StopRules
from batchchat.survey import Survey, to_do
from batchchat.tally import Tally

if TYPE_CHECKING:
    from batchchat.mirrors.mirror import Mirror

__all__ = ["JobRun"]

# Of a run's deadline, what is on the wire has the last part to finish: this share, at most the grace time.
_SHARE_TO_FINISH = 0.05


class JobRun:
    """The state of one run; used once.

    Args:
        made: Makes what asks the prompts, in this process or elsewhere; see ``Asking``.
        mirror: Where results in a store are written first; None for results in a file.
    """

    def __init__(
        self,
        job: JobConfig,
        observer: Observers,
        environ: Mapping[str, str],
        made: Callable[..., Asking] = LocalAsking,
        mirror: "Mirror | None" = None,
    ) -> None:
        self._job, self.observer, self._mirror = job, observer, mirror
        self._files = checked_files(job)
        self._stop_reason: StopReason | None = None
        self._work: Work | None = None
        self._order = InputOrder() if job.output.order == "input" else None
        self._asking = made(job, observer, environ, self.stop)
        self.check_prompt = self._asking.check_prompt
        self._reader = PromptReader(job.input_settings())
        self.tally = Tally()
        self._rules = StopRules()
        self._exit_code: int | None = None
        self._survey = InputSurvey(
            job,
            self._files,
            self._reader,
            fingerprints=self._asking.fingerprints,
            check=self.check_prompt,
            notice=lambda sentence: observer.notice(sentence, 0),
            stopped=lambda: self._stop_reason is not None,
        )
        self._total: int | None = None
        self._settings = shown_settings(job)
        limiter, admission, slots = self._asking.limiter, self._asking.admission, self._asking.slots.slots
        self._live = LiveFigures(
            limiter=limiter, admission=admission, tally=self.tally, slots=slots, spent=lambda: self._asking.spent
        )
        self._live.counted = self._asking.counted
        self._control = RunControl(
            self._files,
            limiter=limiter,
            admission=admission,
            tally=self.tally,
            slots=slots,
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
            output = await open_output(self._files, output_settings(self._job), self._mirror)
            troubles: list[str] = []
            whole = False
            try:
                for sentence in output.repairs:
                    self.observer.notice(sentence, 0)
                async with self._control:
                    survey = await self._survey.read(output)
                    with AnswerStore() as store:
                        await self._load_answers(store, survey)
                        await self._ask_all(output, survey, store)
                whole = self._stop_reason is None and self._job.limit is None and self._job.sample is None
            finally:
                if timer is not None:
                    timer.cancel()
                # An errors file that is asked again and was not asked to its end holds what is still to be asked.
                keep_errors = self._survey.errors_are_input and not whole
                troubles = await close_output(output, keep_errors=keep_errors)
            if keep_errors:
                self.observer.notice(f"{self._files.errors} stays as it was, as prompts in it are still to be asked", 0)
            for sentence in troubles:
                told = self._stop_reason
                if told is None or told.kind != "results":
                    self.stop_for_results(sentence)
                elif sentence and sentence != told.message:  # also where answers went that came since
                    self.observer.notice(sentence, 0)
            report = self._report(survey)
            if (trouble := output.write_report(report, self._settings)) is not None:
                self.observer.notice(trouble, 0)
            self.observer.run_finished(report)
            return report

    def stop(self, reason: StopReason, *, exit_code: int | None = None) -> None:
        """Sends nothing new; what is on the wire may come to its end within the grace time. The first reason counts."""
        if self._stop_reason is not None:
            return
        self._stop_reason = reason
        self._exit_code = exit_code
        self._asking.admission.close()
        if reason.message:
            self.observer.notice(f"stopping: {reason.message}", 0)
        if self._work is not None:
            self._work.drain()
            asyncio.get_running_loop().call_later(self._job.grace_s, self.abort)

    def abort(self) -> None:
        """Gives up what is on the wire, and what goes on with a store of the results."""
        self._asking.admission.close()
        if self._mirror is not None:
            self._mirror.give_up()
        if self._work is not None:
            self._work.abort()

    def _found_ahead(self, found: Found) -> None:
        """What the whole of a big input holds, while the run is somewhere in it."""
        if found.fault is not None:
            message = f"{found.fault}; 'batchchat check' finds this before a run"
            self.stop(StopReason(kind="input", message=message), exit_code=EXIT_CODES["input"])
            return
        self._total = found.total
        if (plan := self._live.plan) is not None:
            self._live.plan = msgspec.structs.replace(plan, total=found.total, counting=False)
            self.observer.plan_changed(self._live.plan)

    async def _load_answers(self, store: AnswerStore, survey: Survey | None) -> None:
        """Takes in what may be reused, before a file is touched: one that cannot be read leaves all as it was."""
        job = self._job
        if not (job.dedup or job.reuse) or self._stop_reason is not None or _is_done(survey):
            return
        own = self._files.results if job.dedup and not self._files.stream else None
        stopped = lambda: self._stop_reason is not None  # noqa: E731
        for sentence in await asyncio.to_thread(store.load, job.reuse, own, cancelled=stopped):
            self.observer.notice(sentence, 0)

    async def _ask_all(self, output: RunOutput, survey: Survey | None, store: AnswerStore) -> None:
        total = None if survey is None else survey.total
        plan = RunPlan(
            total=total,
            completed=0 if survey is None else survey.completed,
            concurrency=self._asking.slots.most,
            output=self._files.results,
            finds_concurrency=self._asking.slots.found,
            counting=self._survey.looks_ahead,
        )
        self._rules = make_rules(self._job, total)
        async with AsyncExitStack() as stack:
            if self._stop_reason is None and not _is_done(survey):
                left = None if total is None else total - plan.completed
                remote = None if self._mirror is None else self._mirror.place.remote.results
                await self._asking.prepare(stack, self._files, total, left, remote)
            await self._begin(output, survey, plan, store)

    async def _begin(self, output: RunOutput, survey: Survey | None, plan: RunPlan, store: AnswerStore) -> None:
        job, total, completed = self._job, plan.total, plan.completed
        trouble = output.begin(self._settings, lambda error: self.stop_for_results("" if error.quiet else str(error)))
        if trouble is not None:
            self.observer.notice(trouble, 0)
        self._live.plan = plan
        self.observer.figures_at_hand(self._live.now)
        self.observer.run_started(plan)
        for warning in warnings(job, self._files, self._asking.slots.most, 0 if total is None else total - completed):
            self.observer.notice(warning, 0)
        if self._stop_reason is not None or _is_done(survey):
            return
        await self._asking.meter.prepare()
        if self._stop_reason is not None:
            return
        async with self._asking.opened(self._rules, self.judge, hold_slot=self._order is None):
            if self._stop_reason is not None:
                return
            if (worker := self._asking.at_work) is not None:
                self.tally.attempts = worker.attempts
                self._live.begin(worker)
            await self._do(output, store)

    async def _do(self, output: RunOutput, store: AnswerStore) -> None:
        items = to_do(
            self._survey.items(output),
            output.completed,
            self._asking.fingerprints.of,
            on_change=self._job.on_change,
            lenient=self._job.lenient,
            skipped=self.tally.skip,
            check=self.check_prompt if self._survey.looks_ahead else None,
        )
        kept = store if self._job.dedup or self._job.reuse else None
        plan = self._live.plan
        left = None if plan is None or plan.total is None else plan.total - plan.completed
        self._work = self._asking.work(
            self, items, output, reader=self._reader, store=kept, order=self._order, left=left
        )
        settings, found = self._reader.settings, self._found_ahead
        lenient = self._job.lenient
        ahead = LookAhead(settings, lenient=lenient, found=found) if self._survey.looks_ahead else nullcontext()
        async with ahead:
            await self._work.run()

    def judge(self, prompt_id: PromptId, error: ProviderError | None) -> None:
        """Stops the run where a failure for good says that the prompts to come would fail as well."""
        if (reason := self._rules.failed(prompt_id, error)) is not None:
            self.stop(reason)

    def all_read(self) -> bool:
        """Whether no prompt is left to begin."""
        return self._work is not None and self._work.exhausted

    def _deadline(self, left_s: float) -> None:
        """Sends nothing new; what is on the wire has the rest of the time to finish."""
        self.stop(StopReason(kind="limit", message=f"the run's --deadline of {self._job.timeout.run_s:g} s is reached"))
        asyncio.get_running_loop().call_later(left_s, self.abort)

    def stop_for_results(self, sentence: str) -> None:
        """Results cannot be written: whatever else stopped the run, this is what the user must know."""
        if self._stop_reason is not None and self._stop_reason.kind != "results":
            self.observer.notice(sentence, 0)
            self._stop_reason, self._exit_code = None, None
        self.stop(StopReason(kind="results", message=sentence))

    def _first_signal(self, kind: Literal["interrupted", "terminated"]) -> None:
        if self._stop_reason is not None:  # it is stopping already; the user wants it over
            self.abort()
        self.stop(StopReason(kind=kind, message=f"{kind}; prompts in flight may finish, once more ends at once"))

    def _report(self, survey: Survey | None) -> RunReport:
        return final_report(
            self.tally,
            survey,
            reason=self._stop_reason,
            exit_code=self._exit_code,
            total=self._total,
            requests=self._asking.limiter.admitted,
            spent=self._asking.spent,
            price_sources=self._asking.price_sources,
            second_attempts=self._asking.second_attempts,
            concurrency=self._asking.slots.limit,
        )


def _is_done(survey: Survey | None) -> bool:
    return survey is not None and survey.completed == survey.total
