"""A worker's budget: a part of the run's, which the desk grants."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Protocol

from batchchat.budget import Budget
from batchchat.prices import money
from batchchat.ray.ledger import BudgetAsk, Granted

__all__ = ["DeskBudget"]


class BudgetDesk(Protocol):
    """The desk, as far as it is asked for the budget."""

    def grant(self, ask: BudgetAsk) -> Awaitable[Granted]:
        """See ``Desk.grant``."""

    def update_budget(self, ask: BudgetAsk) -> Awaitable[None]:
        """See ``Desk.update_budget``."""


class DeskBudget(Budget):
    """See ``Budget``; what it may spend is asked for as it is needed.

    Args:
        desk: Where it is asked for.
        life: Gives the name of this start of the worker.
    """

    def __init__(
        self, limit_usd: Decimal, exhausted: Callable[[str], None], *, desk: BudgetDesk, life: Callable[[], str]
    ) -> None:
        super().__init__(limit_usd, exhausted)
        self._desk, self._life = desk, life
        self._granted = Decimal(0)
        self._number = 0
        self._asking: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._short = self._unknown = self._untold = False
        self._over: Granted | None = None

    def short(self, short: bool) -> None:
        """The desk's word: whether somebody waits for what this worker does not need."""
        self._short = short
        self._tell_later()

    def desk_began_again(self) -> None:
        """The desk does not know what this worker has on its way."""
        if self._number:  # else it never asked for anything
            self._unknown = True
            self._tell_later()

    async def close(self) -> None:
        """Gives back what was not spent; the worker asks for nothing more."""
        if self._number:
            self._unknown = True
            await self._tell_now()

    def release(self, usd: Decimal) -> None:
        """See ``Budget.release``."""
        super().release(usd)
        self._tell_later()

    def _fits(self, usd: Decimal) -> bool:
        return self._cost + self._held + usd <= self._granted

    def _look(self) -> None:
        while self._line and (self._line[0].granted.done() or self._fits(self._line[0].usd)):
            usd, _, granted = self._line.popleft()
            if not granted.done():
                self._take(usd)
                granted.set_result(usd)
        if self._line and self._over is None and not self._asks:
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    @property
    def _asks(self) -> bool:
        return self._asking is not None and not self._asking.done()

    async def _ask(self) -> None:
        while self._line and self._over is None:
            self._number += 1
            granted = await self._desk.grant(self._said())
            if granted.exhausted:
                if self._line:
                    self._over = granted
                    self._tell(self._line[0].alone)
                return
            if granted.again:
                self._granted = self._cost + self._held
                continue
            self._granted = granted.usd
            if self._line and not self._holds and not self._fits(self._line[0].usd) and self._fits(self._line[0].alone):
                self._line[0] = self._line[0]._replace(usd=self._line[0].alone)
            self._look()
        self._tell_later()

    def _tell_later(self) -> None:
        """Tells the desk soon, where it needs to know."""
        if self._short or self._unknown:
            self._untold = True
            if self._telling is None or self._telling.done():
                self._telling = asyncio.get_running_loop().create_task(self._tell_all())

    async def _tell_all(self) -> None:
        while self._untold:  # also what came while it was told
            self._untold = False
            await self._tell_now()

    async def _tell_now(self) -> None:
        unknown, self._unknown = self._unknown, False
        if not self._asks:
            if self._granted <= self._cost + self._held and self._holds and not unknown:
                return
            self._granted = self._cost + self._held  # what is neither spent nor held is given back
        await self._desk.update_budget(self._said())

    def _said(self) -> BudgetAsk:
        base = self._cost + self._held
        first = self._line[0] if self._line and self._asks else None
        return BudgetAsk(
            life=self._life(),
            number=self._number,
            have=self._granted,
            spent=self._cost,
            want=Decimal(0) if first is None else base + first.usd,
            alone=Decimal(0) if first is None else base + first.alone,
            holds=self._holds,
        )

    def _sentence(self, usd: Decimal) -> str:
        spent = self._cost if self._over is None else self._over.spent
        return (
            f"the budget of {money(self.limit_usd or 0)} allows no further request: {money(spent)} are spent, "
            f"and the next one may cost up to {money(usd)} (less with a smaller max_tokens)"
        )
