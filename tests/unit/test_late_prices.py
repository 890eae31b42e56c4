"""Prices that take long to load hold up neither the first request nor an answer, and miss nothing that was spent."""

import asyncio
import sys
import threading
from decimal import Decimal

import pytest

from batchchat.budget import Budget
from batchchat.errors import IncompleteError
from batchchat.meter import Meter
from batchchat.prices import FREE, Price, PriceConfig, PriceList
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion, Usage

ASKED = ChatRequest(messages=[{"role": "user", "content": "Hello"}])
DOLLAR = Price(input=Decimal(1), cached_input=Decimal(1), output=Decimal(1), reasoning=Decimal(1))


class SlowPrices(PriceList):
    """A library that is loaded when the test says so, in whatever thread; a dollar for every token."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.loading, self.may_load, self.loaded, self.error = threading.Event(), threading.Event(), False, error

    def load(self) -> None:
        self.loading.set()
        assert self.may_load.wait(20)
        if self.error is not None:
            raise self.error
        self.loaded = True

    def price_for(self, model: str | None) -> Price:
        assert self.loaded
        return DOLLAR


async def answer(meter: Meter, tokens: int) -> None:
    trip = await meter.begin(ASKED)
    trip.sent = True
    await meter.settle(trip, Completion(text="x", usage=Usage(input_tokens=0, output_tokens=tokens)))


async def fail(meter: Meter) -> None:
    trip = await meter.begin(ASKED)
    trip.sent = True
    meter.fail(trip, IncompleteError("cut", partial="four"))


async def test_answers_do_not_wait_for_prices_and_are_priced_at_the_end() -> None:
    """Whatever is spent before, while and after prices are loaded is in the sum, failed attempts too."""
    prices = SlowPrices()
    meter = Meter(Budget(), prices=prices, routes=[("m",)])
    async with meter:
        await meter.prepare()
        assert not prices.loading.is_set()
        await answer(meter, 5)
        await fail(meter)
        await asyncio.to_thread(prices.loading.wait, 20)
        await answer(meter, 7)
        assert meter.budget.spent.cost_usd == 0
        prices.may_load.set()
    usage = meter.budget.spent.usage
    assert meter.budget.spent.cost_usd == (usage.input_tokens or 0) + (usage.output_tokens or 0) >= 5 + 7 + 1
    await answer(meter, 11)
    assert meter.budget.spent.usage.output_tokens == (usage.output_tokens or 0) + 11
    assert meter.budget.spent.unpriced == {}


async def test_a_run_that_is_cancelled_counts_what_it_spent_first() -> None:
    """A second Ctrl-C while prices are loaded changes no figure, and still ends the run as cancelled."""
    prices = SlowPrices()
    meter = Meter(Budget(), prices=prices, routes=[("m",)])

    async def run() -> None:
        async with meter:
            await answer(meter, 5)

    running = asyncio.ensure_future(run())
    await asyncio.to_thread(prices.loading.wait, 20)
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    assert not running.done()
    prices.may_load.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert meter.budget.spent.cost_usd == 5


async def test_a_budget_has_its_prices_before_the_first_request() -> None:
    """What decides whether a request goes out is not loaded afterwards."""
    prices = SlowPrices()
    prices.may_load.set()
    meter = Meter(Budget(Decimal(10_000)), prices=prices, routes=[("m",)])
    async with meter:
        await meter.prepare()
        assert prices.loaded
        await answer(meter, 5)
        assert meter.budget.spent.cost_usd == 5


@pytest.mark.parametrize(
    "prices",
    [PriceList(library=False), PriceList(free=True), PriceList({"*": PriceConfig(input=1.0, output=1.0)})],
    ids=["none", "free", "own"],
)
async def test_prices_that_are_there_are_counted_at_once(prices: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library has nothing to say, it is not asked."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    meter = Meter(Budget(), prices=prices, routes=[("m",)])
    async with meter:
        await meter.prepare()
        await answer(meter, 5)
        assert meter.budget.spent.usage.output_tokens == 5
        assert (meter.budget.spent.unpriced == {"m": 1}) == (not prices.sources)
    assert prices.sources in ((), (FREE,), ("the job",))


@pytest.mark.parametrize("told", [None, "m"])
async def test_library_is_loaded_only_for_models_that_have_a_name(
    told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services of the AI Engine, as a rule, tell none."""
    asked: list[str] = []
    monkeypatch.setattr("batchchat.prices._library_price", lambda model, base_url: asked.append(model))
    async with Meter(Budget(), prices=PriceList()) as meter:
        await fail(meter)
        trip = await meter.begin(ASKED)
        await meter.settle(trip, Completion(text="x", model=told, usage=Usage(input_tokens=1, output_tokens=5)))
    assert bool(asked) == (told is not None)
    assert meter.budget.spent.unpriced == ({"": 2} if told is None else {"": 1, "m": 1})


async def test_a_library_that_cannot_be_loaded_is_told_once_the_answers_are_safe() -> None:
    """A bug in it comes out at the end of the run, not in the middle of an answer."""
    prices = SlowPrices(ZeroDivisionError("in the library"))
    prices.may_load.set()
    answered = False
    with pytest.raises(ZeroDivisionError):
        async with Meter(Budget(), prices=prices, routes=[("m",)]) as meter:
            await answer(meter, 5)
            answered = True
    assert answered
