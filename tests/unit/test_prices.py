"""Prices and the arithmetic with them."""

import sys
from decimal import Decimal

import pytest

from batchchat.config import load_job
from batchchat.errors import ConfigError
from batchchat.job_setup import make_prices
from batchchat.prices import Price, PriceConfig, PriceList, money
from batchchat.records import Usage

MINI = PriceConfig(input=0.15, output=0.6, cached_input=0.075)


def own(*names: str) -> PriceList:
    """Prices whose input price tells which entry was taken."""
    prices = {name: PriceConfig(input=float(number), output=0) for number, name in enumerate(names, 1)}
    return PriceList(prices, library=False)


def taken(prices: PriceList, model: str | None) -> int | None:
    price = prices.price_for(model)
    return None if price is None else round(price.cost(Usage(input_tokens=1_000_000)))


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("gpt-4o", 2),
        ("gpt-4o-mini", 1),
        ("gpt-4o-2024-08-06", 2),
        ("gpt-4o-mini-20240718", 1),
        ("gpt-4.1", 3),
        ("claude-sonnet-4@20250514", 5),
        ("llama", 4),
        ("", 4),
        (None, 4),
        ("GPT-4o", 4),
    ],
)
def test_the_most_exact_entry_counts(model: str | None, number: int) -> None:
    assert taken(own("gpt-4o-mini", "gpt-4o", "gpt-4*", "*", "claude-sonnet-4"), model) == number


def test_model_without_an_entry_has_no_price() -> None:
    prices = own("gpt-4o", "o[134]*")
    assert taken(prices, "o3-mini") == 2
    assert prices.price_for("o2") is None
    assert prices.price_for(None) is None
    assert prices.first_price(("unknown", "gpt-4o")) is not None
    assert prices.sources == ("the job",)


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(), "0"),
        (Usage(input_tokens=1_000_000), "0.15"),
        (Usage(input_tokens=1, output_tokens=1), "0.00000075"),
        (Usage(input_tokens=1000, cached_tokens=600), "0.000105"),
        (Usage(input_tokens=1000, cached_tokens=2000), "0.000075"),  # no more can be cached than was sent
        (Usage(output_tokens=1000, reasoning_tokens=900), "0.0006"),
        (Usage(output_tokens=100, reasoning_tokens=900), "0.0006"),  # reasoning that was not counted as output
        (Usage(input_tokens=-5, output_tokens=-5), "0"),
    ],
)
def test_cost_of_one_request(usage: Usage, usd: str) -> None:
    assert Price.per_million(MINI).cost(usage) == Decimal(usd)


def test_reasoning_may_have_a_price_of_its_own() -> None:
    price = Price.per_million(PriceConfig(input=1, output=2, reasoning=3))
    assert price.cost(Usage(output_tokens=100, reasoning_tokens=40)) == Decimal("0.00024")


def test_a_million_lines_add_up_exactly() -> None:
    cost = Price.per_million(PriceConfig(input=0.1, output=0.3)).cost(Usage(input_tokens=1, output_tokens=1))
    assert sum([cost] * 1_000_000, Decimal(0)) == Decimal("0.4")


@pytest.mark.parametrize(
    ("usd", "text"),
    [("0", "$0.00"), ("12.3", "$12.30"), ("1234567.891", "$1,234,567.89"), ("0.00418", "$0.00418"), ("0.999", "$1.00"),
     ("0.5", "$0.500"), ("0.0000000001", "$0.000000000100")],
)  # fmt: skip
def test_money_is_written_as_people_do(usd: str, text: str) -> None:
    assert money(Decimal(usd)) == text


def test_library_knows_models_by_name_and_by_address() -> None:
    usage = Usage(input_tokens=1000, output_tokens=200, cached_tokens=400)
    for base_url in (None, "https://api.openai.com/v1", "http://127.0.0.1:8000/v1", "https://openrouter.ai/api/v1"):
        prices = PriceList(base_url=base_url)
        price = prices.price_for("gpt-4o")
        assert price is not None
        assert price.cost(usage) == Decimal("0.004")
        assert prices.sources[0].startswith("genai-prices ")
    assert PriceList().price_for("no-such-model") is None
    assert PriceList().price_for("") is None
    assert PriceList().price_for(None) is None


def test_library_prices_that_depend_on_length_are_asked_for_each_request() -> None:
    price = PriceList().price_for("gemini-2.5-pro")
    assert price is not None
    short, long = price.cost(Usage(input_tokens=100_000)), price.cost(Usage(input_tokens=300_000))
    assert long > 3 * short > 0


def test_prices_of_the_job_go_before_the_library() -> None:
    prices = PriceList({"gpt-4o": PriceConfig(input=1, output=1)})
    assert taken(prices, "gpt-4o") == 1
    assert prices.sources == ("the job",)


def test_what_is_free_costs_nothing_unless_the_job_says_otherwise() -> None:
    prices = PriceList({"m": PriceConfig(input=1, output=1)}, free=True)
    assert taken(prices, "m") == 1
    assert taken(prices, "gpt-4o") == 0
    assert taken(prices, None) == 0


def test_model_on_this_machine_costs_nothing() -> None:
    prices = make_prices(load_job(None, {"provider.name": "local"}))
    assert taken(prices, "gpt-4o") == taken(prices, None) == 0
    dear = make_prices(load_job(None, {"provider.name": "local", "prices": {"*": {"input": 3, "output": 0}}}))
    assert taken(dear, None) == 3


def test_without_the_library_the_price_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    prices = PriceList()
    assert prices.price_for("gpt-4o") is None
    assert prices.sources == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("prices: {m: {input: 1}}", "the key output is missing"),
        ("prices: {m: {input: -1, output: 1}}", "prices.m.input"),
        ("prices: {m: {input: .nan, output: 1}}", "prices.m.input"),
        ("prices: {m: {input: .inf, output: 1}}", "prices.m.input"),
        ("prices: {m: {input: cheap, output: 1}}", "prices.m.input"),
        ("prices: {m: {input: 1, output: 1, cached: 1}}", "unknown key 'cached'"),
        ("prices: {m: 1}", "expected a mapping"),
        ("prices: [1]", "expected a mapping"),
        ("stop: {budget_usd: 0}", "stop.budget_usd"),
        ("stop: {budget_usd: .nan}", "stop.budget_usd"),
        ("stop: {budget_usd: .inf}", "stop.budget_usd"),
        ("stop: {budget_usd: -1}", "stop.budget_usd"),
    ],
)
def test_wrong_prices_and_budgets_are_told_with_their_place(tmp_path, text: str, found: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=found.replace("[", r"\[")) as caught:
        load_job(str(path))
    assert f"{path}:1" in str(caught.value)
