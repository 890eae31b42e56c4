"""What attempts are taken to cost before they are sent, and what they are counted for afterwards."""

from decimal import Decimal
from typing import Any

import pytest

from batchchat.budget import Budget
from batchchat.errors import (
    AttemptTimeoutError,
    ConfigError,
    IncompleteError,
    InvalidRequestError,
    NetworkError,
    ProviderError,
    RateLimitError,
    RefusedError,
    ServerError,
)
from batchchat.meter import Meter, Trip
from batchchat.prices import PriceConfig, PriceList
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion, Prompt, Usage
from batchchat.tokens import TokenCounter
from tests.virtual_time import run_virtual

MESSAGES = [{"role": "user", "content": "0123456789" * 10}]
INPUT = 50 + 7  # by the rule: digits are half a token each
MOST_INPUT = 100 + 32


def metered(limit: str | None = None, **options: Any) -> Meter:
    """A dollar for each token in, two for each out."""
    prices = PriceList({"m": PriceConfig(input=1e6, output=1_000_000)}, library=False)
    budget = Budget(None if limit is None else Decimal(limit))
    return Meter(budget, prices=prices, routes=[("m",)], **options)


def request(**params: Any) -> ChatRequest:
    return ChatRequest(messages=MESSAGES, params=params)


async def sent(meter: Meter, asked: ChatRequest | None = None) -> Trip:
    trip = await meter.begin(asked or request())
    trip.sent = True
    return trip


def answered(tokens: int = 3, *, sent_tokens: int = 5) -> Completion:
    return Completion(text="x", usage=Usage(input_tokens=sent_tokens, output_tokens=tokens))


async def held(meter: Meter, asked: ChatRequest) -> Decimal | None:
    trip = await meter.begin(asked)
    amount = trip.held
    meter.drop(trip)
    return amount


def test_bytes_and_max_tokens_are_held() -> None:
    async def main() -> None:
        meter = metered("100000")
        assert await held(meter, request(max_tokens=10)) == MOST_INPUT + 10
        assert await held(meter, request(max_tokens=10, n=3)) == MOST_INPUT + 30
        assert await held(meter, request()) == MOST_INPUT + 1000
        assert meter.budget.spent.cost_usd == 0

    run_virtual(main())


