"""When a worker talks to its desk: for leases, for news, and to tell what became of the leases that it had."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from batchchat.leases.line import Line
from batchchat.leases.messages import Answer
from batchchat.leases.stock import Stock

__all__ = ["Talk"]

_TICK_S = 0.001
# What nobody waits for is told this many times later than a lease is long: as a rule with an ask for leases.
_LATER = 4
# Who has leases for longer than this does not ask for more.
_EARLY_S = 0.025
# An answer that says nothing and was not held: the desk is about to end.
_AT_ONCE_S, _AGAIN_S = 0.5, 0.5
# How long the last message may take.
_LAST_S = 1.0


class Talk:
    """Tasks that talk to the desk from ``begin`` to ``end``.

    Args:
        known: Gives the last revision that is known.
    """

    def __init__(self, line: Line, stock: Stock, clock: Callable[[], float], known: Callable[[], int]) -> None:
        self._line, self._stock, self._now, self._known = line, stock, clock, known
        self._wanted, self._telling, self._urgent = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._tell_s = 0.05

    async def begin(self) -> None:
        """Hears from the desk for the first time, where its clock stands."""
        await self._line.tell()
        for each in (self._ask_for_leases, self._ask_for_news, self._tell_reports):
            self._tasks.append(asyncio.create_task(each()))
            self._tasks[-1].add_done_callback(self._ended)

    async def end(self) -> None:
        """Says goodbye, if the desk is there to hear it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stock.send_away()
        self._stock.drop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await self._line.tell(lambda: {"gone": True})

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Who waits for a lease would wait for ever where a task died."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._line.fail(error)

    def want(self) -> None:
        """Requests wait for leases."""
        self._wanted.set()

    def tell(self, *, urgent: bool = False) -> None:
        """There is something to report."""
        self._telling.set()
        if urgent:
            self._urgent.set()

    def heard(self, answer: Answer) -> None:
        """What an answer says of when to talk."""
        self._tell_s = answer.tell_s

    async def _ask_for_leases(self) -> None:
        while not self._line.broken:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._stock) and not self._line.broken:
                early_s = max(_EARLY_S, 4 * self._line.lead_s)
                if (spare_s := self._stock.last_begins - self._now() - early_s) > 0:
                    await asyncio.sleep(min(spare_s, _EARLY_S))  # more will be wanted by then, with one message
                await self._patiently(self._wants, lambda answer: bool(answer.leases))

    def _wants(self) -> dict[str, Any]:
        wants, waited_s = self._stock.wants(self._now())
        return {"wants": wants, "waited_s": waited_s}

    async def _ask_for_news(self) -> None:
        while not self._line.broken:
            known = self._known()
            await self._patiently(lambda: {"news": self._known()}, lambda answer: answer.revision != known)  # noqa: B023

    async def _patiently(self, make: Callable[[], dict[str, Any]], useful: Callable[[Answer], bool]) -> None:
        """Asks, and takes its time where the answer came at once and says nothing."""
        asked_at = self._now()
        answer = await self._line.tell(make)
        if answer is not None and not useful(answer) and self._now() - asked_at < _AT_ONCE_S:
            await asyncio.sleep(_AGAIN_S)

    async def _tell_reports(self) -> None:
        while not self._line.broken:
            await self._telling.wait()
            self._telling.clear()
            # As a rule an ask for leases takes it along meanwhile.
            while self._line.reports and not self._urgent.is_set():
                later_s = self._line.told_at + _LATER * self._tell_s - self._now()
                if later_s <= 0:
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(_TICK_S, later_s)):
                        await self._urgent.wait()
            self._urgent.clear()
            if self._line.reports:
                await self._line.tell()
