"""What asks the prompts of a run: its limits, its provider, its slots and the worker that uses them."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from batchchat.admission import Admission
from batchchat.breaker import Breaker
from batchchat.budget import Budget, Spent
from batchchat.config import JobConfig
from batchchat.errors import ProviderError
from batchchat.fingerprints import Fingerprints
from batchchat.job_setup import answer_rule, make_meter, make_provider, make_slots
from batchchat.limit_scope import make_limiter
from batchchat.limits import Limiter
from batchchat.live_figures import AtWork
from batchchat.observer import Observers
from batchchat.pool import InputOrder
from batchchat.prompts import PromptReader
from batchchat.providers.base import SharedNonce
from batchchat.records import Prompt, PromptId
from batchchat.results import RunFiles
from batchchat.retry import RetryPolicy
from batchchat.run_output import RunOutput
from batchchat.run_slots import RunSlots
from batchchat.shared_answers import AnswerStore, Ask, SharedAnswers
from batchchat.stopping import StopReason, StopRules
from batchchat.survey import ToDo
from batchchat.tally import Tally
from batchchat.window_watch import WindowWatch
from batchchat.worker import Worker

__all__ = ["Asking", "Asks", "Shared", "Work"]

Stop = Callable[[StopReason], None]
Judge = Callable[[PromptId, ProviderError | None], None]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What several workers of one run have in common; what is None, each run has of its own.

    Attributes:
        limiter: Makes what lets requests out.
        budget: Makes what holds and counts costs, of what is to be called when it is used up.
        nonce: See ``ProviderContext.shared_nonce``.
        keys: What ``asked_keys`` of the provider told where the run began.
    """

    limiter: Callable[[], Limiter] | None = None
    budget: Callable[[Callable[[str], None]], Budget] | None = None
    nonce: SharedNonce | None = None
    keys: list[str | None] | None = None


class Work(Protocol):
    """Asking what there is to do, once."""

    @property
    def exhausted(self) -> bool:
        """Whether every item has been taken."""

    async def run(self) -> None:
        """To the end of what there is to do, or of a drain; an answer that arrived is written whatever happens."""

    def drain(self) -> None:
        """Takes nothing new; what is on the wire may come to its end."""

    def abort(self) -> None:
        """Gives up what is on the wire too."""


class Asks(Protocol):
    """What a work needs of the run that it is part of."""

    @property
    def tally(self) -> Tally:
        """Counts its outcomes."""

    @property
    def observer(self) -> Observers:
        """Told of them."""

    def stop(self, reason: StopReason, *, exit_code: int | None = None) -> None:
        """Ends the run."""

    def stop_for_results(self, sentence: str) -> None:
        """Ends the run, as results cannot be written."""

    def judge(self, prompt_id: PromptId, error: ProviderError | None) -> None:
        """Told of each failure for good."""

    def all_read(self) -> bool:
        """Whether no prompt is left to begin, in this work or beside it."""


