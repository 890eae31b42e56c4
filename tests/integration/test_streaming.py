"""``batchchat.stream``: outcomes as they come, from anything that gives prompts, and an end that leaves nothing behind."""

import asyncio
from contextlib import aclosing

import pytest

import batchchat
from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError, RunStoppedError, UnknownProviderError
from batchchat.providers import OpenAIChat
from batchchat.providers.base import ProviderContext
from batchchat.records import Outcome, Prompt
from tests.runs import read_lines, serving, write_prompts


def site(server: DevServer, **settings) -> dict:
    return {"name": "ai-engine", "base_url": server.base_url, **settings}


async def take(prompts, provider, **settings) -> list[Outcome]:
    return [outcome async for outcome in batchchat.stream(prompts, provider=provider, **settings)]


def texts(outcomes: list[Outcome]) -> list[str]:
    return sorted(outcome.completion.text for outcome in outcomes)


async def test_list_of_texts_is_answered() -> None:
    async with DevServer() as server:
        outcomes = await take(["a", "b", "a"], site(server))
    assert texts(outcomes) == ["Echo: a", "Echo: a", "Echo: b"]
    assert len({outcome.id for outcome in outcomes}) == 3, "a repeated text has an id of its own"
    assert {outcome.index for outcome in outcomes} == {0, 1, 2}
    assert all(outcome.status == "answered" and outcome.attempts == 1 for outcome in outcomes)


async def test_objects_are_read_as_input_lines_are() -> None:
    prompts = [
        {"id": 7, "prompt": "a", "topic": "x"},
        {"custom_id": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]},
        {"id": "t", "turns": ["one", "two"]},
        Prompt(id="p", index=9, line_number=1, messages=[{"role": "user", "content": "c"}]),
    ]
    async with DevServer() as server:
        outcomes = {outcome.id: outcome for outcome in await take(prompts, site(server))}
    assert outcomes[7].completion.text == "Echo: a"
    assert outcomes[7].line == {"prompt": "a", "topic": "x"}
    assert outcomes["m"].completion.text == "Echo: b"
    assert outcomes["t"].responses == ["Echo: one", "Echo: two"]
    assert (outcomes["p"].completion.text, outcomes["p"].index) == ("Echo: c", 9)


async def test_what_is_no_prompt_becomes_a_failure_and_stops_nothing() -> None:
    async with DevServer() as server:
        outcomes = await take(["", {"topic": "x"}, 5, "a"], site(server))
        assert len(server.chats) == 1
    failures = {outcome.index: outcome for outcome in outcomes if outcome.error is not None}
    assert set(failures) == {0, 1, 2}
    assert {outcome.error.type for outcome in failures.values()} == {"input"}
    assert [failures[index].id for index in (0, 1, 2)] == ["line-1", "line-2", "line-3"]
    assert "int" in failures[2].error.message


async def test_generator_is_read_only_a_little_ahead() -> None:
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield f"question {read}"

    async with DevServer() as server:
        async with aclosing(batchchat.stream(endless(), provider=site(server), concurrency=2)) as outcomes:
            async for taken, _ in enumerate_async(outcomes):
                if taken == 10:
                    break
        assert read < 40, "neither read nor asked much beyond what was taken"


async def enumerate_async(outcomes):
    number = 0
    async for outcome in outcomes:
        number += 1
        yield number, outcome


async def test_leaving_early_gives_up_what_is_in_flight() -> None:
    async with DevServer() as server:
        async with aclosing(
            batchchat.stream((f"q{n}" for n in range(1000)), provider=site(server), concurrency=4)
        ) as outcomes:
            async for _ in outcomes:
                server.scenario = Scenario(stall_before=1)
                break
        sent = len(server.chats)
        assert sent < 50
        assert not [task for task in asyncio.all_tasks() if "WorkerPool" in repr(task) or "_Feed" in repr(task)]


async def test_leaving_early_where_every_outcome_waits_to_be_taken_does_not_hang() -> None:
    async with DevServer() as server:
        async with aclosing(
            batchchat.stream((f"q{n}" for n in range(30)), provider=site(server), concurrency=1)
        ) as outcomes:
            async for _ in outcomes:
                await server.wait_for_requests(4)
                break


