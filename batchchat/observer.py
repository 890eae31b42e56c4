"""What a run tells the outside, as plain calls; observers only listen, they never steer."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from batchchat.errors import ErrorType, ProviderError
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion, Outcome, PromptId, Usage

__all__ = [
    "AttemptReport",
    "ExitReason",
    "FailureGroup",
    "HoldObserver",
    "Observers",
    "RunFigures",
    "RunObserver",
    "RunPlan",
    "RunReport",
    "SlowPrompt",
]

ExitReason = str
_OPTIONAL = ("figures_at_hand", "attempt_ended", "run_held", "plan_changed")


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is about to do.

    Attributes:
        total: Prompts of the input; None where it is a stream whose end is not known.
        completed: Prompts that have an answer already.
        concurrency: Prompts that will be in flight at the same time, at most.
        finds_concurrency: Whether their number is found out while the run goes on (``--concurrency auto``).
        output: Results path as the user wrote it.
        counting: Whether the total is being counted beside the run; ``plan_changed`` tells of it.
    """

    total: int | None
    completed: int
    concurrency: int
    output: str
    finds_concurrency: bool = False
    counting: bool = False


class FailureGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Failures of one type: how many, and the message and id of the first."""

    type: ErrorType
    count: int
    message: str
    example_id: PromptId


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    Attributes:
        exit_code: Exit code of the command line for this end.
        reason: ``completed``, ``failures``, ``service``, ``limit``, ``results``, ``input``, ``interrupted``
            or ``terminated``.
        message: One sentence on what stopped the run; None where it came to its end.
        total: Prompts of the input; None where the input was a stream that was not read to its end.
        answered_before, answered, failed: Prompts with an answer from earlier runs, from this one; failures of
            this one.
        reused: Answers of this run that were taken from equal prompts or other runs.
        pending: Prompts left to do; None where the total is not known.
        usage: Tokens of every attempt of this run that cost something, failed ones too; counted by the service or
            estimated.
        attempts: HTTP exchanges of this run by what came of them: ``answered`` or an error type.
        requests: All requests that were let out, fetches of nonces included.
        second_attempts: Requests that went out beside a slow one for the same prompt; of two that were sent one was
            given up, and counts as ``cancelled`` in ``attempts``.
        first_answers: Id and text of the first answers of this run, at most three.
        estimated_requests: Requests any part of whose usage is an estimate.
        cost_usd: US dollars for ``usage``; None where a model has no price.
        unpriced: Models without a price, the empty name where none is told; each with its number of requests.
        concurrency: Prompts that might be in flight at the end; with ``--concurrency auto``, the number found.
        price_sources: Where the prices come from: ``the job``, ``genai-prices 0.2.3``.
    """

    exit_code: int
    reason: ExitReason
    message: str | None
    total: int | None
    answered_before: int
    answered: int
    failed: int
    pending: int | None
    started_at: datetime
    finished_at: datetime
    duration_s: float
    usage: Usage
    attempts: dict[str, int]
    requests: int
    failures: Sequence[FailureGroup]
    first_answers: Sequence[tuple[PromptId, str]]
    reused: int = 0
    estimated_requests: int = 0
    cost_usd: float | None = None
    unpriced: dict[str, int] = {}
    price_sources: tuple[str, ...] = ()
    second_attempts: int = 0
    concurrency: int | None = None


class SlowPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that is under way.

    Attributes:
        id: As the input has it; a long text is cut.
        seconds: Since its first request.
        attempt: Number of its last request, from 1.
        in_flight: Whether that is on its way; else the prompt waits for the next one.
        last_error: Type and message of its last failed attempt; None for none.
    """

    id: PromptId
    seconds: float
    attempt: int
    in_flight: bool
    last_error: str | None = None


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has done so far, at one moment; the fields are those of ``RunReport``.

    Attributes:
        in_flight: Requests on the wire.
        holds: Why nothing goes out at the moment, a word each: ``paused``.
        concurrency: Prompts that may be in flight at the moment.
        retrying: Prompts that wait for their next attempt.
        per_s: Prompts that finish in a second, lately; time in which the run was held up does not count.
        rates: In force at the moment, as ``200/s``; empty for no limit.
        service_wait_s: Seconds that the service asks to wait still; 0 for none.
        left_s: Seconds until the end; None where that cannot be told.
        slowest: The prompt on its way for longest; None for none.
    """

    answered: int
    reused: int
    failed: int
    in_flight: int
    requests: int
    attempts: Mapping[str, int]
    usage: Usage
    cost_usd: float | None
    holds: Sequence[str] = ()
    concurrency: int | None = None
    retrying: int = 0
    per_s: float = 0.0
    rates: Sequence[str] = ()
    service_wait_s: float = 0.0
    left_s: float | None = None
    slowest: SlowPrompt | None = None


class AttemptReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended.

    Attributes:
        number: From 1, over all the requests of its prompt.
        request: What was asked, as the provider was given it.
        duration_s: Seconds from the request's way to the wire to its end; waits for a rate are not in it.
        completion: The answer; None where there is none.
        error_type: ``timeout``, ``server`` …; ``cancelled`` for one that was given up. None for an answer.
        status: HTTP status of a failed one, where one came.
    """

    prompt_id: PromptId
    number: int
    request: ChatRequest
    duration_s: float
    completion: Completion | None = None
    error_type: str | None = None
    status: int | None = None


class RunObserver(Protocol):
    """Listens to a run; calls come on the run's event loop and must return at once.

    An observer may also have ``figures_at_hand(figures)``, called before ``run_started`` with a function that gives
    the ``RunFigures`` of the moment (on the event loop), ``plan_changed(plan)``, called when the total of a big input
    is known, and ``attempt_ended(report)``, called with the ``AttemptReport`` of every attempt. A run that nobody
    watches so does not count for it.
    """

    def run_started(self, plan: RunPlan) -> None:
        """The input is checked, the first request is about to go out."""

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Attempt ``number`` (from 1) of a prompt failed; ``retried`` tells whether another one follows."""

    def prompt_finished(self, outcome: Outcome) -> None:
        """A prompt's outcome is in its file."""

    def notice(self, message: str, level: int) -> None:
        """Something worth telling: level 0 is a warning, 1 and 2 are for ``-v`` and ``-vv``."""

    def run_finished(self, report: RunReport) -> None:
        """All files are closed."""


class HoldObserver(Protocol):
    """What an observer may have besides, to hear of times in which a run sends nothing new."""

    def run_held(self, word: str, why: str | None) -> None:
        """Nothing new goes out, for a reason in words fit for a line of progress; None where the reason is gone.

        Args:
            word: Which reason: ``window``, ``paused``, ``breaker``.
        """

    def notice(self, message: str, level: int) -> None:
        """See ``RunObserver``."""


class Observers:
    """Several observers told as one; one that raises is told nothing more, as a listener must not end a run."""

    def __init__(self, observers: Sequence[RunObserver]) -> None:
        self._observers = list(observers)

    def run_started(self, plan: RunPlan) -> None:
        """See ``RunObserver``."""
        self._tell("run_started", plan)

    def plan_changed(self, plan: RunPlan) -> None:
        """See ``RunObserver``."""
        self._tell("plan_changed", plan)

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """See ``RunObserver``."""
        self._tell("attempt_failed", prompt_id, number, error, retried)

    def prompt_finished(self, outcome: Outcome) -> None:
        """See ``RunObserver``."""
        self._tell("prompt_finished", outcome)

    def notice(self, message: str, level: int) -> None:
        """See ``RunObserver``."""
        self._tell("notice", message, level)

    def run_held(self, word: str, why: str | None) -> None:
        """See ``HoldObserver``."""
        self._tell("run_held", word, why)

    def run_finished(self, report: RunReport) -> None:
        """See ``RunObserver``."""
        self._tell("run_finished", report)

    def figures_at_hand(self, figures: Callable[[], RunFigures]) -> None:
        """See ``RunObserver``."""
        self._tell("figures_at_hand", figures)

    @property
    def attempt_ended(self) -> Callable[[AttemptReport], None] | None:
        """What is to be told of every attempt; None where no observer wants to know."""
        if not any(hasattr(observer, "attempt_ended") for observer in self._observers):
            return None
        return lambda report: self._tell("attempt_ended", report)

    def _tell(self, event: str, *arguments: Any) -> None:
        if not self._observers:
            return
        for observer in tuple(self._observers):
            if event in _OPTIONAL and not hasattr(observer, event):
                continue
            try:
                getattr(observer, event)(*arguments)
            except Exception as error:
                self._observers.remove(observer)
                name = type(observer).__name__
                warnings.warn(
                    f"observer {name} raised {error!r} and is told nothing more", RuntimeWarning, stacklevel=3
                )
