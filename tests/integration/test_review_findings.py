"""Faults that only show with several requests at once, at the edge of an answer, or when a run is cut short."""

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError, InvalidRequestError, ServerError
from batchchat.observer import RunReport
from batchchat.providers.ai_engine_errors import prose_error
from batchchat.providers.base import ChatRequest, ProviderContext
from batchchat.providers.chatgpt4online import Chatgpt4Online
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig
from batchchat.runner import run_job
from batchchat.stopping import StopRules
from tests.runs import read_lines, write_prompts

ANSWER = b'data: {"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}]}\n\n'


async def run(base_url: str, prompts: Path, results: Path, **settings: Any) -> RunReport:
    overrides = {
        "input": [str(prompts)],
        "output.path": str(results),
        "provider.name": "openai",
        "provider.model": "m",
        "provider.base_url": base_url,
        "nonce_cache": False,
    }
    if settings.get("provider__name") == "ai-engine":
        del overrides["provider.model"], settings["provider__model"]
    return await run_job(
        load_job(None, overrides | {key.replace("__", "."): value for key, value in settings.items()}), environ={}
    )


@asynccontextmanager
async def serving(answer):
    """A server whose answer to a request's path and body is made by ``answer``; it waits for ``hold`` where that is None."""
    hold = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = next(
                    int(line[16:]) for line in head.split("\r\n") if line.lower().startswith("content-length: ")
                )
                body = json.loads(await reader.readexactly(length))
                data, keep = await answer(head.split(" ")[1], body)
                writer.write(data)
                await writer.drain()
                if not keep:
                    await hold.wait()
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        hold.set()