async def test_loop_that_raises_ends_the_stream_with_its_own_error() -> None:
    async with DevServer() as server:
        with pytest.raises(KeyError, match="mine"):
            async with aclosing(batchchat.stream(["a", "b"], provider=site(server))) as outcomes:
                async for _ in outcomes:
                    raise KeyError("mine")


async def test_cancelled_consumer_ends_the_stream() -> None:
    async with DevServer(Scenario(stall_before=1)) as server:
        task = asyncio.create_task(take(["a"], site(server)))
        await server.wait_for_requests(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_error_of_the_iterable_reaches_the_caller_after_what_came_before_it() -> None:
    def broken():
        yield "a"
        yield "b"
        raise LookupError("no more rows")

    taken = []
    async with DevServer() as server:
        with pytest.raises(LookupError, match="no more rows"):
            async for outcome in batchchat.stream(broken(), provider=site(server), concurrency=1):
                taken.append(outcome)
    assert len(taken) <= 2


async def test_service_that_refuses_everything_stops_the_stream() -> None:
    async with DevServer(Scenario(auth_refused=True)) as server:
        taken = []
        with pytest.raises(RunStoppedError, match="3 prompts in a row met: auth") as caught:
            async for outcome in batchchat.stream((f"q{n}" for n in range(500)), provider=site(server), concurrency=1):
                taken.append(outcome)
        assert caught.value.exit_code == 4
        assert 3 <= len(taken) < 10
        assert {outcome.error.type for outcome in taken} == {"auth"}
        assert len(server.chats) < 10


async def test_no_answer_is_lost_when_the_stream_stops_and_its_reader_is_slow() -> None:
    """Every prompt the server answered has its outcome, though the stop came while they waited to be taken."""
    async with DevServer(Scenario(quota_exhausted_after=4)) as server:
        taken = []
        with pytest.raises(RunStoppedError):
            async for outcome in batchchat.stream((f"q{n}" for n in range(100)), provider=site(server), concurrency=2):
                taken.append(outcome)
                await server.wait_for_requests(8)  # one taken, two in the queue, four in their tasks, and a nonce
        answered = [request.prompt for request in server.chats if request.fault is None]
    assert texts([outcome for outcome in taken if outcome.completion]) == sorted(
        f"Echo: {prompt}" for prompt in answered
    )


async def test_leaving_a_stopped_stream_early_does_not_hang() -> None:
    async with DevServer(Scenario(auth_refused=True)) as server:
        async with aclosing(
            batchchat.stream((f"q{n}" for n in range(100)), provider=site(server), concurrency=1)
        ) as outcomes:
            async for _ in outcomes:
                await server.wait_for_requests(4)
                break


async def test_passing_fault_costs_an_attempt() -> None:
    async with DevServer(Scenario(fail_first=1, fail_with="cut_no_end")) as server:
        (outcome,) = await take(["a"], site(server))
    assert (outcome.attempts, outcome.completion.text) == (2, "Echo: a")


async def test_retries_zero_makes_one_attempt() -> None:
    async with DevServer(Scenario(error_500=1)) as server:
        (outcome,) = await take(["a"], site(server), retries=0)
        assert len(server.chats) == 1
    assert (outcome.attempts, outcome.error.type, outcome.error.retryable) == (1, "server", True)


async def test_concurrency_and_rate_hold_at_the_server() -> None:
    async with DevServer(Scenario(latency_ms=20)) as server:
        await take([f"q{n}" for n in range(12)], site(server), concurrency=3, rate=["40/s", "1000/min"])
        assert server.peak_in_flight <= 3
        assert server.worst_window(1.0) <= 40


async def test_params_of_line_and_call_reach_the_service() -> None:
    async with DevServer() as server:
        await take([{"prompt": "a", "params": {"max_tokens": 5}}], {"name": "openai", "base_url": server.base_url, "model": "m"},
                   params={"temperature": 0.5, "max_tokens": 9})  # fmt: skip
        body = server.chats[0].body
    assert (body["temperature"], body["max_tokens"]) == (0.5, 5)


async def test_provider_may_be_an_instance_whose_settings_are_taken() -> None:
    async with DevServer() as server:
        provider = OpenAIChat(OpenAIChat.Config(base_url=server.base_url, model="m"), ProviderContext(environ={}))
        assert texts(await take(["a"], provider)) == ["Echo: a"]


async def test_key_comes_from_the_given_environment() -> None:
    async with DevServer(Scenario(api_key="sk-x")) as server:
        provider = {"name": "openai", "base_url": server.base_url, "model": "m"}
        assert texts(await take(["a"], provider, environ={"OPENAI_API_KEY": "sk-x"})) == ["Echo: a"]


@pytest.mark.parametrize(
    ("provider", "settings", "words"),
    [
        ("nope", {}, "no provider 'nope' is installed; expected one of: ai-engine, "),
        ("ai-engine", {}, "base_url"),
        ("chatgpt4online", {}, "marked as not working"),
        ({"name": "openai", "base_url": "http://127.0.0.1:9", "modle": "m"}, {}, "modle"),
        ({"name": "ai-engine", "base_url": "http://127.0.0.1:9"}, {"rate": "5/x"}, "rate: expected a rate such as 200/s"),
        ({"name": "ai-engine", "base_url": "http://127.0.0.1:9"}, {"concurrency": 0}, "concurrency: expected a whole number of at least 1, found 0"),
        ({"name": "ai-engine", "base_url": "http://127.0.0.1:9"}, {"burst": 0}, "burst"),
        ({"name": "ai-engine", "base_url": "http://127.0.0.1:9"}, {"retries": -1}, "retries"),
    ],
)  # fmt: skip
async def test_wrong_settings_are_told_before_anything_is_read(provider, settings, words) -> None:
    def untouched():
        raise AssertionError("the prompts were read")
        yield

    with pytest.raises(ConfigError) as caught:
        await take(untouched(), provider, **settings)
    assert words in str(caught.value)
    if provider == "nope":
        assert isinstance(caught.value, UnknownProviderError)


def job(server_url: str, folder, count: int = 5):
    prompts = write_prompts(folder / "prompts.jsonl", count)
    return load_job(None, {"input": [str(prompts)], "output.path": str(folder / "results.jsonl"),
                           "provider.name": "ai-engine", "provider.base_url": server_url})  # fmt: skip


async def test_run_job_gives_a_report_inside_a_loop(tmp_path) -> None:
    async with DevServer() as server:
        report = await batchchat.run_job(job(server.base_url, tmp_path))
    assert isinstance(report, batchchat.RunReport)
    assert (report.exit_code, report.reason, report.answered, report.failed, report.pending) == (
        0,
        "completed",
        5,
        0,
        0,
    )
    assert report.requests == 6
    assert report.attempts == {"answered": 5}
    assert report.message is None
    assert len(report.first_answers) == 3
    assert report.started_at <= report.finished_at


async def test_run_job_sync_works_while_a_loop_is_running(tmp_path) -> None:
    """As in a notebook; the server is on another loop, as this one stands still meanwhile."""
    with serving(tmp_path) as server:
        report = batchchat.run_job_sync(job(server.base_url, tmp_path))
    assert report.answered == 5
    assert len(read_lines(tmp_path / "results.jsonl")) == 5


def test_run_job_sync_works_without_a_loop(tmp_path) -> None:
    with serving(tmp_path) as server:
        report = batchchat.run_job_sync(job(server.base_url, tmp_path))
    assert report.answered == 5


@pytest.mark.parametrize("inside", [True, False])
def test_run_job_sync_raises_what_the_run_raises(tmp_path, inside: bool) -> None:
    wrong = load_job(None, {"input": [str(tmp_path / "none.jsonl")], "output.path": str(tmp_path / "r.jsonl"),
                            "provider.name": "ai-engine", "provider.base_url": "http://127.0.0.1:9"})  # fmt: skip

    async def within() -> None:
        batchchat.run_job_sync(wrong)

    with pytest.raises(batchchat.BatchchatError, match="no such file") as caught:
        asyncio.run(within()) if inside else batchchat.run_job_sync(wrong)
    assert caught.value.exit_code == 3
