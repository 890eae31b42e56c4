"""A worker's line to the desk: what it tells, what it hears, and what it shares with the others."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from batchchat.ray.ledger import BudgetAsk, Granted
from batchchat.ray.words import Told, Word

__all__ = ["DeskCalls", "DeskLine", "DeskNonce"]

# What is no news is told so often while there is something to tell.
_EVERY_S = 0.5


class DeskCalls(Protocol):
    """The desk's methods, wherever it is; what they return can be awaited."""

    def tell(self, told: Told) -> Awaitable[Word]:
        """See ``Desk.tell``."""

    def hear(self, revision: int) -> Awaitable[Word]:
        """See ``Desk.hear``."""

    def grant(self, ask: BudgetAsk) -> Awaitable[Granted]:
        """See ``Desk.grant``."""

    def update_budget(self, ask: BudgetAsk) -> Awaitable[None]:
        """See ``Desk.update_budget``."""

    def take_nonce(self, life: str, refused: str | None) -> Awaitable[tuple[str, float] | None]:
        """See ``Desk.take_nonce``."""

    def keep_nonce(self, life: str, value: str, age_s: float) -> Awaitable[None]:
        """See ``Desk.keep_nonce``."""

    def fail_nonce(self, life: str) -> Awaitable[None]:
        """See ``Desk.fail_nonce``."""

    def exchange(self, ask: Any) -> Awaitable[Any]:
        """See ``Desk.exchange``."""


class DeskLine:
    """Tells the desk how the worker does, and hears how far the run is, while it is entered.

    Args:
        told: Gives what is to be told now, without a number; it is told once.
        heard: Called with each word of the desk.
        acknowledged: Called each time that the desk has taken in what was told.
        failed: Called once with a sentence where the desk is gone for good.

    Attributes:
        life: Name of this start of the worker.
    """

    def __init__(
        self,
        desk: DeskCalls,
        *,
        told: Callable[[], Told],
        heard: Callable[[Word], None],
        acknowledged: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.life = secrets.token_hex(8)
        self._desk, self._told, self._heard, self._failed = desk, told, heard, failed
        self._acknowledged = acknowledged
        self._urgent = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._number = 0

    async def __aenter__(self) -> "DeskLine":
        self._heard(await self._desk.tell(self._numbered(self._told())))
        self._tasks = [asyncio.create_task(each()) for each in (self._tell, self._hear)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._desk.tell(self._numbered(msgspec.structs.replace(self._told(), last=True)))

    def hurry(self) -> None:
        """Tells at once."""
        self._urgent.set()

    async def _tell(self) -> None:
        before = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._urgent.wait()
            self._urgent.clear()
            told = self._told()
            if told != before:
                before = told
                self._heard(await self._call(self._desk.tell(self._numbered(told))))
                self._acknowledged()

    def _numbered(self, told: Told) -> Told:
        self._number += 1
        return msgspec.structs.replace(told, number=self._number)

    async def _hear(self) -> None:
        revision = -1
        while True:
            word = await self._call(self._desk.hear(revision))
            revision = word.revision
            self._heard(word)

    async def _call(self, answer: Awaitable[Word]) -> Word:
        try:
            return await answer
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(f"the desk of the run is gone: {type(error).__name__}")
            raise


class DeskNonce:
    """See ``SharedNonce``; the nonce is kept at the desk."""

    def __init__(self, desk: DeskCalls, life: Callable[[], str]) -> None:
        self._desk, self._life = desk, life
        self._telling: set[asyncio.Future[None]] = set()

    async def take(self, refused: Container[str], max_age_s: float) -> tuple[str, float] | None:
        """See ``SharedNonce.take``."""
        told = None
        while True:
            try:
                given = await self._desk.take_nonce(self._life(), told)
            except asyncio.CancelledError:  # the desk does not see that nobody waits any more
                self.fail()
                raise
            if given is None or (given[0] not in refused and given[1] < max_age_s):
                return given
            told = given[0]

    def keep(self, value: str, age_s: float) -> None:
        """See ``SharedNonce.keep``."""
        self._later(self._desk.keep_nonce(self._life(), value, age_s))

    def fail(self) -> None:
        """See ``SharedNonce.fail``."""
        self._later(self._desk.fail_nonce(self._life()))

    def _later(self, call: Awaitable[None]) -> None:
        task = asyncio.ensure_future(call)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
