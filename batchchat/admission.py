"""Where a run's requests go out: limits, the budget, the tasks on the wire, and the end of sending."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from batchchat.budget import NoRoomError
from batchchat.errors import ProviderError
from batchchat.limits import Limiter, Send
from batchchat.meter import Meter, Trip
from batchchat.providers.base import ChatRequest, always
from batchchat.rate_headers import RateHeaders
from batchchat.records import Completion

__all__ = ["Abandoned", "Admission"]


class Abandoned(Exception):
    """The run stopped before this prompt came to its end; it stays pending."""


class Admission:
    """One door for every request of a run.

    Args:
        meter: Estimates, counts and limits what attempts cost.

    Attributes:
        in_flight: Tasks that have a request on the wire.
        closed: Whether nothing new may be sent.
        wire_times: Where somebody watches attempts, ``time.monotonic()`` of each task's latest request; else None.
    """

    def __init__(self, limiter: Limiter, meter: Meter | None = None) -> None:
        self._limiter = limiter
        self._meter = Meter(ahead=limiter.counts_tokens) if meter is None else meter
        self.in_flight: set[asyncio.Task[Any]] = set()
        self._began_at: dict[asyncio.Task[Any], float] = {}
        self.closed = False
        self.wire_times: dict[asyncio.Task[Any], float] | None = None
        self._trips: dict[asyncio.Task[Any], Trip | None] = {}
        self._sends: dict[asyncio.Task[Any], Send] = {}
        self._when_closed: list[Callable[[], None]] = []

    @property
    def free(self) -> bool:
        """Whether ``admit`` lets a request out at once, as nothing limits or holds any."""
        return self._limiter.free

    def close(self) -> None:
        """Sends nothing new from now on."""
        self.closed = True
        told, self._when_closed = self._when_closed, []
        for callback in told:
            callback()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Calls once when nothing new is sent any more."""
        self._when_closed.append(callback)

    async def admit(self, still: Callable[[], bool] = always) -> None:
        """Waits until one more request may go out; see ``Gate``.

        Raises:
            Abandoned: Nothing new is sent any more.
        """
        if self.closed:
            raise Abandoned
        task = asyncio.current_task()
        self._forget_send(task)
        trip = self._trips.get(task) if task is not None else None
        send = await self._limiter.acquire(0 if trip is None else trip.likely, still)
        if send is not None and task is not None:
            self._sends[task] = send
        if self.closed:
            raise Abandoned

    def begin(self, task: asyncio.Task[Any]) -> None:
        """The task's request, let out before, begins its way to the wire."""
        self.in_flight.add(task)
        now = time.monotonic()
        self._began_at.setdefault(task, now)
        if self.wire_times is not None:
            self.wire_times[task] = now
        if (send := self._sends.get(task)) is not None:
            self._limiter.begin(send)

    def sent(self, task: asyncio.Task[Any]) -> Awaitable[None] | None:
        """The task's request goes to the wire; see ``Gate``.

        Raises:
            Abandoned: The run stopped while its connection was made.
        """
        waiting = None
        if not self.closed and (send := self._sends.get(task)) is not None:
            waiting = self._limiter.sent(send)
        if waiting is not None:
            return self._sent_later(waiting, task)
        self._note_sent(task)
        return None

    def went(self, task: asyncio.Task[Any]) -> None:
        """The task's request has gone to the wire already, in another process, whatever has become of the run since."""
        if (send := self._sends.get(task)) is not None:
            self._limiter.sent(send)
        if (trip := self._trips.get(task)) is not None:
            trip.sent = True

    def take_back(self, task: asyncio.Task[Any], *, first: bool) -> None:
        """The task's request was let out, and will not be sent before it is admitted again.

        Args:
            first: Whether the task's prompt had sent nothing before.
        """
        if (send := self._sends.pop(task, None)) is not None:
            self._limiter.take_back(send)
        if first:
            self._began_at.pop(task, None)
            if self.wire_times is not None:
                self.wire_times.pop(task, None)
        self.left(task)

    async def _sent_later(self, waiting: Awaitable[None], task: asyncio.Task[Any]) -> None:
        await waiting
        self._note_sent(task)

    def _note_sent(self, task: asyncio.Task[Any]) -> None:
        if self.closed:
            raise Abandoned
        if (trip := self._trips.get(task)) is not None:
            trip.sent = True

    def left(self, task: asyncio.Task[Any]) -> None:
        """The task's request is over."""
        self.in_flight.discard(task)
        send = self._sends.get(task)
        if task not in self._trips:  # a fetch of a nonce: no prompt's end will clear it away
            if send is not None:
                self._limiter.give_back(send)
            self._sends.pop(task, None)
            self._began_at.pop(task, None)
            if self.wire_times is not None:
                self.wire_times.pop(task, None)
        if send is not None:
            self._limiter.left(send)

    def began_at(self, task: asyncio.Task[Any] | None) -> float | None:
        """``time.monotonic()`` of the first request of the task's prompt; None where nothing was sent yet."""
        return None if task is None else self._began_at.get(task)

    def observed(self, told: RateHeaders) -> str | None:
        """Takes in what the answer to the running task's request tells of the service's limits; see ``Gate``."""
        task = asyncio.current_task()
        return None if task is None else self.observed_by(task, told)

    def observed_by(self, task: asyncio.Task[Any], told: RateHeaders) -> str | None:
        """The same for the answer to a request of any task."""
        send = self._sends.get(task)
        return self._limiter.observed(send, told) if send is not None else None

    async def expect(self, request: ChatRequest, *, patient: bool = True) -> None:
        """Tells what the running task asks for next; waits until the budget has room for it, if it is ``patient``.

        Raises:
            Abandoned: Nothing new is sent any more, or there is no room now.
            ProviderError: There is a budget, and no price for the model.
        """
        if self.closed:
            raise Abandoned
        try:
            trip = await self._meter.begin(request, ahead=self._limiter.counts_tokens, patient=patient)
        except NoRoomError:
            raise Abandoned from None
        if (task := asyncio.current_task()) is not None:
            self._trips[task] = trip
        if self.closed:
            raise Abandoned

    async def settle(self, completion: Completion) -> Completion:
        """Counts the answer to the running task's request; it comes back with its usage, estimated if none was told."""
        task, trip, send = self._end_trip()
        if task is None or trip is None:
            return completion
        completion = await self._meter.settle(trip, completion)
        usage = completion.usage
        if send is not None and usage is not None:
            self._limiter.correct(send, (usage.input_tokens or 0) + (usage.output_tokens or 0))
        return completion

    def fail(self, error: ProviderError) -> None:
        """Counts what the running task's failed attempt cost."""
        _, trip, send = self._end_trip()
        if trip is None:
            return
        if send is not None and not trip.sent:
            self._limiter.correct(send, 0)
        self._meter.fail(trip, error)

    def drop(self) -> bool:
        """Counts the running task's attempt as given up, while its prompt goes on; whether it had been sent."""
        _, trip, send = self._end_trip()
        if trip is None:
            return False
        if send is not None and not trip.sent:
            self._limiter.correct(send, 0)
        self._meter.drop(trip)
        return trip.sent

    def on_way_s(self, task: asyncio.Task[Any] | None) -> float:
        """Seconds for which the task's request has been on its way; 0 where none is."""
        send = self._sends.get(task) if task is not None else None
        if send is None or send.in_transit or task not in self.in_flight:
            return 0.0
        return asyncio.get_running_loop().time() - send.at

    def forget(self) -> float | None:
        """Ends the running task's prompt; ``time.monotonic()`` of its first request, None if nothing was sent."""
        task = asyncio.current_task()
        if task is None:
            return None
        if (trip := self._trips.pop(task, None)) is not None:
            self._meter.drop(trip)
        self._forget_send(task)
        if self.wire_times is not None:
            self.wire_times.pop(task, None)
        return self._began_at.pop(task, None)

    def _end_trip(self) -> tuple[asyncio.Task[Any] | None, Trip | None, Send | None]:
        """Takes the running task's attempt out; its prompt goes on."""
        task = asyncio.current_task()
        if task is None:
            return None, None, None
        trip, self._trips[task] = self._trips.get(task), None
        return task, trip, self._forget_send(task)

    def _forget_send(self, task: asyncio.Task[Any] | None) -> Send | None:
        """Takes out the task's last request, which is over, or was let out and will not be sent."""
        send = self._sends.pop(task, None) if task is not None else None
        if send is not None:
            self._limiter.left(send)
        return send