def test_counted_tokens_and_a_tenth_are_held_where_the_model_is_known_to_tiktoken() -> None:
    class Tens:
        def encode(self, text: str, *, disallowed_special: object) -> list[int]:
            return [0] * (len(text) // 10)

    async def main() -> None:
        meter = metered("100000", counter=TokenCounter(load=lambda model: Tens()))
        assert await held(meter, request(max_tokens=1)) == 17 + 1 + 32 + 1

    run_virtual(main())


def test_what_answers_show_is_held_for_the_next_ones() -> None:
    async def main() -> None:
        meter = metered("10000000")
        for _ in range(10):
            await meter.settle(await sent(meter), answered(400))
        assert await held(meter, request()) == MOST_INPUT + 500
        await meter.settle(await sent(meter), answered(8000))
        assert await held(meter, request()) == MOST_INPUT + 10000
        assert await held(meter, request(max_tokens=7)) == MOST_INPUT + 7
        # A service that makes more than max_tokens, or adds instructions of its own, is not believed any more.
        await meter.settle(await sent(meter, request(max_tokens=7)), answered(8, sent_tokens=2 * MOST_INPUT))
        assert await held(meter, request(max_tokens=7)) == 2 * MOST_INPUT + 10000

    run_virtual(main())


def test_tokens_a_minute_take_the_mean_answer_or_max_tokens() -> None:
    async def main() -> None:
        meter = metered(ahead=True)
        assert (await sent(meter)).likely == INPUT
        await meter.settle(await sent(meter), answered(40))
        await meter.settle(await sent(meter), answered(60))
        assert (await sent(meter)).likely == INPUT + 50
        assert (await sent(meter, request(max_tokens=500))).likely == INPUT + 500

    run_virtual(main())


@pytest.mark.parametrize(
    ("error", "on_the_wire", "cost"),
    [
        (RateLimitError("slow", status=429), True, 0),
        (ServerError("no", status=500), True, 0),
        (NetworkError("lost"), True, 0),
        (AttemptTimeoutError("late"), False, 0),
        (AttemptTimeoutError("late"), True, INPUT),
        (IncompleteError("cut", partial="abcd"), True, INPUT + 1),
        (ServerError("broken off", partial="abcdefgh"), True, INPUT + 2),
        (RefusedError("no"), True, INPUT),
        (RefusedError("no", status=400), True, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ProviderError) else None,
)
@pytest.mark.parametrize("limit", [None, "10000"])
def test_failed_attempts_cost_what_the_service_worked_for(
    error: ProviderError, on_the_wire: bool, cost: int, limit: str | None
) -> None:
    async def main() -> None:
        meter = metered(limit)
        trip = await meter.begin(request(max_tokens=5))
        trip.sent = on_the_wire
        meter.fail(trip, error)
        spent = meter.budget.spent
        assert spent.cost_usd == cost
        assert spent.estimated_requests == (1 if cost else 0)
        await meter.begin(request(max_tokens=9000))  # all that was held is given back

    run_virtual(main())


def test_attempt_that_is_given_up_costs_its_input_if_it_was_sent() -> None:
    async def main() -> None:
        meter = metered("10000")
        meter.drop(await meter.begin(request()))
        assert meter.budget.spent.cost_usd == 0
        meter.drop(await sent(meter))
        assert meter.budget.spent.cost_usd == INPUT

    run_virtual(main())


def test_price_goes_by_the_model_that_was_asked_for_then_by_the_one_that_answered() -> None:
    async def main() -> None:
        prices = PriceList(
            {"asked": PriceConfig(input=1e6, output=0), "told": PriceConfig(input=2e5, output=0)}, library=False
        )
        for model, told, cost in (("asked", "told", 5), ("else", "told", 1), (None, "told", 1), ("else", None, None)):
            meter = Meter(prices=prices, routes=[(model,) if model else ()])
            completion = Completion(text="x", model=told, usage=Usage(input_tokens=5, output_tokens=1))
            await meter.settle(await sent(meter), completion)
            assert meter.budget.spent.cost_usd == cost
        assert meter.budget.spent.unpriced == {"else": 1}

    run_virtual(main())


def test_of_several_ways_the_dearest_is_held_and_the_one_that_answers_is_paid() -> None:
    async def main() -> None:
        prices = {"big": PriceConfig(input=0, output=9e5), "small": PriceConfig(input=0, output=1e5)}
        routes = [("big",), ("some-deployment", "small")]
        meter = Meter(Budget(Decimal(1000)), prices=PriceList(prices, library=False), routes=routes)
        meter.checking(None)(Prompt(id=1, index=0, line_number=1, messages=MESSAGES))
        for told, cost in (("small", "1"), ("big-2026-01-01", "10"), (None, "19"), ("some-deployment", "28")):
            trip = await sent(meter, request(max_tokens=100))
            assert trip.held == 90
            completion = Completion(text="x", model=told, usage=Usage(input_tokens=5, output_tokens=10))
            await meter.settle(trip, completion)
            assert meter.budget.spent.cost_usd == Decimal(cost)
        assert await held(meter, ChatRequest(messages=MESSAGES, model="small", params={"max_tokens": 100})) == 10

    run_virtual(main())


def test_every_way_needs_a_price() -> None:
    prices = PriceList({"big": PriceConfig(input=1, output=1)}, library=False)
    meter = Meter(Budget(Decimal(1)), prices=prices, routes=[("big",), ("other",)])
    with pytest.raises(ConfigError, match="no price for model other"):
        meter.checking(None)(Prompt(id=1, index=0, line_number=1, messages=MESSAGES))


def test_budget_without_a_price_refuses_prompt_and_request() -> None:
    async def main() -> None:
        meter = metered("1")
        check = meter.checking(None)
        check(Prompt(id=1, index=0, line_number=1, messages=MESSAGES))
        with pytest.raises(ConfigError, match="no price for model other"):
            check(Prompt(id=1, index=0, line_number=1, messages=MESSAGES, model="other"))
        with pytest.raises(InvalidRequestError, match="no price for model other"):
            await meter.begin(ChatRequest(messages=MESSAGES, model="other"))

    run_virtual(main())
