"""A second attempt beside the first for the last prompts of a run, where the first takes long."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from batchchat.admission import Abandoned, Admission
from batchchat.errors import ProviderError
from batchchat.life import Life
from batchchat.providers.base import ChatRequest, Provider
from batchchat.records import Completion
from batchchat.slots import Slots

__all__ = ["Stragglers"]


class Stragglers:
    """Completes requests for a worker; once no prompt is left to begin, asks again beside what is slow.

    The first whole answer counts, the other request is given up and counted as what it cost. A second one needs a slot,
    the rate and room in the budget, for which it does not wait. There is none for a request that belongs to a
    conversation which the service keeps, as it would stand there twice.

    Args:
        after_s: Seconds that an attempt has been under way before it may get a second one.
        lives: The worker's prompts that are under way.
        all_begun: Whether the input has no further prompt.
        count: Counts an attempt that is over, by what came of it.
        failed: Told of a failed attempt that has another one beside it.

    Attributes:
        begun: Second attempts that were sent.
    """

    def __init__(
        self,
        after_s: float,
        *,
        provider: Provider,
        admission: Admission,
        slots: Slots,
        lives: dict[asyncio.Task[Any], Life],
        all_begun: Callable[[], bool],
        count: Callable[[str], None],
        failed: Callable[[ProviderError, Life], None],
    ) -> None:
        self._after_s, self._provider, self._admission, self._slots = after_s, provider, admission, slots
        self._lives, self._all_begun, self._count, self._failed = lives, all_begun, count, failed
        self._conversations = getattr(provider, "keeps_conversations", True)
        self._late: set[_Race] = set()
        self.begun = 0

    def look(self) -> None:
        """Begins the second attempts that are due; to be called whenever a prompt begins, or the input has ended."""
        if self._late and self._is_tail():
            late, self._late = self._late, set()
            for race in late:
                race.begin()

    async def complete(self, request: ChatRequest, life: Life) -> Completion:
        """The first whole answer to the request.

        Raises:
            ProviderError: Every attempt failed.
        """
        self.look()
        if request.chat_id is not None and self._conversations:
            return await self._provider.complete(request)
        race = _Race(lambda: self._second(request, life), life.task)
        self._wait(race, self._after_s)
        try:
            completion = await self._first(race, request, life)
        finally:
            race.forget_timer()
            self._late.discard(race)
            second = await race.end()
        if second is not None and second is not completion:
            self._count("cancelled")  # both came whole at the same moment
        return completion

    def _wait(self, race: "_Race", seconds: float) -> None:
        race.timer = asyncio.get_running_loop().call_later(seconds, self._due, race)

    def _due(self, race: "_Race") -> None:
        left_s = self._after_s - self._admission.on_way_s(race.main)
        if left_s > 0.001:  # it waited for a limit before it was sent
            self._wait(race, left_s)
            return
        self._late.add(race)
        self.look()

    def _is_tail(self) -> bool:
        return self._all_begun() and all(life.attempts for life in self._lives.values())

    async def _first(self, race: "_Race", request: ChatRequest, life: Life) -> Completion:
        try:
            async with race.clock:
                return await self._provider.complete(request)
        except TimeoutError:
            if not race.clock.expired() or (answer := race.answer) is None:
                raise
        except ProviderError as error:
            if (answer := await self._outlive(race)) is None:
                raise
            self._admission.fail(error, life.task)
            self._failed(error, life)
            return answer
        except asyncio.CancelledError:
            # The run or the prompt is at its end; an answer that has come whole counts all the same.
            if (answer := await race.end()) is None:
                raise
        if self._admission.drop(life.task):
            self._count("cancelled")
        return answer

    async def _outlive(self, race: "_Race") -> Completion | None:
        """The answer to the second attempt where the first one failed; None where none is on its way."""
        if race.task is None or (not race.task.done() and race.task not in self._admission.in_flight):
            return await race.end()
        main, in_flight = race.main, self._admission.in_flight
        in_flight.add(main)  # so that a drain lets it come to its end
        try:
            await asyncio.wait([race.task])
        except asyncio.CancelledError:
            if await race.end() is None:
                raise
        finally:
            in_flight.discard(main)
        return race.answer

    async def _second(self, request: ChatRequest, life: Life) -> Completion | None:
        """One more attempt; None where it came to nothing."""
        holds_slot, outcome = False, "cancelled"
        if (task := asyncio.current_task()) is None:
            raise RuntimeError("an attempt without a running task")
        try:
            await self._slots.acquire()
            holds_slot = True
            await self._admission.expect(request, task, patient=False)
            completion = await self._provider.complete(request)
            outcome = ""  # the worker counts the answer that it takes
            return await self._admission.settle(completion, task)
        except ProviderError as error:
            outcome = ""
            self._admission.fail(error, task)
            self._failed(error, life)
            return None
        except Abandoned:
            return None
        finally:
            if self._admission.forget(task) is not None:
                self.begun += 1
                life.attempts += 1
                if outcome:
                    self._count(outcome)
            if holds_slot:
                self._slots.release()


class _Race:
    """A first attempt, in its prompt's own task, and perhaps a second one in a task beside it.

    Attributes:
        main: The task of the first attempt.
        timer: When the second one is due.
        clock: What the first attempt runs under; it ends when the second has its answer.
        task: The second attempt; None before it has begun.
    """

    def __init__(self, second: Callable[[], Coroutine[Any, Any, Completion | None]], main: asyncio.Task[Any]) -> None:
        self._second, self.main = second, main
        self.timer: asyncio.TimerHandle | None = None
        self.clock = asyncio.timeout(None)
        self.task: asyncio.Task[Completion | None] | None = None
        self._over = False

    @property
    def answer(self) -> Completion | None:
        """What the second attempt brought, if it is over."""
        task = self.task
        if task is None or not task.done() or task.cancelled():
            return None
        return task.result()

    def forget_timer(self) -> None:
        """Nothing begins any more by itself."""
        if self.timer is not None:
            self.timer.cancel()

    def begin(self) -> None:
        """Starts the second attempt."""
        if self.task is None and not self._over:
            self.task = asyncio.create_task(self._second())
            self.task.add_done_callback(self._arrived)

    async def end(self) -> Completion | None:
        """Gives the second attempt up, and waits for its end; its answer, if it has come whole."""
        self._over = True
        if (task := self.task) is not None:
            task.cancel()
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    continue  # whoever owns this task sees by ``Task.cancelling`` that it was to end
        return self.answer

    def _arrived(self, task: "asyncio.Task[Completion | None]") -> None:
        if not self._over and self.answer is not None:
            with suppress(RuntimeError):  # the first attempt is over as well
                self.clock.reschedule(asyncio.get_running_loop().time())
