"""What a run tells and does when it is asked through its socket."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

from batchchat.admission import Admission
from batchchat.control.messages import Hold, Live, Reply, Request
from batchchat.control.server import ControlServer
from batchchat.durations import Rate, parse_rate
from batchchat.limits import Limiter
from batchchat.live_figures import LiveFigures
from batchchat.results import RunFiles
from batchchat.slots import Slots
from batchchat.tally import Tally

__all__ = ["RunControl"]

_PAUSED = "paused"
_SLOW, _MOST_RATES = 5, 16


class RunControl:
    """One run's answers to other processes; entered, it listens."""

    def __init__(
        self,
        files: RunFiles,
        *,
        limiter: Limiter,
        admission: Admission,
        tally: Tally,
        slots: Slots,
        figures: LiveFigures,
        notice: Callable[[str, int], None],
    ) -> None:
        self._files, self._limiter, self._admission, self._tally = files, limiter, admission, tally
        self._slots, self._figures, self._notice = slots, figures, notice
        self._server: ControlServer | None = None

    async def __aenter__(self) -> "RunControl":
        if not self._files.stream:
            self._server = ControlServer(self._files.results, self.answer, lambda why: self._notice(why, 1))
            await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.__aexit__()

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
        count = self._admission.on_wire
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
        limiter, tally, figures = self._limiter, self._tally, self._figures
        plan, spent = figures.plan, figures.spent()
        return Live(
            pid=os.getpid(),
            state=self._state(),
            total=None if plan is None else plan.total,
            answered_before=figures.answered_before(),
            answered=figures.answered,
            failed=figures.failed,
            in_flight=self._admission.on_wire,
            concurrency=self._slots.limit,
            waiting=limiter.waiting,
            retrying=figures.retrying(),
            requests=limiter.admitted,
            attempts=dict(tally.attempts),
            per_s=limiter.sent_per_s(),
            prompts_per_s=round(tally.pace.per_s, 6),
            failures={group.type: group.count for group in tally.failures()},
            usage=spent.usage,
            cost_usd=None if spent.cost_usd is None else float(spent.cost_usd),
            rates=tuple(map(str, limiter.rates)),
            holds=self._holds(),
            service_wait_s=round(limiter.paused_s, 3),
            left_s=figures.left_s(),
            slow=figures.slow(_SLOW),
        )

    def _state(self) -> Literal["starting", "running", "held", "stopping"]:
        if self._admission.closed:
            return "stopping"
        if self._limiter.holds:
            return "held"
        return "starting" if self._figures.worker is None else "running"

    def _holds(self) -> tuple[Hold, ...]:
        now, at = datetime.now(UTC), asyncio.get_running_loop().time()
        return tuple(
            Hold(why=why, since=(now - timedelta(seconds=at - since)).replace(microsecond=0))
            for why, since in self._limiter.held_since.items()
        )


def _named(rates: tuple[Rate, ...]) -> str:
    return " and ".join(map(str, rates)) if rates else "none"