class Asking(ABC):
    """Made before a file is touched; ``prepared`` and ``opened`` before the first request.

    Args:
        stop: Ends the run.

    Attributes:
        check_prompt: Raises ``ConfigError`` for a prompt that the provider's settings do not fit.
        worker: Asks prompts; None before ``opened``.

    Raises:
        ConfigError: The job cannot be run as it is.
    """

    def __init__(
        self, job: JobConfig, observer: Observers, environ: Mapping[str, str], stop: Stop, shared: Shared | None = None
    ) -> None:
        shared = Shared() if shared is None else shared
        self.job, self._observer, self._stop = job, observer, stop
        over = lambda why: stop(StopReason(kind="limit", message=why))  # noqa: E731
        self.limiter = (
            make_limiter(job, observer, lambda: self.provider, over) if shared.limiter is None else shared.limiter()
        )
        self.meter = make_meter(job, observer, over, budget=shared.budget)
        self.admission = self._made_admission()
        self.slots = self._made_slots()
        self.provider = make_provider(
            job, self.admission, observer, environ, concurrency=self.slots.most, shared_nonce=shared.nonce
        )
        if shared.keys is not None:
            self.provider.take_keys(shared.keys)  # type: ignore[attr-defined]
        self.check_prompt: Callable[[Prompt], None] = self.meter.checking(getattr(self.provider, "check_prompt", None))
        self.rule = answer_rule(job)
        schema = None if self.rule is None else self.rule.schema
        self.fingerprints = Fingerprints(self.provider, job.prompt.params, schema)
        self.worker: Worker | None = None

    def _made_admission(self) -> Admission:
        return Admission(self.limiter, self.meter)

    def _made_slots(self) -> RunSlots:
        return make_slots(self.job.concurrency, self.job.processes, self.admission, self._observer.notice)

    @property
    def spent(self) -> Spent:
        """What the requests cost so far."""
        return self.meter.budget.spent

    def counted(self) -> tuple[int, int]:
        """Prompts answered and failed as far as others count them; see ``LiveFigures``."""
        return 0, 0

    @property
    def price_sources(self) -> tuple[str, ...]:
        """Where the prices come from."""
        return self.meter.prices.sources

    @property
    def second_attempts(self) -> int:
        """How many were sent."""
        return 0 if self.worker is None else self.worker.second_attempts

    async def prepare(
        self,
        stack: AsyncExitStack,
        files: RunFiles | None = None,
        total: int | None = None,
        left: int | None = None,
        remote: str | None = None,
    ) -> None:
        """Gets what is missing to ask at all: what cannot be had ends a run that has not begun.

        Args:
            stack: What is to be closed at the end of the run is put there.
            files: Of the run; None for a worker's.
            total: Prompts of the input; None where that is not known.
            left: Those that are to do.
            remote: URL of the results that those of ``files`` are the mirror of; None where they are none.
        """
        if (prepare := getattr(self.provider, "prepare", None)) is not None:
            await prepare()
        await stack.enter_async_context(self.limiter)

    @abstractmethod
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
        """What asks a run's items, once this is opened.

        Args:
            asks: The run.
            items: Read in a thread.
            reader: Where they come from.
            store: Answers that may be used again; None where each prompt is asked.
            order: Where outcomes wait for those before them; None for the order of completion.
            left: Prompts that are to do; None where that is not known.
        """

    @asynccontextmanager
    async def opened(self, rules: StopRules, judge: Judge, *, hold_slot: bool = True) -> AsyncIterator[None]:
        """The provider is ready and the worker is there; both end with the context."""
        job = self.job
        give_up = lambda sentence: self._stop(StopReason(kind="service", message=sentence))  # noqa: E731
        breaker = Breaker(job.breaker, self.limiter, self._observer, slots=self.slots.usual, give_up=give_up)
        async with self.provider, WindowWatch(job.run.windows(), self.limiter, self._observer), breaker, self.meter:
            self.worker = Worker(
                self.provider,
                limiter=self.limiter,
                admission=self.admission,
                policy=RetryPolicy(retries=job.retry.retries),
                rules=rules,
                observer=self._observer,
                slots=self.slots.slots,
                params=job.prompt.params,
                judge=judge,
                prompt_s=job.timeout.prompt_s,
                hold_slot=hold_slot,
                rule=self.rule,
                attempt_ended=self._observer.attempt_ended,
                breaker=breaker,
                around=self.slots.around,
            )
            yield

    def ask(self, judge: Judge, store: AnswerStore | None) -> Ask:
        """What asks for a prompt's answer: the worker, or what looks first whether there is one already."""
        worker = self.opened_worker
        if store is None:
            return worker.complete_prompt
        return SharedAnswers(
            store,
            worker.complete_prompt,
            lambda prompt_id: judge(prompt_id, None),
            notice=lambda sentence: self._observer.notice(sentence, 0),
            dedup=self.job.dedup,
            rule=self.rule,
        ).complete

    @property
    def at_work(self) -> AtWork | None:
        """What figures are told of; None before ``opened``."""
        return self.worker

    @property
    def opened_worker(self) -> Worker:
        """The worker, once there is one."""
        if self.worker is None:
            raise RuntimeError("asked before 'opened'")
        return self.worker