def whole(body: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_prompts(tmp_path / "prompts.jsonl", 40), tmp_path / "results.jsonl"


async def test_server_without_stream_options_costs_no_prompt_at_any_concurrency(files) -> None:
    """Sixteen requests carry the option before the first refusal tells that it is not known."""
    gathered = asyncio.Barrier(16)

    async def answer(path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
        if "stream_options" in body:
            await gathered.wait()
            return whole(b'{"error": {"message": "unknown field stream_options"}}', "400 Bad Request"), True
        return whole(ANSWER), True

    async with serving(answer) as base_url:
        report = await run(base_url, *files)
    assert (report.answered, report.failed) == (40, 0)


async def test_moved_address_is_followed_at_any_concurrency(files) -> None:
    gathered = asyncio.Barrier(16)

    async def answer(path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
        if path.startswith("/v1/"):
            await gathered.wait()
            return whole(b"", "308 Permanent Redirect", f"Location: /api/openai{path}\r\n"), True
        assert path == "/api/openai/v1/chat/completions"
        return whole(ANSWER), True

    async with serving(answer) as base_url:
        report = await run(base_url, *files)
    assert (report.answered, report.failed) == (40, 0)


async def open_ended(path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
    """A whole answer on a connection that is never closed."""
    return b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER, False


@pytest.mark.parametrize("clock", ["timeout__attempt", "timeout__prompt", "timeout__run"])
async def test_whole_answer_is_kept_though_a_clock_runs_out_while_its_trimmings_are_awaited(files, clock) -> None:
    """Usage and [DONE] may still come; the answer has."""
    prompts, results = files
    async with serving(open_ended) as base_url:
        await run(base_url, prompts, results, limit=4, **{clock: "400ms"})
    assert [line["response"] for line in read_lines(results)] == ["hello"] * 4


async def test_cancelled_run_keeps_whole_answers_and_releases_its_lock(files) -> None:
    prompts, results = files
    seen = asyncio.Event()
    count = 0

    async def answer(path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
        nonlocal count
        count += 1
        if count == 4:
            asyncio.get_running_loop().call_later(0.2, seen.set)
        return await open_ended(path, body)

    async with serving(answer) as base_url:
        task = asyncio.create_task(run(base_url, prompts, results, limit=4, concurrency=4))
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(read_lines(results)) == 4
        assert (await run(base_url, prompts, results, limit=4)).answered_before == 4


async def test_cancelled_run_in_input_order_keeps_the_answers_it_held_back(files) -> None:
    prompts, results = files
    done = asyncio.Event()
    count = 0

    async def answer(path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
        nonlocal count
        if body["messages"][0]["content"] == "question 0":
            return b"", False
        count += 1
        if count == 7:
            asyncio.get_running_loop().call_later(0.2, done.set)
        return whole(ANSWER), True

    async with serving(answer) as base_url:
        task = asyncio.create_task(run(base_url, prompts, results, limit=8, concurrency=8, output__order="input"))
        await done.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(read_lines(results)) == 7


async def test_slow_reader_of_a_stream_is_not_cut_off_by_the_clocks() -> None:
    """They run while the network is waited for, not while the reader is at work."""
    async with DevServer() as server:

        class Site(Chatgpt4Online):
            url = server.base_url

        parts = []
        messages = [{"role": "user", "content": "a b c d"}]
        async with aclosing(Site.create_async_generator("gpt-4", messages, timeout=0.3)) as answer:
            async for part in answer:
                parts.append(part)
                if len(parts) == 1:
                    await asyncio.sleep(0.6)
    assert "".join(parts) == "Echo: a b c d"


async def test_missing_model_is_told_before_any_request(files) -> None:
    prompts, results = files
    async with DevServer() as server:
        with pytest.raises(ConfigError, match="--model"):
            await run(server.base_url, prompts, results, provider__model="")
        assert server.requests == []


async def test_deadline_counts_from_the_start_of_the_run(tmp_path: Path) -> None:
    """Checking a long input is part of the run."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 100_000)
    async with DevServer() as server:
        report = await run(server.base_url, prompts, tmp_path / "results.jsonl", timeout__run="50ms")
        assert server.requests == []
    assert report.exit_code == 5


async def test_observer_that_raises_does_not_end_the_run(files) -> None:
    prompts, results = files

    class Broken:
        def __getattr__(self, name: str):
            def call(*arguments: Any) -> None:
                raise ValueError("broken")

            return call

    async with DevServer() as server:
        overrides = {
            "input": [str(prompts)],
            "output.path": str(results),
            "provider.name": "openai",
            "provider.model": "m",
        }
        job = load_job(None, overrides | {"provider.base_url": server.base_url})
        with pytest.warns(RuntimeWarning, match="Broken"):
            report = await run_job(job, observers=[Broken()], environ={})
    assert report.answered == 40


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "Rate limit reached for m. Please try again in 20s. Visit https://x/account/billing. (rate_limit_exceeded)",
            "rate_limit",
        ),
        ("cURL error 6: Could not resolve host: billing.example", "server"),
        ("Maximum execution time limit exceeded, please try again", "server"),
        ("Request timed out: limit 300s", "server"),
        ("You have reached the limit (check the Insights Tab > Limits > Guests).", "quota"),
        ("Our chatbot went to sleep. Please try again later.", "quota"),
        ("Daily limit used up for your account", "quota"),
        ("You exceeded your current quota, please check your plan and billing details. (insufficient_quota)", "quota"),
    ],
)
def test_words_of_a_site_are_taken_for_what_they_mean(text: str, kind: str) -> None:
    assert prose_error(text).type == kind


def test_unknown_words_again_and_again_stop_the_run() -> None:
    """As a limit told in a language that is not known here."""
    rules = StopRules()
    reasons = [rules.failed(number, ServerError("Heute nichts mehr frei.", retry_limit=2)) for number in range(20)]
    assert [reason is not None for reason in reasons] == [False] * 19 + [True]


def test_password_in_a_wrong_address_is_not_repeated() -> None:
    for url in ("htps://user:pwsecret@x.example", "http://user:pwsecret@x:99999"):
        with pytest.raises(ConfigError) as caught:
            OpenAIChat(OpenAIChatConfig(base_url=url, model="m"), ProviderContext())
        assert "pwsecret" not in str(caught.value)


def test_key_beside_a_password_in_the_address_is_refused() -> None:
    context = ProviderContext(environ={"OPENAI_API_KEY": "sk-1"})
    with pytest.raises(ConfigError, match="user name"):
        OpenAIChat(OpenAIChatConfig(base_url="http://user:pw@127.0.0.1:1", model="m"), context)


async def test_conversation_that_cannot_be_told_is_this_prompts_failure() -> None:
    async with DevServer() as server:
        async with OpenAIChat(OpenAIChatConfig(base_url=server.base_url), ProviderContext()) as provider:
            with pytest.raises(InvalidRequestError, match="model"):
                await provider.complete(ChatRequest(messages=[{"role": "user", "content": "x"}]))
        assert Scenario() == server.scenario


@pytest.mark.parametrize("end", ["cancel", "deadline"])
async def test_prompt_that_was_to_end_sends_no_further_turn(tmp_path: Path, end: str) -> None:
    """The end comes while the trimmings of the first turn's answer are awaited."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": 1, "turns": ["a", "b", "c"]}\n')
    asked = asyncio.Event()
    count = 0

    async def answer(path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
        nonlocal count
        count += 1
        asked.set()
        return await open_ended(path, body)

    async with serving(answer) as base_url:
        results = tmp_path / "results.jsonl"
        settings = {"timeout__prompt": "300ms"} if end == "deadline" else {}
        task = asyncio.create_task(run(base_url, prompts, results, **settings))
        await asked.wait()
        if end == "cancel":
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert (await task).failed == 1
    assert count == 1


async def test_trimmings_without_end_cost_a_moment_only(files) -> None:
    """Comments for ever after the finish reason neither hold the slot nor fill the memory."""
    prompts, results = files

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER)
            while True:
                writer.write(b": keep-alive\n\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        base_url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        report = await asyncio.wait_for(run(base_url, prompts, results, limit=2), 30)
        assert report.answered == 2


async def test_every_request_of_a_stopped_run_has_its_line(files) -> None:
    """Three refusals stop the run while other prompts are on their way: none of them is sent for nothing."""
    prompts, results = files
    async with DevServer(Scenario(auth_refused=True)) as server:
        report = await run(server.base_url, prompts, results, concurrency=3)
        assert len(server.chats) == report.failed <= 5
    assert report.exit_code == 4
    assert len(read_lines(results.with_suffix(".errors.jsonl"))) == report.failed


async def test_refreshed_nonces_cost_no_part_of_the_rate_but_their_fetch(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 60)
    async with DevServer(Scenario(nonce_uses=10)) as server:
        report = await run(server.base_url, prompts, tmp_path / "r.jsonl", provider__name="ai-engine", provider__model=None,
                           rate="100/s", concurrency=32)  # fmt: skip
        assert report.answered == 60
        assert report.requests == len(server.requests)
        assert len(server.requests) < 90


async def test_share_of_failures_counts_prompts_and_not_turns(tmp_path: Path) -> None:
    rules = StopRules(max_failed_share=0.3)
    reasons = []
    for number in range(60):
        for _ in range(3):
            rules.answered()
        if number % 2:
            rules.completed()
            reasons.append(None)
        else:
            reasons.append(rules.failed(number, ServerError("down")))
    assert any(reasons)
