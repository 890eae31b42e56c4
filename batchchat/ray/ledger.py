"""One budget over all workers: how much of it each may use. Pure."""

from collections.abc import Collection, Mapping
from decimal import Decimal

import msgspec

__all__ = ["BudgetAsk", "BudgetLedger", "Granted"]

# A worker is given so much more than it asks for where there is plenty, so that it need not ask for each request.
_SHARES = 256


class BudgetAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of its budget; amounts are US dollars since its start.

    Attributes:
        life: Of the worker.
        number: Of its asks for more; what it tells in between has that of the last one.
        have: What it may spend.
        spent: What it has spent.
        want: What it needs to go on; 0 where it waits for nothing.
        alone: What is enough to go on where nothing of any worker's is on its way.
        holds: Requests on their way.
    """

    life: str
    number: int
    have: Decimal
    spent: Decimal
    want: Decimal = Decimal(0)
    alone: Decimal = Decimal(0)
    holds: int = 0


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker may spend from now on, since its start; or that nothing more can be had.

    Attributes:
        again: Whether the worker is to give back what it has and does not use, as others may, and to ask again.
        limit, spent: The whole budget, and what all have spent.
    """

    usd: Decimal
    exhausted: bool
    limit: Decimal
    spent: Decimal
    again: bool = False


class BudgetLedger:
    """Sees that what the workers may spend is never more than the budget.

    A worker that is gone keeps what it had: it may have spent it.

    Args:
        limit: US dollars.
        granted, asked, gone: What was known at the end of an earlier start: what workers had, the numbers of the asks
            by which they came to that, who was gone. Those who are not may have something on its way until they speak.

    Attributes:
        granted: What each worker may spend.
        asked: Number of the last ask of each.
    """

    def __init__(
        self,
        limit: Decimal,
        granted: Mapping[str, Decimal] | None = None,
        *,
        asked: Mapping[str, int] | None = None,
        gone: Collection[str] = (),
    ) -> None:
        self.limit = limit
        self.granted = dict(granted or {})
        self.asked = dict(asked or {})
        self._spent: dict[str, Decimal] = {}
        self._line: dict[str, BudgetAsk] = {}
        self._holds: dict[str, int] = {}
        self._gone = set(gone)

    def ask(self, ask: BudgetAsk) -> None:
        """Takes in what a worker wants, which is given in the order of asking, by ``grants``."""
        self.granted[ask.life] = ask.have
        self._spent[ask.life], self._holds[ask.life] = ask.spent, ask.holds
        self._line[ask.life], self.asked[ask.life] = ask, ask.number

    def update(self, ask: BudgetAsk) -> None:
        """Takes in how a worker does now, whether it waits or not."""
        self._spent[ask.life], self._holds[ask.life] = ask.spent, ask.holds
        waiting = self._line.get(ask.life)
        if ask.want:
            if waiting is not None and waiting.number == ask.number:
                self._line[ask.life] = ask
        elif self.asked.get(ask.life) == ask.number:
            self.granted[ask.life] = ask.have  # it knows of all that was granted, and gives back

    def lost(self, life: str) -> None:
        """A worker is gone."""
        self._gone.add(life)
        self._line.pop(life, None)

    def refused(self, ask: BudgetAsk) -> Granted:
        """The answer to a worker that is taken to be gone: it may spend what it has, and no more."""
        spent = sum(self._spent.values(), Decimal(0))
        return Granted(usd=ask.have, exhausted=True, limit=self.limit, spent=spent)

    def grants(self) -> dict[str, Granted]:
        """What can be said now, by worker; they are out of the line then."""
        said: dict[str, Granted] = {}
        for life, ask in list(self._line.items()):
            free = self.limit - sum(self.granted.values(), Decimal(0))
            need = ask.want - self.granted[life]
            if need > free:
                if not self._nothing_on_way():
                    break
                need = ask.alone - self.granted[life]
                if need > free:
                    keep = [each for each in self._line if each != life and self.granted[each] > self._spent[each]]
                    said |= {
                        each: self._said(each, exhausted=not keep, again=bool(keep)) for each in keep or self._line
                    }
                    for each in said:
                        self._line.pop(each, None)
                    break
            else:
                need = min(free, max(need, self.limit / _SHARES))
            self.granted[life] += need
            self._holds[life] = 1  # until it says otherwise
            del self._line[life]
            said[life] = self._said(life, exhausted=False)
        return said

    @property
    def short(self) -> bool:
        """Whether somebody waits, so that the others should give back what they do not need."""
        return bool(self._line)

    def _said(self, life: str, *, exhausted: bool, again: bool = False) -> Granted:
        spent = sum(self._spent.values(), Decimal(0))
        return Granted(usd=self.granted[life], exhausted=exhausted, again=again, limit=self.limit, spent=spent)

    def _nothing_on_way(self) -> bool:
        """Whether no worker that is there has anything that it could give back, now or later."""
        alive = [life for life in self.granted if life not in self._gone]
        # One that waits keeps what it has, which is less than it needs for one request.
        return all(
            not self._holds.get(life, 1) and (life in self._line or self.granted[life] <= self._spent[life])
            for life in alive
        )
