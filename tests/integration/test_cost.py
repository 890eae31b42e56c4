"""Usage, cost and the budget of real runs against the development server."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError
from batchchat.observer import RunReport
from batchchat.prices import PriceConfig, PriceList
from batchchat.results import name_files, read_status
from batchchat.runner import run_job
from tests.runs import read_lines, write_prompts

PRICES = {"m": {"input": 1000, "output": 2000}}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"


async def run(server: DevServer, files: tuple[Path, Path], **settings: Any) -> RunReport:
    """A run of the ``openai`` provider and model ``m``; settings are dotted keys with ``__`` for the dot."""
    overrides = {
        "input": [str(files[0])],
        "output.path": str(files[1]),
        "provider.name": "openai",
        "provider.base_url": server.base_url,
        "provider.model": "m",
        "prices": PRICES,
    }
    observers = settings.pop("observers", [])
    overrides |= {key.replace("__", "."): value for key, value in settings.items()}
    return await run_job(load_job(None, overrides), environ={}, observers=observers)


def write(path: Path, prompts: list[Any]) -> None:
    lines = [prompt if isinstance(prompt, dict) else {"prompt": prompt} for prompt in prompts]
    path.write_text("".join(json.dumps({"id": n} | line) + "\n" for n, line in enumerate(lines)))


def summary(files: tuple[Path, Path]) -> dict[str, Any]:
    return json.loads(files[1].with_suffix(".run.json").read_text())


def cost_of_lines(path: Path) -> float:
    usages = [line["usage"] for line in read_lines(path)]
    return sum(usage["input_tokens"] * 0.001 + usage["output_tokens"] * 0.002 for usage in usages)


async def test_cost_and_usage_are_those_of_the_answers(files) -> None:
    write_prompts(files[0], 20)
    async with DevServer(Scenario()) as server:
        report = await run(server, files)
    assert report.cost_usd == pytest.approx(20 * (2 * 0.001 + 3 * 0.002))
    found = summary(files)
    assert found["cost_usd"] == report.cost_usd
    assert found["usage"] == {"input_tokens": 40, "output_tokens": 60}
    assert found["estimated_requests"] == 0
    assert found["unpriced"] == {}
    assert found["price_sources"] == ["the job"]


async def test_model_without_a_price_is_named_and_the_cost_unknown(files) -> None:
    write(files[0], ["a", {"prompt": "b", "model": "other"}])
    async with DevServer(Scenario()) as server:
        report = await run(server, files)
    assert report.cost_usd is None
    assert summary(files)["cost_usd"] is None
    assert summary(files)["unpriced"] == {"other": 1}


@pytest.mark.parametrize("provider", ["openai", "ai-engine"])
@pytest.mark.parametrize("form", ["flat", "openai-batch"])
async def test_usage_that_the_service_does_not_tell_is_estimated_and_marked(files, provider: str, form: str) -> None:
    write(files[0], ["天空为什么是蓝色的？", "plain words only", {"turns": ["one", "two"]}])
    async with DevServer(Scenario(no_usage=True)) as server:
        job = {"input": [str(files[0])], "output.path": str(files[1]), "output.format": form, "nonce_cache": False,
               "provider.name": provider, "provider.base_url": server.base_url, "prices": {"*": PRICES["m"]}}  # fmt: skip
        report = await run_job(
            load_job(None, job | ({"provider.model": "m"} if provider == "openai" else {})), environ={}
        )
    assert report.exit_code == 0
    assert report.usage.estimated
    assert report.estimated_requests == 4
    assert report.cost_usd > 0
    status = read_status(name_files(str(files[1])), prices=PriceList({"*": PriceConfig(input=1000, output=2000)}))
    assert status.estimated_answers == 3
    assert status.usage == report.usage
    assert status.cost_usd == report.cost_usd
    if form == "flat":
        usage = {line["id"]: line["usage"] for line in read_lines(files[1])}
        assert usage[1] == {"input_tokens": 4 + 7, "output_tokens": 6, "estimated": True}
        assert usage[0]["input_tokens"] == 10 + 7


@pytest.mark.parametrize("seed", range(3))
async def test_budget_with_max_tokens_is_never_exceeded(files, seed: int) -> None:
    """Answers of random length, many at once: as many as fit are sent, and not one more."""
    chance = random.Random(seed)
    lengths = [chance.randint(6, 300) for _ in range(200)]
    write(files[0], [f"/long {length} {'word ' * chance.randint(0, 30)}" for length in lengths])
    budget = chance.choice([0.5, 1.7, 3.0])
    async with DevServer(Scenario(latency_ms=5, latency_jitter=1)) as server:
        report = await run(
            server,
            files,
            stop__budget_usd=budget,
            prompt__params={"max_tokens": 60},
            concurrency=chance.choice([1, 7, 50]),
        )
    assert (report.exit_code, report.reason) == (5, "limit")
    assert report.message.startswith("the budget of ")
    assert report.cost_usd == pytest.approx(cost_of_lines(files[1]))
    # Words are what this server counts, and an answer of 300 characters has fewer than 60.
    assert report.cost_usd <= budget
    assert report.cost_usd > budget - 0.001 * 300 - 0.002 * 60
    assert report.pending == 200 - report.answered
    assert report.failed == 0


async def test_budget_that_is_enough_changes_nothing(files) -> None:
    write_prompts(files[0], 50)
    async with DevServer(Scenario()) as server:
        report = await run(server, files, stop__budget_usd=100.0)
        again = await run(server, files, stop__budget_usd=0.0001)
    assert (report.exit_code, report.answered) == (0, 50)
    assert (again.exit_code, again.cost_usd) == (0, 0.0)


async def test_resumed_run_counts_anew_until_all_is_done(files) -> None:
    write_prompts(files[0], 30)
    codes = []
    async with DevServer(Scenario()) as server:
        while (report := await run(server, files, stop__budget_usd=0.12, prompt__params={"max_tokens": 3})).exit_code:
            codes.append(report.exit_code)
            assert report.answered > 0
            assert report.cost_usd <= 0.12
    assert set(codes) == {5}
    assert len(codes) >= 2
    assert len({line["id"] for line in read_lines(files[1])}) == 30


async def test_first_request_that_does_not_fit_stops_the_run_before_it_is_sent(files) -> None:
    write_prompts(files[0], 5)
    async with DevServer(Scenario()) as server:
        report = await run(server, files, stop__budget_usd=0.01, prompt__params={"max_tokens": 100})
        assert len(server.chats) == 0
    assert (report.exit_code, report.pending, report.cost_usd) == (5, 5, 0.0)


async def test_answers_longer_than_assumed_are_learnt_from(files) -> None:
    """Without max_tokens the overshoot is bounded by what was in flight; later requests are held at what was seen."""
    write(files[0], ["/long 20000"] * 60)
    async with DevServer(Scenario()) as server:
        report = await run(server, files, stop__budget_usd=60.0, concurrency=2)
    words = read_lines(files[1])[0]["usage"]["output_tokens"]
    assert words > 1000
    assert report.exit_code == 5
    assert report.cost_usd <= 60


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_small_budget_without_max_tokens_is_used_by_what_answers_show(files, concurrency: int) -> None:
    """Each request costs 0.008; ten go one after the other, the next ones at once."""
    write_prompts(files[0], 100)
    async with DevServer(Scenario()) as server:
        report = await run(server, files, stop__budget_usd=0.5, concurrency=concurrency)
    assert report.exit_code == 5
    assert 0.4 < report.cost_usd <= 0.5


@pytest.mark.parametrize("order", ["completion", "input"])
async def test_faults_and_retries_cost_nothing_and_the_budget_goes_on(files, order: str) -> None:
    write_prompts(files[0], 40)
    async with DevServer(Scenario(seed=3, error_500=0.3, error_429=0.1, retry_after="0.01")) as server:
        report = await run(server, files, stop__budget_usd=1.0, output__order=order, prompt__params={"max_tokens": 3})
    assert report.answered + report.failed == 40
    assert report.cost_usd == pytest.approx(report.answered * 0.008)


async def test_cut_answers_cost_what_had_arrived_marked_as_an_estimate(files) -> None:
    write(files[0], ["/long 3000"])
    async with DevServer(Scenario(cut_no_end=1)) as server:
        report = await run(server, files, retry__retries=1)
    assert report.failed == 1
    assert report.estimated_requests == 2
    assert report.usage.estimated
    assert report.cost_usd > 0


async def test_budget_needs_a_price_for_every_model_before_the_first_request(files) -> None:
    async with DevServer(Scenario()) as server:
        write(files[0], ["a", {"prompt": "b", "model": "unpriced"}])
        with pytest.raises(ConfigError, match="no price for model unpriced"):
            await run(server, files, stop__budget_usd=1.0)
        assert len(server.chats) == 0
        # What the settings name is of no matter where every line names a model itself.
        write(files[0], [{"prompt": "a", "model": "m"}])
        assert (await run(server, files, stop__budget_usd=9.0, provider__model="unpriced")).exit_code == 0


async def test_budget_for_a_service_that_names_no_model_needs_the_price_of_any(files) -> None:
    write_prompts(files[0], 3)
    async with DevServer(Scenario()) as server:
        job = {"input": [str(files[0])], "output.path": str(files[1]), "nonce_cache": False, "stop.budget_usd": 9.0,
               "provider.name": "ai-engine", "provider.base_url": server.base_url}  # fmt: skip
        with pytest.raises(ConfigError, match="neither prompt nor settings name a model"):
            await run_job(load_job(None, job | {"prices": PRICES}), environ={})
        report = await run_job(load_job(None, job | {"prices": {"*": PRICES["m"]}}), environ={})
    assert report.exit_code == 0
    assert report.cost_usd > 0


async def test_cancelling_a_run_that_waits_for_its_budget_ends_it(files) -> None:
    write(files[0], ["x"] * 10)
    async with DevServer(Scenario(latency_ms=60_000)) as server:
        running = asyncio.create_task(
            run(server, files, stop__budget_usd=0.25, prompt__params={"max_tokens": 50}, concurrency=4)
        )
        while len(server.chats) < 1:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_answers_that_are_asked_for_again_cost_each_time(files) -> None:
    write(files[0], ["no JSON at all"])
    schema = files[0].with_name("schema.json")
    schema.write_text('{"type": "array"}')
    async with DevServer(Scenario()) as server:
        report = await run(server, files, answer__schema=str(schema), answer__schema_retries=2)
        assert len(server.chats) == 3
    assert (report.failed, report.estimated_requests) == (1, 0)
    assert report.usage.output_tokens >= 15
    assert report.cost_usd == pytest.approx(report.usage.input_tokens * 0.001 + report.usage.output_tokens * 0.002)


async def test_equal_prompts_that_share_an_answer_cost_once(files) -> None:
    write(files[0], ["question 1"] * 10)
    async with DevServer(Scenario()) as server:
        report = await run(server, files, dedup=True, stop__budget_usd=3.0)
        assert len(server.chats) == 1
    assert (report.answered, report.exit_code) == (10, 0)
    assert report.cost_usd == pytest.approx(0.008)
    prices = PriceList({"m": PriceConfig(input=1000, output=2000)}, library=False)
    assert read_status(name_files(str(files[1])), prices=prices).cost_usd == pytest.approx(0.008)


async def test_budget_that_ends_while_equal_prompts_wait_for_one_answer_leaves_them_pending(files) -> None:
    write(files[0], [f"question {n % 5}" for n in range(50)])
    async with DevServer(Scenario()) as server:
        params = {"max_tokens": 3}
        report = await run(server, files, dedup=True, stop__budget_usd=0.07, prompt__params=params, concurrency=1)
    assert report.exit_code == 5
    assert report.failed == 0
    assert report.answered + report.pending == 50
    assert report.cost_usd <= 0.07


@pytest.mark.parametrize("seed", range(6))
async def test_in_whatever_weather_the_budget_holds_and_the_run_ends(files, seed: int) -> None:
    chance = random.Random(seed)
    lines: list[dict[str, Any]] = []
    for number in range(80):
        text = f"/long {chance.randint(6, 300)} {number}"
        lines.append({"turns": [text, "and now?"]} if chance.random() < 0.3 else {"prompt": text})
    write(files[0], lines)
    faults = {"error_500": 0.1, "error_429": 0.05, "cut_reset": 0.05, "cut_no_end": 0.05, "reset_before": 0.05}
    budget = chance.uniform(0.5, 8)
    async with DevServer(Scenario(seed=seed, latency_ms=3, latency_jitter=1, retry_after="0.01", **faults)) as server:
        report = await run(
            server,
            files,
            stop__budget_usd=budget,
            prompt__params={"max_tokens": 60},
            retry__retries=chance.choice([0, 1, 2]),
            concurrency=chance.choice([1, 3, 30]),
            output__order=chance.choice(["completion", "input"]),
            tokens_per_minute=10**6,
        )
    assert report.exit_code in (0, 1, 5)
    assert report.cost_usd <= budget
    assert report.answered + report.failed + report.pending == 80
    if report.exit_code == 5:
        assert report.cost_usd > budget - 1.5  # what one request, its history included, may cost at most
