"""A worker of a stage: tables in, the same tables with answers out. It knows nothing of Ray."""

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Any

import msgspec

from batchchat.config import JobConfig
from batchchat.errors import BatchchatError, RunStoppedError
from batchchat.pool_work import PoolWork
from batchchat.ray.answer_columns import ANSWER_COLUMNS, with_answers
from batchchat.ray.desk_line import DeskCalls
from batchchat.ray.desk_worker import DeskWorker
from batchchat.ray.table_prompts import RowSettings, TablePrompts, check_columns
from batchchat.ray.words import GO
from batchchat.records import Outcome
from batchchat.survey import ToDo

__all__ = ["RowThread", "RowWorker", "StageOpening"]

_CLOSE_S = 5.0
_logger = logging.getLogger("batchchat")


class StageOpening(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker of a stage is made of.

    Attributes:
        job, environ, keys: See ``WorkerOpening``.
        rows: How a row becomes a prompt.
        prefix: Stands before the names of added columns.
    """

    job: JobConfig
    environ: dict[str, str]
    keys: list[str | None] | None
    rows: RowSettings
    prefix: str


class RowWorker(DeskWorker):
    """Asks the prompts of tables; several at the same time share its slots."""

    def __init__(self, number: int, opening: StageOpening, desk: DeskCalls) -> None:
        super().__init__(number, opening.job, opening.environ, opening.keys, desk)
        self._opening = opening
        self._sights: Any = desk
        self._told_sentences: set[str] = set()
        self._prompts: TablePrompts

    async def answer(self, table: Any) -> Any:
        """The table with the columns of the answers.

        Raises:
            RunStoppedError: A stop rule ended the stage, here or at another worker.
            ConfigError: A column is missing, or the stage cannot work as it is.
        """
        opening = self._opening
        job, added = opening.job, [opening.prefix + name for name in ANSWER_COLUMNS]
        check_columns(table.column_names, opening.rows, [*job.prompt.images, *job.prompt.files], added)
        await self.open()
        output = _Rows(table.num_rows)
        if self._stage == GO and table.num_rows:
            items = self._prompts.read(table, self._asking.fingerprints.of, self._asking.check_prompt)
            await self._run(PoolWork(self._asking, self, _as_to_do(items), output, alone=False))
            self._line.hurry()
        outcomes = [outcome for outcome in output.outcomes if outcome is not None]
        if len(outcomes) < table.num_rows:
            raise RunStoppedError(f"map_prompts stopped: {await self._reason()}")
        return await asyncio.to_thread(with_answers, table, outcomes, opening.prefix)

    def all_read(self) -> bool:
        """See ``Asks``; more tables may come."""
        return False

    async def _open(self) -> None:
        self._prompts = await asyncio.to_thread(TablePrompts, self._opening.job.input_settings(), self._opening.rows)
        await super()._open()

    async def _reason(self) -> str:
        """Why nothing is sent any more, as this worker or the desk tells it."""
        stop = self._stop
        if stop is None:
            with suppress(BatchchatError):
                stop = (await self._sights.look()).stop
        return "no more requests may be sent" if stop is None else stop.message

    def _notice(self, sentence: str, level: int) -> None:
        """Nobody watches the desk of a stage; the worker's log has it, once."""
        if sentence not in self._told_sentences:
            self._told_sentences.add(sentence)
            _logger.warning("%s", sentence)


class RowThread:
    """A ``RowWorker`` on an event loop of its own thread, for callers that block."""

    def __init__(self, number: int, opening: StageOpening, desk: DeskCalls) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="batchchat-rows", daemon=True).start()
        self._worker = RowWorker(number, opening, desk)

    def answer(self, table: Any) -> Any:
        """See ``RowWorker.answer``; blocks, and may be called by several threads at the same time."""
        return asyncio.run_coroutine_threadsafe(self._worker.answer(table), self._loop).result()

    def close(self) -> None:
        """Ends what is open; not waited for without end."""
        with suppress(Exception):  # the desk may be gone before
            asyncio.run_coroutine_threadsafe(self._worker.close(), self._loop).result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)


class _Rows:
    """Keeps outcomes by their index; see ``Output``."""

    def __init__(self, count: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * count

    async def write(self, outcome: Outcome) -> None:
        self.write_soon(outcome)

    def write_soon(self, outcome: Outcome) -> None:
        self.outcomes[outcome.index] = outcome


def _as_to_do(items: Any) -> Any:
    """What stops the reading of a table ends the stage."""
    try:
        yield from items
    except BatchchatError as error:
        found: ToDo = error
        yield found
