"""A cluster for tests of the contract: desk and workers as plain objects in this process, without Ray.

What travels is pickled, as it is on its way through a cluster.
"""

import asyncio
import pickle
from typing import Any, Self

from batchchat.ray.actor import WorkerLostError
from batchchat.ray.desk import Desk
from batchchat.ray.words import DeskOpening, WorkerOpening
from batchchat.ray.worker import ShardWorker

__all__ = ["ClusterDouble"]


class ClusterDouble:
    """Stands in for ``batchchat.ray.cluster.Cluster``.

    Attributes:
        last: The one that was made last.
    """

    last: "ClusterDouble"

    def __init__(self, address: str | None) -> None:
        self.desk: Any = None
        self.workers: list[Any] = []
        ClusterDouble.last = self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def bury(self) -> None:
        """Closes what lost workers had open, as a system does whose process is gone."""
        for worker in self.workers:
            if worker.lost.is_set():
                await worker.inner.close()

    def room(self) -> int:
        return 2

    def start_desk(self, opening: DeskOpening) -> Any:
        self.desk = _Far(Desk(_sent(opening)))
        return self.desk

    def start_worker(self, opening: WorkerOpening) -> Any:
        worker = _Far(ShardWorker(_sent(opening), self.desk))
        self.workers.append(worker)
        return worker

    def give_up(self, worker: Any) -> None:
        worker.loop.call_soon_threadsafe(worker.given_up.set)


class _Far:
    """An object that is called as an actor is.

    Attributes:
        lost: Set when it goes with its node, and Ray finds no room for it: nothing that it is called for comes back.
        given_up: Set when it was.
        fails_at_once: Whether calls that it had when it went fail then, as they do where Ray has noticed.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.lost, self.given_up = asyncio.Event(), asyncio.Event()
        self.fails_at_once = False

    async def _result(self, call: Any) -> Any:
        self.loop = asyncio.get_running_loop()
        had_before = not self.lost.is_set()
        going, gone = asyncio.ensure_future(call), asyncio.ensure_future(self.lost.wait())
        try:
            await asyncio.wait([going, gone], return_when=asyncio.FIRST_COMPLETED)
            if not self.lost.is_set():
                return going.result()
        finally:
            going.cancel()
            gone.cancel()
        if not (had_before and self.fails_at_once):
            await self.given_up.wait()
        raise WorkerLostError("it was given up")

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def call(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            return _sent(await self._result(method(*map(_sent, arguments))))

        return call


def _sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
