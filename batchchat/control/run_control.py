"""What a run tells and does when it is asked through its socket."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from batchchat.admission import Admission
from batchchat.control.messages import Hold, Live, Reply, Request, SlowPrompt
from batchchat.control.server import ControlServer
from batchchat.durations import Rate, parse_rate
from batchchat.life import Life
from batchchat.limits import Limiter
from batchchat.observer import RunPlan
from batchchat.records import PromptId
from batchchat.results import RunFiles
from batchchat.slots import Slots
from batchchat.tally import Tally
from batchchat.worker import Worker

__all__ = ["RunControl"]

_PAUSED = "paused"
_SLOW, _MOST_TEXT, _MOST_RATES = 5, 200, 16


class RunControl:
    """One run's answers to other processes; entered, it listens.

    Attributes:
        plan, worker: Of the run, once it has them.
    """

    def __init__(
        self,
        files: RunFiles,
        *,
        limiter: Limiter,
        admission: Admission,
        tally: Tally,
        slots: Slots,
        notice: Callable[[str, int], None],
    ) -> None:
        self._files, self._limiter, self._admission, self._tally = files, limiter, admission, tally
        self._slots, self._notice = slots, notice
        self._server: ControlServer | None = None
        self._began = time.monotonic()
        self.plan: RunPlan | None = None
        self.worker: Worker | None = None

    async def __aenter__(self) -> "RunControl":
        if not self._files.stream:
            self._server = ControlServer(self._files.results, self.answer, lambda why: self._notice(why, 1))
            await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.__aexit__()

    def begin(self, plan: RunPlan, worker: Worker) -> None:
        """The first request is about to go out."""
        self.plan, self.worker, self._began = plan, worker, time.monotonic()

    def answer(self, request: Request) -> Reply:
        """Does what is asked."""
        if request.command == "status":
            return Reply(done=True, live=self.live())
        if self._admission.closed:
            return Reply(done=False, message="the run is stopping and sends nothing new", live=self.live())
        if request.command == "set-rate":
            return self._set_rate(request.rates)
        return self._pause() if request.command == "pause" else self._resume()

    def _pause(self) -> Reply:
        if _PAUSED not in self._limiter.holds:
            self._limiter.hold(_PAUSED)
            self._notice(
                "paused from another shell: nothing new is sent until 'batchchat resume'; what is on its way may "
                "finish",
                0,
            )
        count = len(self._admission.in_flight)
        on_way = "nothing is on its way" if not count else f"what is on its way ({count}) may finish"
        return Reply(done=True, message=f"paused; nothing new is sent, {on_way}", live=self.live())

    def _resume(self) -> Reply:
        was_paused = _PAUSED in self._limiter.holds
        self._limiter.release(_PAUSED)
        if was_paused:
            self._notice("resumed from another shell", 0)
        message = "resumed" if was_paused else "the run was not paused"
        if others := ", ".join(sorted(self._limiter.holds)):
            message += f"; it is still held ({others})"
        return Reply(done=True, message=message, live=self.live())

    def _set_rate(self, texts: tuple[str, ...]) -> Reply:
        if len(texts) > _MOST_RATES:
            return Reply(done=False, message=f"found {len(texts)} rates, expected at most {_MOST_RATES}")
        try:
            rates = tuple(parse_rate(text) for text in texts)
        except ValueError as error:
            return Reply(done=False, message=str(error))
        if rates != self._limiter.rates:
            before = _named(self._limiter.rates)
            self._limiter.set_rates(rates)
            self._notice(f"rate set from another shell: {_named(rates)}, before {before}", 0)
        return Reply(done=True, message=f"rate {_named(rates)}", live=self.live())

    def live(self) -> Live:
        """The run as it is at this moment."""
        limiter, tally, plan, lives = self._limiter, self._tally, self.plan, self._lives()
        total = None if plan is None else plan.total
        before = tally.skipped if plan is None else plan.completed or tally.skipped
        return Live(
            pid=os.getpid(),
            state=self._state(),
            total=total,
            answered_before=before,
            answered=tally.answered,
            failed=tally.failed,
            in_flight=len(self._admission.in_flight),
            concurrency=self._slots.limit,
            waiting=limiter.waiting,
            retrying=sum(1 for life in lives.values() if life.attempts and not life.holds_slot),
            requests=limiter.admitted,
            attempts=dict(tally.attempts),
            per_s=limiter.sent_per_s(),
            rates=tuple(map(str, limiter.rates)),
            holds=self._holds(),
            service_wait_s=round(limiter.paused_s, 3),
            left_s=None if total is None else self._left_s(total - before),
            slow=self._slow(),
        )

    def _state(self) -> Literal["starting", "running", "held", "stopping"]:
        if self._admission.closed:
            return "stopping"
        if self._limiter.holds:
            return "held"
        return "starting" if self.worker is None else "running"

    def _holds(self) -> tuple[Hold, ...]:
        now, at = datetime.now(UTC), asyncio.get_running_loop().time()
        return tuple(
            Hold(why=why, since=(now - timedelta(seconds=at - since)).replace(microsecond=0))
            for why, since in self._limiter.held_since.items()
        )

    def _left_s(self, prompts: int) -> float | None:
        """Seconds until the end, if prompts finish as fast as they did while the run was not held."""
        finished = self._tally.answered + self._tally.failed
        worked_s = time.monotonic() - self._began - self._limiter.held_s
        if not finished or self._limiter.holds or worked_s <= 0:
            return None
        return round(max(0, prompts - finished) * worked_s / finished, 1)

    def _slow(self) -> tuple[SlowPrompt, ...]:
        now, found = time.monotonic(), []
        for task, life in self._lives().items():
            if (began_at := self._admission.began_at(task)) is not None:
                error = life.last_error
                found.append(
                    SlowPrompt(
                        id=_short(life.prompt.id),
                        seconds=round(now - began_at, 1),
                        attempt=life.attempts,
                        in_flight=task in self._admission.in_flight,
                        last_error=None if error is None else _shortened(f"{error.type}: {error.message}"),
                    )
                )
        return tuple(sorted(found, key=lambda prompt: -prompt.seconds)[:_SLOW])

    def _lives(self) -> "Mapping[asyncio.Task[Any], Life]":
        return {} if self.worker is None else self.worker.lives


def _named(rates: tuple[Rate, ...]) -> str:
    return " and ".join(map(str, rates)) if rates else "none"


def _short(prompt_id: PromptId) -> PromptId:
    return _shortened(prompt_id) if isinstance(prompt_id, str) else prompt_id


def _shortened(text: str) -> str:
    """Cut to what one may read, in characters that every program takes."""
    text = text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
    return text.encode("utf-8", "replace").decode()
