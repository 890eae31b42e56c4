"""Outcomes to their files, in the order that is wanted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from batchchat.errors import ResultsWriteError
from batchchat.observer import RunObserver
from batchchat.pool import InputOrder
from batchchat.records import Outcome
from batchchat.tally import Tally

__all__ = ["Delivery", "Output"]


class Output(Protocol):
    """Where outcomes go, such as ``RunOutput``."""

    def write(self, outcome: Outcome, /) -> Awaitable[None]:
        """Takes one; to be awaited until it is safe.

        Raises:
            ResultsWriteError: It could not be taken.
        """

    def write_soon(self, outcome: Outcome, /) -> None:
        """Takes one without a wait."""


class Delivery:
    """Writes outcomes, counts those that are in their file, and tells of them.

    Args:
        order: Where outcomes wait for those before them; None for the order of completion.
        writing: Tasks that have an outcome to be written; nobody ends these.
        failed: Told once of each outcome that cannot be written, with a sentence (empty where there is nothing to say).
    """

    def __init__(
        self,
        output: Output,
        *,
        order: InputOrder | None,
        writing: set[asyncio.Task[Any]],
        tally: Tally,
        observer: RunObserver,
        failed: Callable[[str], None],
    ) -> None:
        self._output, self._order, self._writing = output, order, writing
        self._tally, self._observer, self._failed = tally, observer, failed
        self._loop = asyncio.get_running_loop()

    async def record(self, outcome: Outcome, ticket: int | None = None) -> None:
        """Brings an outcome to its file; ``ticket`` is its place in the order, if there is one."""
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("an outcome without a running task")
        self._writing.add(task)
        try:
            if self._order is not None and ticket is not None:
                await self._wait_for_turn(self._order, ticket, outcome)
            await self._output.write(outcome)
        except ResultsWriteError as error:
            self._failed("" if getattr(error, "quiet", False) else str(error))
            return
        finally:
            self._writing.discard(task)
        self._tally.add(outcome)
        self._observer.prompt_finished(outcome)

    async def _wait_for_turn(self, order: InputOrder, ticket: int, outcome: Outcome) -> None:
        try:
            await order.wait(ticket)
        except asyncio.CancelledError:
            self._output.write_soon(outcome)  # out of order rather than lost
            raise
