"""A worker: asks the prompts of one shard after another, as a run in one process asks all of them."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator

from batchchat.errors import BatchchatError, ResultsLockedError, ResultsWriteError
from batchchat.pool_work import PoolWork
from batchchat.prompts import PromptReader
from batchchat.ray.desk_line import DeskCalls
from batchchat.ray.desk_worker import DeskWorker
from batchchat.ray.words import GO, Ready, WorkerOpening
from batchchat.run_output import RunOutput, close_output, opened_in_thread
from batchchat.shards.reading import shard_prompts
from batchchat.shards.shard import Shard, ShardReport, Trouble
from batchchat.survey import ToDo
from batchchat.version import VERSION

__all__ = ["ShardWorker"]

# How long the journal of a shard may be held by a worker that is thought to be dead.
_LOCKED_S, _PAUSE_S = 60.0, 0.2


class ShardWorker(DeskWorker):
    """One worker; every method may be called again with the same arguments, as Ray does after a death.

    Args:
        desk: Where the desk is.
    """

    def __init__(self, opening: WorkerOpening, desk: DeskCalls) -> None:
        super().__init__(opening.number, opening.job, opening.environ, opening.keys, desk)
        self._opening = opening
        self._reader: PromptReader

    async def ready(self) -> Ready:
        """Returns when shards may come, or with what is in their way."""
        try:
            await self.open()
        except BatchchatError as error:
            return Ready(version=VERSION, host=socket.gethostname(), trouble=Trouble.of(error))
        return Ready(version=VERSION, host=socket.gethostname())

    async def ask(self, shard: Shard) -> ShardReport:
        """Asks a shard's prompts that its journal has no answer to."""
        try:
            if (trouble := (await self.ready()).trouble) is None:
                return await self._ask(shard)
        except BatchchatError as error:
            trouble = Trouble.of(error)
        return ShardReport(number=shard.number, whole=False, trouble=trouble)

    async def _ask(self, shard: Shard) -> ShardReport:
        if self._stage != GO:
            return ShardReport(number=shard.number, whole=False, stop=self._stop)
        output = await self._journal(shard)
        if output is None:
            return ShardReport(number=shard.number, whole=True)
        drained = False
        try:
            output.begin({}, lambda error: self.stop_for_results("" if error.quiet else str(error)))
            await self._run(PoolWork(self._asking, self, self._items(shard, output), output, alone=False))
            drained = self._stage != GO
        finally:
            troubles = await close_output(output, keep_errors=False)
            self._line.hurry()
        if troubles:  # also where answers went that could not be written
            trouble = Trouble(sentence=troubles[0], exit_code=ResultsWriteError.exit_code)
            return ShardReport(number=shard.number, whole=False, trouble=trouble)
        if drained or self._stage != GO:
            await asyncio.to_thread(self._opening.place.leave, shard.number)
            return ShardReport(number=shard.number, whole=False, stop=self._stop)
        await asyncio.to_thread(self._opening.place.make_whole, shard.number)
        return ShardReport(number=shard.number, whole=True)

    async def _open(self) -> None:
        os.environ.update(self._opening.carried)
        await asyncio.to_thread(self._opening.place.check)
        self._reader = PromptReader(self._opening.job.input_settings())
        self._reader.trust()
        await super()._open()

    async def _journal(self, shard: Shard) -> RunOutput | None:
        """The shard's journal; one that another process still holds is waited for, as that may be about to end."""
        opening, give_up = self._opening, time.monotonic() + _LOCKED_S
        while True:
            try:
                return await opened_in_thread(lambda: opening.place.open(shard.number, opening.output))
            except ResultsLockedError:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(_PAUSE_S)

    def _items(self, shard: Shard, output: RunOutput) -> Iterator[ToDo]:
        try:
            yield from shard_prompts(shard, self._reader, self._asking.fingerprints.of, output.completed)
        except BatchchatError as error:
            yield error
