"""What driver, desk and workers tell each other."""

from typing import Any

import msgspec

from batchchat.budget import Spent
from batchchat.durations import Rate
from batchchat.job_config import JobConfig
from batchchat.processes.messages import CarriedError
from batchchat.records import PromptId
from batchchat.run_output import OutputSettings
from batchchat.shards.shard import Trouble
from batchchat.shards.work_place import WorkPlace
from batchchat.stopping import StopReason

__all__ = [
    "ABORT",
    "DRAIN",
    "GO",
    "MOST_ATTEMPTS",
    "DeskOpening",
    "FailedAttempt",
    "FailedPrompt",
    "Figures",
    "Ready",
    "Sight",
    "Told",
    "Word",
    "WorkerOpening",
]

# How far a run is from its end: it goes on, sends nothing new, gives up what is on the wire.
GO, DRAIN, ABORT = range(3)
# Failed attempts that wait to be told; of more, the user is told of the last ones.
MOST_ATTEMPTS = 500


class WorkerOpening(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is made of.

    Attributes:
        number: From 1.
        job: Its paths are absolute, its concurrency is the worker's share.
        environ: Where keys and proxies are looked up.
        keys: What ``asked_keys`` of the provider told where the run began; None where it tells none.
        place: Where parts go.
        output: How lines are written.
        carried: Variables of the environment that libraries look up by themselves, as the run has them.
    """

    number: int
    job: JobConfig
    environ: dict[str, str]
    keys: list[str | None] | None
    place: WorkPlace
    output: OutputSettings
    carried: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A worker is there: its version of batchchat, where it is, and why it cannot work after all."""

    version: str
    host: str
    trouble: Trouble | None = None


class DeskOpening(msgspec.Struct, frozen=True, kw_only=True):
    """What the desk is made of.

    Attributes:
        rates, burst, tokens_per_minute: The limits of the run.
        budget_usd: What it may cost.
        rules: Arguments of ``StopRules``.
        memory: Path of what outlives the desk, without an ending.
    """

    rates: tuple[Rate, ...]
    burst: int
    tokens_per_minute: int | None
    budget_usd: float | None
    rules: dict[str, Any]
    memory: str


class FailedPrompt(msgspec.Struct, frozen=True, array_like=True):
    """A failure for good; ``answers`` came since the one before, of the same worker."""

    id: PromptId
    error: CarriedError | None
    answers: int = 0


class FailedAttempt(msgspec.Struct, frozen=True, array_like=True):
    """See ``RunObserver.attempt_failed``."""

    id: PromptId
    number: int
    error: CarriedError
    retried: bool


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker has done so far.

    Attributes:
        completed: Prompts that were answered.
        failed: Prompts that failed.
        attempts: By what came of them.
        requests: That were let out.
        second_attempts: That were sent.
        in_flight, retrying: At the moment.
        slots: Prompts that may be in flight at the moment.
        spent: Sums of costs.
        price_sources: Where their prices come from.
    """

    completed: int = 0
    failed: int = 0
    attempts: dict[str, int] = {}
    requests: int = 0
    second_attempts: int = 0
    in_flight: int = 0
    retrying: int = 0
    slots: int = 0
    spent: Spent = Spent()
    price_sources: tuple[str, ...] = ()


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells the desk.

    Attributes:
        worker: Number of the worker.
        life: Another name after each start of it.
        number: Grows with each of them, so that none counts twice; 0 for what is told once and not again.
        figures: As of now.
        failures: Since it told last, in their order.
        answers: Answers since the last of these.
        notices: For the user: sentence and level.
        attempts: That failed since, the last few.
        stop: Why the worker would end the run.
        last: Whether this life of the worker is over.
    """

    worker: int
    life: str
    number: int = 0
    figures: Figures
    failures: tuple[FailedPrompt, ...] = ()
    answers: int = 0
    notices: tuple[tuple[str, int], ...] = ()
    attempts: tuple[FailedAttempt, ...] = ()
    stop: StopReason | None = None
    last: bool = False


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What the desk tells all workers.

    Attributes:
        desk: Grows with each start of the desk.
        revision: Grows with each change, and with each start of the desk.
        stage: ``GO``, ``DRAIN`` or ``ABORT``.
        all_cut: Whether no shard is left to begin.
        give_back: Whether workers are to give back what they need not of the budget.
    """

    desk: int
    revision: int
    stage: int = GO
    all_cut: bool = False
    give_back: bool = False


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What the desk tells the driver.

    Attributes:
        desk, revision: See ``Word``.
        figures: Of all workers.
        notices: Since the driver looked last.
        attempts: That failed since, the last few.
        stop: Why the run is to end.
    """

    desk: int
    revision: int
    figures: Figures
    notices: tuple[tuple[str, int], ...] = ()
    attempts: tuple[FailedAttempt, ...] = ()
    stop: StopReason | None = None
