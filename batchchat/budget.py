"""What a run has spent, and the gate that keeps it within the user's budget."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec

from batchchat.prices import Priced, money
from batchchat.records import Usage

__all__ = ["Budget", "NoRoomError", "Spent"]


class NoRoomError(Exception):
    """A request that does not wait for the budget does not fit now."""


class _Waiter(NamedTuple):
    usd: Decimal
    alone: Decimal
    granted: "asyncio.Future[Decimal]"


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and cost of every attempt that cost something.

    Attributes:
        usage: Sum of counted and estimated tokens.
        estimated_requests: Requests any part of whose usage is an estimate.
        cost_usd: US dollars; None where a model has no price.
        unpriced: Models without a price, each with its number of requests; the empty name where none is told.
    """

    usage: Usage = Usage()
    estimated_requests: int = 0
    cost_usd: Decimal | None = Decimal(0)
    unpriced: Mapping[str, int] = {}


class Budget:
    """Counts what is spent, and lets a request out only if its highest likely cost still fits.

    A request that does not fit waits until those before it are settled, first come first served. Where none is left
    to settle and the first in the line still does not fit, the budget is used up.

    Args:
        limit_usd: US dollars; None only counts.
        exhausted: Called once, on the event loop, with a sentence when the budget is used up; it must end those that
            wait.
    """

    def __init__(self, limit_usd: Decimal | None = None, exhausted: Callable[[str], None] = lambda why: None) -> None:
        self.limit_usd, self._exhausted = limit_usd, exhausted
        self._cost = self._held = Decimal(0)
        self._holds = 0
        self._line: deque[_Waiter] = deque()
        self._told = False
        self._usage = Usage()
        self._estimated = 0
        self._unpriced: dict[str, int] = {}

    async def hold(self, usd: Decimal, *, alone: Decimal | None = None) -> Decimal:
        """Waits until ``usd`` more fit, and holds them until ``release``.

        Args:
            alone: What is enough to be let out while nothing else is on its way, where that is less: a first request
                that tells what the next ones cost.

        Returns:
            What is held.
        """
        if not self._line and self._fits(usd):
            self._take(usd)
            return usd
        waiter = _Waiter(usd, usd if alone is None else alone, asyncio.get_running_loop().create_future())
        self._line.append(waiter)
        self._look()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.release(waiter.granted.result())
            else:
                self._line = deque(each for each in self._line if each is not waiter)
                self._look()
            raise

    def has_room(self, usd: Decimal) -> bool:
        """Whether ``hold`` would not wait."""
        return not self._line and self._fits(usd)

    def release(self, usd: Decimal) -> None:
        """Gives back what ``hold`` took; what the request did cost is told with ``spend`` before."""
        self._held -= usd
        self._holds -= 1
        self._look()

    def spend(self, usage: Usage, price: Priced | None, model: str | None) -> None:
        """Counts what one attempt cost."""
        self._usage += usage
        self._estimated += usage.estimated
        if price is None:
            self._unpriced[model or ""] = self._unpriced.get(model or "", 0) + 1
        else:
            self._cost += price.cost(usage)

    @property
    def spent(self) -> Spent:
        """The sums so far."""
        return Spent(
            usage=self._usage,
            estimated_requests=self._estimated,
            cost_usd=None if self._unpriced else self._cost,
            unpriced=dict(self._unpriced),
        )

    def _fits(self, usd: Decimal) -> bool:
        return self.limit_usd is None or self._cost + self._held + usd <= self.limit_usd

    def _take(self, usd: Decimal) -> None:
        self._held += usd
        self._holds += 1

    def _look(self) -> None:
        """Lets out those in front that fit; tells when none ever will."""
        while self._line:
            usd, alone, granted = self._line[0]
            if not granted.done():
                if not self._fits(usd):
                    if self._holds:
                        return
                    if not self._fits(alone):
                        self._tell(alone)
                        return
                    usd = alone
                self._take(usd)
                granted.set_result(usd)
            self._line.popleft()

    def _tell(self, usd: Decimal) -> None:
        if not self._told:
            self._told = True
            # Not at once: who looks may be a task that is in the middle of its answer.
            asyncio.get_running_loop().call_soon(self._exhausted, self._sentence(usd))

    def _sentence(self, usd: Decimal) -> str:
        return (
            f"the budget of {money(self.limit_usd or 0)} allows no further request: {money(self._cost)} are spent, "
            f"and the next one may cost up to {money(usd)} (less with a smaller max_tokens)"
        )
