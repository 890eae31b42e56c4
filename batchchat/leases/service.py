"""The desk in an event loop: asks wait here for their answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from batchchat.durations import Rate
from batchchat.leases.desk import Desk
from batchchat.leases.messages import Answer, Ask, DeskAwayError

__all__ = ["DeskService"]

_TICK_S = 0.001


class DeskService:
    """Answers asks when their time has come; to be made in a running loop.

    Args:
        remember: Keeps what was leased since the last call where a restart finds it, before any worker hears of it;
            see ``DeskFile``. None where nothing outlives the desk.
        clock: Seconds; the same as the file's.
    """

    def __init__(
        self,
        desk: Desk,
        remember: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.desk, self._remember = desk, remember
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        self._giving: set[asyncio.Task[None]] = set()

    async def exchange(self, ask: Ask) -> Answer:
        """The answer to an ask; held until there is something to say, for some 30 seconds at most.

        Raises:
            DeskAwayError: What was leased cannot be kept for the next start, so nothing is leased.
        """
        ticket = self.desk.take(ask, self._clock())
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[ticket] = answer
        self._serve()
        try:
            return await answer
        except asyncio.CancelledError:
            self.desk.drop(ticket)
            raise
        finally:
            self._waiting.pop(ticket, None)

    def lost(self, worker: str) -> None:
        """A worker is known to be dead; what was leased to it counts as sent."""
        self.desk.lost(worker)
        self._serve()

    def hold(self, *words: str) -> None:
        """Leases nothing to anybody until all of these are released."""
        self.desk.hold(words)
        self._serve()

    def release(self, *words: str) -> None:
        """Ends holds; those that are not in force are fine."""
        self.desk.release(words)
        self._serve()

    def pause(self, seconds: float) -> None:
        """Nobody sends for so many seconds."""
        self.desk.pause(seconds, self._clock())
        self._serve()

    def set_rates(self, rates: Sequence[Rate]) -> None:
        """Other rates from now on; what was leased before counts."""
        self.desk.set_rates(rates, self._clock())
        self._serve()

    def close(self) -> None:
        """Answers whatever is held; asks that come later are answered without leases."""
        self._closed = True
        self._serve()

    def _serve(self) -> None:
        now = self._clock()
        ready = self.desk.close(now) if self._closed else self.desk.due(now)
        if ready:
            if self._remember is None:
                self._give(ready)
            else:
                task = self._loop.create_task(self._give_remembered(ready, self._remember))
                self._giving.add(task)
                task.add_done_callback(self._giving.discard)
        self._set_timer(now)

    async def _give_remembered(self, ready: list[tuple[int, Answer]], remember: Callable[[], Awaitable[None]]) -> None:
        try:
            await remember()
        except OSError as error:
            sentence = f"what is leased cannot be written ({error.strerror or error})"
            for ticket, _ in ready:
                if (waiting := self._waiting.get(ticket)) is not None and not waiting.done():
                    waiting.set_exception(DeskAwayError(sentence))
        else:
            self._give(ready)

    def _give(self, ready: list[tuple[int, Answer]]) -> None:
        for ticket, answer in ready:
            if (waiting := self._waiting.get(ticket)) is not None and not waiting.done():
                waiting.set_result(answer)

    def _set_timer(self, now: float) -> None:
        at = self.desk.next_at(now)
        if self._closed or (self._timer is not None and self._timer_at == at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(_TICK_S, at - now), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._serve()
