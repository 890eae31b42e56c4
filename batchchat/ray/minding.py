"""Workers that are gone and do not come back, as there is no room for them: others take over what they had."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from batchchat.ray.actor import Actor, WorkerLostError
from batchchat.ray.readiness import trouble_of

__all__ = ["Minder"]

# A worker is looked after so often; one that does not answer for so long is not only about to be started elsewhere,
# which takes some 15 s until Ray has noticed the loss of a node, and then some more.
_LOOK_S, _AWAY_S = 20.0, 60.0


class Minder:
    """Looks after the workers of a run.

    Ray starts a worker of a lost node elsewhere. Where no room is left, it waits for some, and with it whoever has
    given the worker a shard.

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
        self._turn = 0
        self._told = False

    def is_lost(self, worker: Actor) -> bool:
        """Whether it was given up."""
        return worker in self._lost

    def in_place_of(self, worker: Actor) -> Actor:
        """The worker itself, or, where that was given up, one of the others in turn."""
        if worker not in self._lost:
            return worker
        # One that was never there may never come, and one that is away at the moment not either.
        left = [each for each in self._workers if each in self._there] or [
            each for each in self._workers if each not in self._lost
        ]
        self._turn += 1
        return left[self._turn % len(left)]

    async def mind(self, worker: Actor) -> None:
        """Looks after one worker, from when it is there, until it is given up or this is cancelled."""
        try:
            if trouble_of(await worker.ready()) is not None:  # it gets nothing
                return
        except WorkerLostError:
            return
        while True:
            self._there.add(worker)
            await asyncio.sleep(_LOOK_S)
            if await _answers(worker):
                continue
            self._there.discard(worker)
            if self._there:
                self._lost.add(worker)
                await self._give_up(worker)
                self._tell("a worker was lost and the cluster has no room to start it again; others ask its prompts")
                return
            self._tell("no worker has a place in the cluster any more; the run goes on once there is room for one")
            await _wait_for(worker)

    def _tell(self, sentence: str) -> None:
        if not self._told:
            self._told = True
            self._notice(sentence)


async def _answers(worker: Actor) -> bool:
    try:
        async with asyncio.timeout(_AWAY_S):
            await _wait_for(worker)
    except TimeoutError:
        return False
    return True


async def _wait_for(worker: Actor) -> None:
    """Returns when it answers; one that died of what it was asked is there as well."""
    try:
        await worker.ready()
    except WorkerLostError:
        return
