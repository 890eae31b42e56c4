"""What a run is doing at this moment, worked out when somebody asks."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from batchchat.admission import Admission
from batchchat.budget import Spent
from batchchat.durations import limit_per_s
from batchchat.life import Life
from batchchat.limits import Limiter
from batchchat.observer import RunFigures, RunPlan, SlowPrompt
from batchchat.pace import time_left_s
from batchchat.records import PromptId
from batchchat.slots import Slots
from batchchat.tally import Tally

__all__ = ["AtWork", "LiveFigures"]

_MOST_TEXT = 200
_INT_BITS = 64


class AtWork(Protocol):
    """What asks the prompts; see ``Worker``."""

    @property
    def attempts(self) -> dict[str, int]:
        """Attempts by what came of them."""

    @property
    def lives(self) -> Mapping["asyncio.Task[Any]", Life]:
        """The prompts that are under way in this process."""


class LiveFigures:
    """The figures of one run; every call is for its event loop and costs a look at each prompt under way.

    Attributes:
        plan, worker: Of the run, once it has them.
        spent: Gives what its requests cost so far.
        counted: Gives how many prompts were answered and failed by others' count, whose lines may be on the way.
    """

    def __init__(
        self, *, limiter: Limiter, admission: Admission, tally: Tally, slots: Slots, spent: Callable[[], Spent]
    ) -> None:
        self._limiter, self._admission, self._tally, self._slots = limiter, admission, tally, slots
        self.spent = spent
        self.counted: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.plan: RunPlan | None = None
        self.worker: AtWork | None = None
        tally.pace.clock = lambda: time.monotonic() - limiter.held_s

    def begin(self, worker: AtWork) -> None:
        """The first request is about to go out."""
        self.worker = worker
        self._tally.pace.begin()

    def now(self) -> RunFigures:
        """All of them, for observers that look while the run is at work."""
        tally, limiter, spent = self._tally, self._limiter, self.spent()
        return RunFigures(
            answered=self.answered,
            reused=tally.reused,
            failed=self.failed,
            in_flight=self._admission.on_wire,
            requests=limiter.admitted,
            attempts=dict(tally.attempts),
            usage=spent.usage,
            cost_usd=None if spent.cost_usd is None else float(spent.cost_usd),
            holds=tuple(sorted(limiter.holds)),
            concurrency=self._slots.limit,
            retrying=self.retrying(),
            per_s=round(tally.pace.per_s, 6),
            rates=tuple(map(str, limiter.rates)),
            service_wait_s=round(limiter.paused_s, 3),
            left_s=self.left_s(),
            slowest=next(iter(self.slow(1)), None),
        )

    @property
    def answered(self) -> int:
        """Prompts that this run has answered."""
        return max(self._tally.answered, self.counted()[0])

    @property
    def failed(self) -> int:
        """Prompts that failed in this run."""
        return max(self._tally.failed, self.counted()[1])

    def answered_before(self) -> int:
        """Prompts with an answer from earlier runs."""
        return self._tally.skipped if self.plan is None else self.plan.completed or self._tally.skipped

    def retrying(self) -> int:
        """Prompts that wait for their next attempt."""
        return sum(1 for life in self._lives().values() if life.attempts and not life.holds_slot)

    def left_s(self) -> float | None:
        """Seconds until the end; None while something holds the run up, and where the total is not known."""
        total = None if self.plan is None else self.plan.total
        if total is None or self._limiter.holds or self.worker is None:
            return None
        finished = self.answered + self.failed
        now = asyncio.get_running_loop().time()
        left_s = time_left_s(
            total - self.answered_before() - finished,
            self._tally.pace.per_s,
            requests_each=sum(self._tally.attempts.values()) / finished if finished else 1.0,
            most_per_s=limit_per_s(self._limiter.rates),
            wait_s=self._limiter.paused_s,
            last_wait_s=max((life.due_at - now for life in self._lives().values()), default=0.0),
        )
        return None if left_s is None else round(left_s, 1)

    def slow(self, most: int) -> tuple[SlowPrompt, ...]:
        """The prompts that are under way for longest, at most so many."""
        now, found = time.monotonic(), []
        for task, life in self._lives().items():
            if (began_at := self._admission.began_at(task)) is not None:
                found.append((now - began_at, task, life))
        found.sort(key=lambda entry: -entry[0])
        return tuple(self._slow(*entry) for entry in found[:most])

    def _slow(self, seconds: float, task: "asyncio.Task[Any]", life: Life) -> SlowPrompt:
        error = life.last_error
        return SlowPrompt(
            id=_short(life.prompt.id),
            seconds=round(seconds, 1),
            attempt=life.attempts,
            in_flight=task in self._admission.in_flight,
            last_error=None if error is None else _shortened(f"{error.type}: {error.message}"),
        )

    def _lives(self) -> "Mapping[asyncio.Task[Any], Life]":
        return {} if self.worker is None else self.worker.lives


def _short(prompt_id: PromptId) -> PromptId:
    """As it is, where it is a number that JSON libraries take."""
    if isinstance(prompt_id, int) and prompt_id.bit_length() < _INT_BITS:
        return prompt_id
    return _shortened(str(prompt_id))


def _shortened(text: str) -> str:
    """Cut to what one may read, in characters that every program takes."""
    text = text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
    return text.encode("utf-8", "replace").decode()
