"""Workers that are gone and do not come back: others take over what they had."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from batchchat.ray.actor import Actor, WorkerLostError
from batchchat.ray.readiness import trouble_of

__all__ = ["Minder"]

# A worker is looked after so often; one that does not answer for so long is not only about to be started elsewhere,
# which takes some 15 s until Ray has noticed the loss of a node, and then some more.
_LOOK_S, _AWAY_S = 20.0, 60.0
# A call fails as well where what is asked beside it kills the worker each time; so many in a row do not.
_TRIES = 3


class Minder:
    """Looks after the workers of a run.

    Ray starts a worker of a lost node elsewhere. Where no room is left, it waits for some, and with it whoever has
    given the worker a shard. Where it cannot be started at all, as on a node without batchchat, each call fails at
    once and for ever.

    Args:
        give_up: Ends a worker for good, so that calls of it fail and Ray starts it nowhere.
        notice: Told, in a sentence, of what the user should know.
    """

    def __init__(
        self,
        workers: Sequence[Actor],
        give_up: Callable[[Actor], Awaitable[None]],
        notice: Callable[[str], None],
    ) -> None:
        self._workers, self._give_up, self._notice = workers, give_up, notice
        self._lost: set[Actor] = set()
        self._there: set[Actor] = set()
        self._unready: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._told: set[str] = set()

    async def arrives(self, worker: Actor) -> bool:
        """Waits for a worker for which there may be no room yet; whether it can work. See ``expect_none``."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lane is a task")
        self._unready.add(task)
        try:
            ready = await worker.ready()
        except WorkerLostError:
            return False
        finally:
            self._unready.discard(task)
        if (trouble := trouble_of(ready)) is not None:  # of a worker that came later; the others go on
            self._tell(f"{trouble.sentence}; the run goes on without it")
        return trouble is None

    def expect_none(self) -> None:
        """Cancels the tasks that wait for workers that did not come."""
        for task in self._unready:
            task.cancel()

    def in_place_of(self, worker: Actor) -> Actor | None:
        """The worker itself, or, where that is lost, one of the others in turn; None where all are."""
        if worker not in self._lost:
            return worker
        # One that was never there may never come, and one that is away at the moment not either.
        left = [each for each in self._workers if each in self._there] or [
            each for each in self._workers if each not in self._lost
        ]
        return self._next(left) if left else None

    def another(self, worker: Actor) -> Actor:
        """One of the others that are there, in turn, or the worker itself where none is."""
        others = [each for each in self._workers if each in self._there and each is not worker]
        return self._next(others) if others else worker

    async def is_gone(self, worker: Actor) -> bool:
        """Whether a worker, a call of which failed, is lost: it answers nothing any more. Waits for one that is away.

        One that died of what it was asked is there again.
        """
        for _ in range(_TRIES):
            try:
                await worker.ready()
            except WorkerLostError:
                continue
            return worker in self._lost
        await self._lose(worker, "a worker died and cannot be started again; others ask its prompts")
        return True

    async def mind(self, worker: Actor) -> None:
        """Looks after one worker, from when it is there, until it is lost or this is cancelled."""
        if not await self._is_fit(worker):
            return
        while True:
            self._there.add(worker)
            await asyncio.sleep(_LOOK_S)
            if await self._answers(worker):
                continue
            self._there.discard(worker)
            if worker in self._lost:
                return
            if self._there:
                await self._lose(
                    worker,
                    "a worker was lost and the cluster has no room to start it again; others ask its prompts",
                )
                return
            self._tell("no worker has a place in the cluster any more; the run goes on once there is room for one")
            if await self.is_gone(worker):
                return

    async def _is_fit(self, worker: Actor) -> bool:
        """Waits until a worker is there; one that cannot work takes nothing over."""
        try:
            trouble = trouble_of(await worker.ready())
        except WorkerLostError:
            return not await self.is_gone(worker)
        if trouble is not None:
            self._lost.add(worker)
        return trouble is None

    async def _answers(self, worker: Actor) -> bool:
        try:
            async with asyncio.timeout(_AWAY_S):
                return not await self.is_gone(worker)
        except TimeoutError:
            return False

    async def _lose(self, worker: Actor, sentence: str) -> None:
        if worker in self._lost:
            return
        self._lost.add(worker)
        self._there.discard(worker)
        if len(self._lost) < len(self._workers):
            self._tell(sentence)
        await self._give_up(worker)

    def _next(self, workers: Sequence[Actor]) -> Actor:
        self._turn += 1
        return workers[self._turn % len(workers)]

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._notice(sentence)
