"""Slow answers in whole runs: the clocks that end them, and the second attempt beside the last ones."""

import asyncio
import json
from pathlib import Path

import pytest

from batchchat.devserver import DevServer, Scenario
from tests.integration.test_run_job import asked, files, run  # noqa: F401
from tests.runs import assert_all_answered, read_lines, write_prompts


@pytest.mark.parametrize(
    ("fault", "clock", "words"),
    [
        ({"stall_midway": 1}, {"timeout__idle": "200ms"}, "--idle-timeout"),
        ({"stall_midway": 1}, {"timeout__prompt": "400ms", "timeout__idle": 0}, "--prompt-deadline"),
        ({"stall_before": 1}, {"timeout__prompt": "400ms"}, "--prompt-deadline"),
        ({"delta_interval_ms": 60, "reply_chars": 5000}, {"timeout__prompt": "400ms", "timeout__idle": "5s"}, "--prompt-deadline"),
        ({"delta_interval_ms": 60, "reply_chars": 5000}, {"timeout__attempt": "400ms"}, "--timeout"),
    ],
)  # fmt: skip
async def test_answer_that_drips_or_stalls_ends_by_its_clock(files, fault, clock, words) -> None:  # noqa: F811
    prompts, results = files
    write_prompts(prompts, 3)
    async with DevServer(Scenario(**fault)) as server:
        async with asyncio.timeout(30):
            report = await run(server, prompts, results, retry__retries=0, **clock)
    assert (report.exit_code, report.failed) == (1, 3)
    for line in read_lines(results.with_suffix(".errors.jsonl")):
        assert line["error"]["type"] == "timeout"
        assert words in line["error"]["message"]


@pytest.mark.parametrize("provider", ["ai-engine", "openai"])
async def test_last_prompts_are_asked_once_more_and_answered_once(files, provider: str) -> None:  # noqa: F811
    """One of twelve stalls for ever at its first attempt; nothing else would end it."""
    prompts, results = files
    write_prompts(prompts, 12)
    seed = next(
        seed for seed in range(1000)
        if [n for n in range(12) if stalls(seed, n, 1)] == [3] and not stalls(seed, 3, 2)
    )  # fmt: skip
    settings = {"provider__name": provider, **({"provider__model": "echo"} if provider == "openai" else {})}
    async with DevServer(Scenario(seed=seed, stall_before=0.1)) as server:
        async with asyncio.timeout(30):
            report = await run(server, prompts, results, stragglers__second_attempt="300ms", concurrency=4, **settings)
    assert_all_answered(results, range(12))
    assert (report.exit_code, report.second_attempts) == (0, 1)
    assert report.attempts == {"answered": 12, "cancelled": 1}
    assert asked(server)["question 3"] == 2
    assert sum(asked(server).values()) == 13
    line = next(line for line in read_lines(results) if line["id"] == "q-3")
    assert line["attempts"] == 2
    summary = json.loads(Path(str(results).replace(".jsonl", ".run.json")).read_text())
    assert summary["second_attempts"] == 1


def stalls(seed: int, number: int, attempt: int) -> bool:
    from batchchat.devserver.scenario import draw_fault

    return draw_fault(Scenario(seed=seed, stall_before=0.1), f"question {number}", attempt) is not None


async def test_run_without_the_setting_asks_nobody_twice(files) -> None:  # noqa: F811
    prompts, results = files
    write_prompts(prompts, 8)
    async with DevServer(Scenario(latency_ms=300)) as server:
        report = await run(server, prompts, results, concurrency=4)
    assert set(asked(server).values()) == {1}
    assert report.second_attempts == 0


@pytest.mark.parametrize("latency_ms", [30, 60, 90])
async def test_race_that_is_close_every_time_leaves_one_line_each(files, latency_ms: int) -> None:  # noqa: F811
    """Second attempts go out just as first answers come."""
    prompts, results = files
    write_prompts(prompts, 16)
    async with DevServer(Scenario(latency_ms=latency_ms, latency_jitter=0.9)) as server:
        report = await run(server, prompts, results, stragglers__second_attempt="50ms", concurrency=32)
    assert_all_answered(results, range(16))
    assert report.attempts["answered"] == 16
    assert sum(report.attempts.values()) == 16 + report.second_attempts
    # One that is given up while its connection is made never comes to the server.
    assert 16 <= len(server.chats) <= 16 + report.second_attempts
