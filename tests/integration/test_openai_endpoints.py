"""Several endpoints: shares by weight, fail-over, and one that asks to wait does not hold up the others."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ProviderError, RateLimitError, ServerError
from batchchat.observer import RunReport
from batchchat.providers.base import ChatRequest, ProviderContext
from batchchat.providers.openai import EndpointConfig, OpenAIChat, OpenAIChatConfig
from batchchat.providers.openai_pool import EndpointPool
from batchchat.runner import run_job
from tests.runs import assert_all_answered, read_lines, write_prompts
from tests.virtual_time import run_virtual

OK = Scenario()
DOWN = Scenario(error_500=1)


@asynccontextmanager
async def servers(*scenarios: Scenario):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(DevServer(scenario)) for scenario in scenarios]


class Notices(list[tuple[str, int]]):
    def __call__(self, message: str, level: int) -> None:
        self.append((message, level))


@asynccontextmanager
async def provider_of(*each: DevServer | EndpointConfig, notices: Notices | None = None, **settings: Any):
    endpoints = [EndpointConfig(base_url=one.base_url) if isinstance(one, DevServer) else one for one in each]
    config = OpenAIChatConfig(endpoints=endpoints, **{"model": "m", **settings})
    context = ProviderContext(environ={"KEY": "key-1234"}, notice=notices if notices is not None else Notices())
    async with OpenAIChat(config, context) as provider:
        yield provider


def asking(text: str, **fields: Any) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], **fields)


async def ask(provider: OpenAIChat, *texts: str, **fields: Any) -> Counter[str]:
    """Asks one after another; the outcomes by type."""
    found: Counter[str] = Counter()
    for text in texts:
        try:
            await provider.complete(asking(text, **fields))
            found["answered"] += 1
        except ProviderError as error:
            found[error.type] += 1
    return found


async def run(
    prompts: Path, results: Path, endpoints: list[dict[str, Any]], *observers: Any, **settings: Any
) -> RunReport:
    overrides = {
        "input": [str(prompts)],
        "output.path": str(results),
        "provider.name": "openai",
        "provider.model": "m",
        "provider.endpoints": endpoints,
    }
    overrides |= {key.replace("__", "."): value for key, value in settings.items()}
    return await run_job(load_job(None, overrides), observers=list(observers), environ={"KEY": "key-1234"})


async def test_requests_are_shared_by_weight() -> None:
    async with servers(OK, OK, OK) as (a, b, c):
        weighted = [
            EndpointConfig(base_url=server.base_url, weight=weight) for server, weight in ((a, 5), (b, 3), (c, 2))
        ]
        async with provider_of(*weighted) as provider:
            assert await ask(provider, *(f"q{n}" for n in range(40))) == {"answered": 40}
        assert [len(server.chats) for server in (a, b, c)] == [20, 12, 8]


async def test_settings_of_an_endpoint_go_to_it_alone() -> None:
    async with servers(OK, OK) as (a, b):
        first = EndpointConfig(
            base_url=a.base_url, api_key_env="KEY", model="a-1", headers={"X-A": "1"}, organization="org-a"
        )
        second = EndpointConfig(base_url=b.base_url, headers={"X-B": "1"})
        async with provider_of(first, second, headers={"X-All": "1"}, organization="org", model="m") as provider:
            await ask(provider, "q1", "q2")
            await ask(provider, "q3", "q4", model="line's")
        (one, named), (two, _) = a.chats, b.chats
        assert (one.body["model"], two.body["model"], named.body["model"]) == ("a-1", "m", "line's")
        assert one.headers["authorization"] == "Bearer key-1234"
        assert "authorization" not in two.headers
        assert (one.headers["openai-organization"], two.headers["openai-organization"]) == ("org-a", "org")
        assert (one.headers["x-all"], one.headers["x-a"], two.headers["x-all"], two.headers["x-b"]) == ("1",) * 4
        assert "x-b" not in one.headers


async def test_no_key_goes_to_an_endpoint_that_another_one_names() -> None:
    """OPENAI_API_KEY counts where no key is named at all."""
    async with servers(OK, OK) as (a, b):
        for named, sent in ((None, "Bearer general"), ("KEY", None)):
            endpoints = [EndpointConfig(base_url=a.base_url, api_key_env=named), EndpointConfig(base_url=b.base_url)]
            context = ProviderContext(environ={"KEY": "key-1234", "OPENAI_API_KEY": "general"})
            async with OpenAIChat(OpenAIChatConfig(endpoints=endpoints, model="m"), context) as provider:
                await ask(provider, "q1", "q2")
            assert b.chats[-1].headers.get("authorization") == sent


async def test_attempt_after_a_failed_one_goes_elsewhere() -> None:
    async with servers(DOWN, OK) as (a, b):
        weighted = [EndpointConfig(base_url=a.base_url, weight=1000), EndpointConfig(base_url=b.base_url)]
        async with provider_of(*weighted) as provider:
            for number in range(3):
                request = asking(f"q{number}")
                with pytest.raises(ServerError):
                    await provider.complete(request)
                await provider.complete(request)
        assert (len(a.chats), len(b.chats)) == (3, 3)


@pytest.mark.parametrize(
    "fault",
    ["error_500", "error_503", "error_429", "error_502_html", "cut_reset", "reset_before", "cut_no_end", "html_200"],
)
async def test_endpoint_that_keeps_failing_is_set_aside(fault: str) -> None:
    async with servers(Scenario(**{fault: 1.0}), OK) as (a, b):
        async with provider_of(a, b, notices=(notices := Notices())) as provider:
            found = await ask(provider, *(f"q{n}" for n in range(40)))
        assert len(a.chats) == 5
        assert found["answered"] == 35
        assert [level for _, level in notices] == [1]
        assert f"endpoint 1 ({a.base_url[7:]}) is set aside for 1 s" in notices[0][0]


async def test_endpoint_that_cannot_be_reached_is_set_aside() -> None:
    async with servers(OK) as (b,):
        async with provider_of(EndpointConfig(base_url="http://127.0.0.1:9"), b) as provider:
            assert await ask(provider, *(f"q{n}" for n in range(20))) == {"answered": 15, "network": 5}


async def test_prompt_that_is_refused_says_nothing_against_its_endpoint() -> None:
    async with servers(Scenario(refusal=1), OK) as (a, b):
        async with provider_of(a, b) as provider:
            assert await ask(provider, *(f"q{n}" for n in range(20))) == {"answered": 10, "refused": 10}


@pytest.mark.parametrize(
    "scenario",
    [Scenario(auth_refused=True), Scenario(quota_exhausted_after=0), Scenario(api_key="other"), Scenario(html_403=1)],
)
async def test_endpoint_that_refuses_everyone_is_left_out_and_costs_no_prompt(scenario: Scenario) -> None:
    async with servers(scenario, OK) as (a, b):
        async with provider_of(a, b, api_key_env="KEY", notices=(notices := Notices())) as provider:
            assert await ask(provider, *(f"q{n}" for n in range(10))) == {"answered": 10}
        assert len(a.chats) == 1
        assert [level for _, level in notices] == [0]
        assert f"endpoint 1 ({a.base_url[7:]}) is left out for the rest of this run" in notices[0][0]
        assert "key-1234" not in notices[0][0]


async def test_wrong_address_of_one_endpoint_is_left_out() -> None:
    async with servers(OK, OK) as (a, b):
        async with provider_of(EndpointConfig(base_url=f"{a.base_url}/v1/nowhere"), b) as provider:
            assert await ask(provider, *(f"q{n}" for n in range(10))) == {"answered": 10}
        assert len(a.requests) == 1


async def test_model_that_a_line_gets_wrong_takes_no_endpoint_out() -> None:
    """A 404 that names the model counts against the endpoint only where the job chose the model."""
    gone = json.dumps({"error": {"message": "no such model", "code": "model_not_found"}}).encode()
    answer = json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        body = json.loads(await reader.readexactly(length))
        status, data = ("200 OK", answer) if body["model"] == "m" else ("404 Not Found", gone)
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = "http://127.0.0.1:%d/v1" % server.sockets[0].getsockname()[1]
        async with provider_of(EndpointConfig(base_url=url), EndpointConfig(base_url=url)) as provider:
            assert await ask(provider, "q1", model="typo") == {"invalid_request": 1}
            assert await ask(provider, "q2", "q3", "q4") == {"answered": 3}


async def test_run_stops_when_every_endpoint_refuses_everyone(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 50)
    async with servers(Scenario(auth_refused=True), Scenario(quota_exhausted_after=0)) as (a, b):
        endpoints = [{"base_url": server.base_url, "api_key_env": "KEY"} for server in (a, b)]
        report = await run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", endpoints, concurrency=2)
        assert report.exit_code == 4
        assert len(a.chats) + len(b.chats) <= 6
    assert len(read_lines(tmp_path / "out.errors.jsonl")) <= 4


async def test_run_goes_on_when_an_endpoint_dies_and_uses_it_when_it_is_back(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 400)
    async with servers(Scenario(latency_ms=10), Scenario(latency_ms=10)) as (a, b):

        async def trouble() -> None:
            await a.wait_for_requests(20)
            a.scenario = Scenario(reset_before=1)
            await b.wait_for_requests(60)
            a.scenario = Scenario(latency_ms=10)

        watch = asyncio.create_task(trouble())
        endpoints = [{"base_url": server.base_url} for server in (a, b)]
        report = await run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", endpoints, concurrency=8, rate="150/s")
        await watch
        assert report.exit_code == 0
        answered = Counter(request.status for request in a.chats)
        assert answered[200] > 40
        assert answered[0] < 30
    assert_all_answered(tmp_path / "out.jsonl", range(400))


async def test_prompts_fail_after_their_retries_when_every_endpoint_is_gone(tmp_path: Path) -> None:
    """Nobody waits for the pauses of endpoints that all fail: the run ends as with a single service."""
    prompts, results = write_prompts(tmp_path / "p.jsonl", 60), tmp_path / "r.jsonl"
    dead = [{"base_url": f"http://127.0.0.1:{port}"} for port in (9, 10)]
    report = await run(prompts, results, dead, concurrency=4, retry__retries=0)
    assert (report.exit_code, report.failed, report.pending) == (1, 60, 0)
    assert report.attempts == {"network": 60}


async def test_endpoint_that_asks_to_wait_does_not_hold_up_the_run(tmp_path: Path) -> None:
    """It asks for an hour, longer than any run may wait: the other one answers everything."""
    write_prompts(tmp_path / "in.jsonl", 30)
    async with servers(Scenario(error_429=1, retry_after="3600"), OK) as (a, b):
        endpoints = [{"base_url": server.base_url} for server in (a, b)]
        report = await run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", endpoints, concurrency=2)
        assert report.exit_code == 0
        assert len(a.chats) <= 2
    assert_all_answered(tmp_path / "out.jsonl", range(30))


async def test_run_stops_when_every_endpoint_asks_for_too_long_a_wait(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 30)
    waits = Scenario(error_429=1, retry_after="3600")
    async with servers(waits, waits) as each:
        endpoints = [{"base_url": server.base_url} for server in each]
        report = await run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", endpoints, concurrency=1)
        assert report.exit_code == 4
        assert "longer than --max-retry-wait" in report.message
        assert sum(len(server.chats) for server in each) <= 3


async def test_endpoint_that_says_that_nothing_is_left_gets_nothing_until_then() -> None:
    async with servers(Scenario(rate_limit="3/min", rate_headers=True), OK) as (a, b):
        async with provider_of(a, b) as provider:
            assert await ask(provider, *(f"q{n}" for n in range(20))) == {"answered": 20}
        assert (len(a.chats), len(b.chats)) == (3, 17)


async def test_other_endpoints_change_no_fingerprint(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 5)
    async with servers(OK, OK) as (a, b):
        both = [{"base_url": server.base_url, "model": name} for server, name in ((a, "x"), (b, "y"))]
        assert (await run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", both)).exit_code == 0
        again = await run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", [{"base_url": b.base_url}])
        assert again.exit_code == 0
        assert len(a.chats) + len(b.chats) == 5


class Place:
    """An endpoint as the pool sees it."""

    def __init__(self, name: str, weight: int = 1) -> None:
        self.label, self.weight = name, weight


def failing(retry_after_s: float | None = None) -> ProviderError:
    return RateLimitError("busy", retry_after_s=retry_after_s) if retry_after_s else ServerError("broken")


def test_pauses_of_a_dead_endpoint_grow_to_a_minute_and_each_costs_one_request() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        dead, alive = Place("dead"), Place("alive")
        pool = EndpointPool([dead, alive], lambda *_: None)
        tries: list[float] = []
        until = loop.time() + 600
        while loop.time() < until:
            chosen = pool.pick(())
            if chosen is dead:
                tries.append(loop.time())
                pool.failed(dead, failing(), model_named=False)
            pool.left(chosen)
            await asyncio.sleep(0.5)
        gaps = [round(later - earlier) for earlier, later in zip(tries[4:], tries[5:], strict=False)]
        for gap, pause in zip(gaps, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=False):
            assert pause <= gap <= pause + 1

    run_virtual(main())


def test_only_one_request_tries_an_endpoint_that_was_set_aside() -> None:
    async def main() -> None:
        shaky, other = Place("shaky", 100), Place("other")
        pool = EndpointPool([shaky, other], lambda *_: None)
        pool.failed(shaky, failing(30), model_named=False)
        assert [pool.pick(()) for _ in range(5)] == [other] * 5
        await asyncio.sleep(31)
        assert [pool.pick(()) for _ in range(5)].count(shaky) == 1
        pool.answering(shaky)
        assert [pool.pick(()) for _ in range(5)].count(shaky) == 5

    run_virtual(main())


@pytest.mark.parametrize("ends", ["left", "answering", "failed"])
def test_those_who_wait_for_a_trial_go_on_when_it_is_over(ends: str) -> None:
    async def main() -> None:
        one, two = Place("one"), Place("two")
        pool = EndpointPool([one, two], lambda *_: None)
        for place in (one, two):
            pool.failed(place, failing(10), model_named=False)
        assert pool.pick(()) is None
        assert not pool.ready()
        await pool.opened()
        first, second = pool.pick(()), pool.pick(())
        assert {first, second} == {one, two}
        waiting = asyncio.create_task(pool.opened())
        await asyncio.sleep(5)
        assert not waiting.done()
        if ends == "failed":
            pool.failed(first, failing(), model_named=False)
        pool.answering(first) if ends == "answering" else pool.left(first)
        await waiting
        if ends == "failed":
            assert pool.pick(()) is None
            await pool.opened()
        assert pool.pick(()) is first

    run_virtual(main())


def test_run_waits_only_as_long_as_the_first_endpoint_asks() -> None:
    async def main() -> None:
        one, two = Place("one"), Place("two")
        pool = EndpointPool([one, two], lambda *_: None)
        first, second = failing(50), failing(20)
        pool.failed(one, first, model_named=False)
        pool.failed(two, second, model_named=False)
        assert first.retry_after_s is None
        assert second.retry_after_s == pytest.approx(20, abs=0.01)

    run_virtual(main())
