"""Where a run's requests go out: limits, the budget, the tasks on the wire, and the end of sending."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from batchchat.budget import NoRoomError
from batchchat.errors import ProviderError
from batchchat.limits import Limiter, Send
from batchchat.meter import Meter, Trip
from batchchat.providers.base import ChatRequest, always
from batchchat.rate_headers import RateHeaders
from batchchat.records import Completion

__all__ = ["Abandoned", "Admission", "WireWatch"]


class Abandoned(Exception):
    """The run stopped before this prompt came to its end; it stays pending."""


class WireWatch(Protocol):
    """Is told of the requests on the wire."""

    def begin(self, task: asyncio.Task[Any]) -> None:
        """The task's request begins its way."""

    def sent(self, task: asyncio.Task[Any]) -> None:
        """The task's request goes to the wire."""

    def left(self, task: asyncio.Task[Any]) -> None:
        """The task's request is over, or was taken back."""


class Admission:
    """One door for every request of a run.

    Args:
        meter: Estimates, counts and limits what attempts cost.

    Attributes:
        in_flight: Tasks that have a request on the wire.
        closed: Whether nothing new may be sent.
        wire_times: Where somebody watches attempts, ``time.monotonic()`` of each task's latest request; else None.
        watch: Told of every request; None where nobody needs to know.
    """

    def __init__(self, limiter: Limiter, meter: Meter | None = None) -> None:
        self._limiter = limiter
        self._meter = Meter(ahead=limiter.counts_tokens) if meter is None else meter
        self.in_flight: set[asyncio.Task[Any]] = set()
        self.closed = False
        self.wire_times: dict[asyncio.Task[Any], float] | None = None
        self.watch: WireWatch | None = None
        self._passages: dict[asyncio.Task[Any], _Passage] = {}
        self._when_closed: list[Callable[[], object]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def free(self) -> bool:
        """Whether ``admit`` lets a request out at once, as nothing limits or holds any."""
        return self._limiter.free

    @property
    def on_wire(self) -> int:
        """How many requests are on the wire."""
        return len(self.in_flight)

    def close(self) -> None:
        """Sends nothing new from now on."""
        self.closed = True
        told, self._when_closed = self._when_closed, []
        for callback in told:
            callback()

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Calls once when nothing new is sent any more."""
        self._when_closed.append(callback)

    async def admit(self, still: Callable[[], bool] = always) -> None:
        """Waits until one more request may go out; see ``Gate``.

        Raises:
            Abandoned: Nothing new is sent any more.
        """
        if self.closed:
            raise Abandoned
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        passage = None if task is None else self._passages.get(task)
        tokens = 0
        if passage is not None:
            if passage.send is not None:
                self._give_up(passage)
            tokens = 0 if passage.trip is None else passage.trip.likely
        send = await self._limiter.acquire(tokens, still)
        if send is not None and task is not None:
            self._of(task).take(send)
        if self.closed:
            raise Abandoned

    def begin(self, task: asyncio.Task[Any]) -> None:
        """The task's request, let out before, begins its way to the wire."""
        self.in_flight.add(task)
        passage, now = self._of(task), time.monotonic()
        if first := passage.began_at is None:
            passage.began_at = now
        passage.first = first
        if self.wire_times is not None:
            self.wire_times[task] = now
        if passage.send is not None:
            self._limiter.begin(passage.send)
        if self.watch is not None:
            self.watch.begin(task)

    def sent(self, task: asyncio.Task[Any], *, elsewhere: bool = False) -> Awaitable[None] | None:
        """The task's request goes to the wire; see ``Gate``.

        Args:
            elsewhere: Whether another process writes it, and ``written`` tells when it has.

        Raises:
            Abandoned: The run stopped while its connection was made.
        """
        if self.closed:
            raise Abandoned
        if self.watch is not None:
            self.watch.sent(task)
        passage = self._of(task)
        if (send := passage.send) is not None:
            send.elsewhere = elsewhere
            if (waiting := self._limiter.sent(send)) is not None:
                return self._sent_later(waiting, passage)
        passage.note_sent()
        return None

    def written(self, task: asyncio.Task[Any]) -> None:
        """The task's request has been written in another process."""
        passage = self._passages.get(task)
        if passage is not None and passage.send is not None:
            self._limiter.written(passage.send)

    async def _sent_later(self, waiting: Awaitable[None], passage: "_Passage") -> None:
        await waiting
        if self.closed:
            raise Abandoned
        passage.note_sent()

    def went(self, task: asyncio.Task[Any]) -> None:
        """The task's request has gone to the wire already, in another process, whatever has become of the run since."""
        if self.watch is not None:
            self.watch.sent(task)
        passage = self._of(task)
        if passage.send is not None:
            passage.send.elsewhere = True
            self._limiter.sent(passage.send)
        passage.note_sent()

    def take_back(self, task: asyncio.Task[Any]) -> None:
        """The task's request began its way, and will not be sent before it is admitted again."""
        passage = self._of(task)
        if passage.send is not None:
            self._limiter.take_back(passage.send)
            passage.send = None
        if passage.first:
            passage.began_at = None
            if self.wire_times is not None:
                self.wire_times.pop(task, None)
        self.left(task)

    def left(self, task: asyncio.Task[Any]) -> None:
        """The task's request is over."""
        self.in_flight.discard(task)
        if self.watch is not None:
            self.watch.left(task)
        if (passage := self._passages.get(task)) is None:
            return
        send = passage.send
        if not passage.of_prompt:  # a fetch of a nonce: no prompt's end will clear it away
            if send is not None:
                self._limiter.give_back(send)
            del self._passages[task]
            if self.wire_times is not None:
                self.wire_times.pop(task, None)
        if send is not None and not passage.over:
            passage.over = True
            self._limiter.left(send)

    def began_at(self, task: asyncio.Task[Any] | None) -> float | None:
        """``time.monotonic()`` of the first request of the task's prompt; None where nothing was sent yet."""
        passage = None if task is None else self._passages.get(task)
        return None if passage is None else passage.began_at

    def observed(self, told: RateHeaders) -> str | None:
        """Takes in what the answer to the running task's request tells of the service's limits; see ``Gate``."""
        task = asyncio.current_task()
        return None if task is None else self.observed_by(task, told)

    def observed_by(self, task: asyncio.Task[Any], told: RateHeaders) -> str | None:
        """The same for the answer to a request of any task."""
        passage = self._passages.get(task)
        return None if passage is None or passage.send is None else self._limiter.observed(passage.send, told)

    async def expect(self, request: ChatRequest, task: asyncio.Task[Any], *, patient: bool = True) -> None:
        """Tells what the task asks for next; waits until the budget has room for it, if it is ``patient``.

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
        passage = self._of(task)
        passage.trip, passage.of_prompt = trip, True
        if self.closed:
            raise Abandoned

    async def settle(self, completion: Completion, task: asyncio.Task[Any]) -> Completion:
        """Counts the answer to the task's request; it comes back with its usage, estimated if none was told."""
        trip, send = self._end_trip(task)
        if trip is None:
            return completion
        completion = await self._meter.settle(trip, completion)
        usage = completion.usage
        if send is not None and usage is not None:
            self._limiter.correct(send, (usage.input_tokens or 0) + (usage.output_tokens or 0))
        return completion

    def fail(self, error: ProviderError, task: asyncio.Task[Any]) -> None:
        """Counts what the task's failed attempt cost."""
        trip, send = self._end_trip(task)
        if trip is None:
            return
        if send is not None and not trip.sent:
            self._limiter.correct(send, 0)
        self._meter.fail(trip, error)

    def drop(self, task: asyncio.Task[Any]) -> bool:
        """Counts the task's attempt as given up, while its prompt goes on; whether it had been sent."""
        trip, send = self._end_trip(task)
        if trip is None:
            return False
        if send is not None and not trip.sent:
            self._limiter.correct(send, 0)
        self._meter.drop(trip)
        return trip.sent

    def on_way_s(self, task: asyncio.Task[Any] | None) -> float:
        """Seconds for which the task's request has been on its way; 0 where none is."""
        passage = self._passages.get(task) if task in self.in_flight and task is not None else None
        if passage is None or passage.send is None or passage.send.in_transit:
            return 0.0
        return asyncio.get_running_loop().time() - passage.send.at

    def forget(self, task: asyncio.Task[Any]) -> float | None:
        """Ends the task's prompt; ``time.monotonic()`` of its first request, None if nothing was sent."""
        if (passage := self._passages.pop(task, None)) is None:
            return None
        if passage.trip is not None:
            self._meter.drop(passage.trip)
        if passage.send is not None:
            self._give_up(passage)
        if self.wire_times is not None:
            self.wire_times.pop(task, None)
        return passage.began_at

    def _of(self, task: asyncio.Task[Any]) -> "_Passage":
        """What the task has at the door, made where it has nothing yet."""
        passage = self._passages.get(task)
        if passage is None:
            passage = self._passages[task] = _Passage()
        return passage

    def _end_trip(self, task: asyncio.Task[Any]) -> tuple[Trip | None, Send | None]:
        """Takes the task's attempt out; its prompt goes on."""
        if (passage := self._passages.get(task)) is None:
            return None, None
        trip, passage.trip = passage.trip, None
        return trip, self._give_up(passage)

    def _give_up(self, passage: "_Passage") -> Send | None:
        """Takes out the last request, which is over, or was let out and will not be sent."""
        send, passage.send = passage.send, None
        if send is not None and not passage.over:
            self._limiter.left(send)
        return send


class _Passage:
    """What one task has at the door.

    Attributes:
        began_at: ``time.monotonic()`` of the first request of its prompt; None before that.
        first: Whether that is its last request too.
        trip: Its attempt, as the meter counts it; None between attempts.
        send: Its last request, as the limits count it, until the attempt is over.
        over: Whether the limits know that this request is over.
        of_prompt: Whether a prompt asks, and not a fetch of a nonce.
    """

    __slots__ = ("began_at", "first", "of_prompt", "over", "send", "trip")

    def __init__(self) -> None:
        self.began_at: float | None = None
        self.trip: Trip | None = None
        self.send: Send | None = None
        self.first = self.over = self.of_prompt = False

    def take(self, send: Send) -> None:
        """A request of this was let out."""
        self.send, self.over = send, False

    def note_sent(self) -> None:
        """The request is on the wire."""
        if self.trip is not None:
            self.trip.sent = True
