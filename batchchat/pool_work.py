"""Work for a pool of tasks in this process: items in, outcomes in their files."""

from collections.abc import Iterable
from functools import partial

from batchchat.admission import Abandoned
from batchchat.asking import Asking, Asks, Work
from batchchat.delivery import Delivery, Output
from batchchat.errors import BatchchatError
from batchchat.job_setup import fault_outcome
from batchchat.pool import InputOrder, PromptSource, Source, WorkerPool
from batchchat.prompts import PromptReader
from batchchat.records import InputFault
from batchchat.run_output import RunOutput
from batchchat.shared_answers import AnswerStore
from batchchat.stopping import StopReason
from batchchat.survey import ToDo

__all__ = ["LocalAsking", "PoolWork"]


class PoolWork:
    """See ``Work``.

    Args:
        asking: Opened.
        asks: The run that this is part of.
        items: Read in a thread, a little ahead.
        store: Answers that may be used again; None where each prompt is asked.
        order: Where outcomes wait for those before them; None for the order of completion.
        alone: Whether nobody else uses the slots of ``asking``.
    """

    def __init__(
        self,
        asking: Asking,
        asks: Asks,
        items: Iterable[ToDo],
        output: Output,
        *,
        store: AnswerStore | None = None,
        order: InputOrder | None = None,
        alone: bool = True,
    ) -> None:
        self._asks, self._order = asks, order
        slots = asking.slots
        self._ask = asking.ask(asks.judge, store)
        self._source: PromptSource[ToDo] = PromptSource(items, ahead=slots.most)
        metered: Source[ToDo]
        metered, handled = slots.metered(self._source, self._handle)
        # Twice as many tasks as slots: a prompt that waits for its next attempt leaves its slot to another.
        # Answers that are shared need no slot.
        self._pool: WorkerPool[ToDo] = WorkerPool(
            metered,
            handled,
            tasks=2 * slots.most,
            keep=asking.admission.in_flight,
            slots=slots.slots if alone and store is None else None,
        )
        if second_s := asking.job.stragglers.second_attempt_s:
            worker = asking.opened_worker
            known = worker.stragglers  # of a work before this one
            self._pool.ended = worker.allow_second_attempts(second_s, asks.all_read) if known is None else known.look
        self._delivery = Delivery(
            output,
            order=order,
            writing=self._pool.writing,
            tally=asks.tally,
            observer=asks.observer,
            failed=asks.stop_for_results,
        )

    @property
    def exhausted(self) -> bool:
        """Whether every item has been taken."""
        return self._source.exhausted

    async def run(self) -> None:
        """See ``Work``."""
        try:
            await self._pool.run()
        except* BatchchatError as group:
            raise group.exceptions[0] from None

    def drain(self) -> None:
        """See ``Work``."""
        self._pool.drain()

    def abort(self) -> None:
        """See ``Work``."""
        self._pool.abort()

    async def _handle(self, item: ToDo) -> None:
        """One item's whole life; an answer that arrived is written whatever happens meanwhile."""
        if isinstance(item, BatchchatError):
            self._asks.stop(StopReason(kind="input", message=str(item)), exit_code=item.exit_code)
            return
        await self._with_ticket(item, None if self._order is None else self._order.ticket())

    async def _with_ticket(self, item: ToDo, ticket: int | None) -> None:
        record = self._delivery.record
        try:
            if isinstance(item, InputFault):
                self._asks.judge(item.id, None)
                await record(fault_outcome(item), ticket)
            elif isinstance(item, tuple):
                deliver = record if ticket is None else partial(record, ticket=ticket)
                await self._ask(*item, deliver)
        except Abandoned:
            return
        finally:
            if self._order is not None and ticket is not None:
                self._order.leave(ticket)


class LocalAsking(Asking):
    """Asks in this process."""

    def work(
        self,
        asks: Asks,
        items: Iterable[ToDo],
        output: RunOutput,
        *,
        reader: PromptReader,
        store: AnswerStore | None = None,
        order: InputOrder | None = None,
        left: int | None = None,
    ) -> Work:
        """See ``Asking.work``."""
        return PoolWork(self, asks, items, output, store=store, order=order)
