"""``--concurrency auto`` in real runs against the development server: nothing is lost, and the limits are told."""

import json
from pathlib import Path

import pytest

import batchchat
from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.runner import run_job
from tests.integration.test_run_job import Listener
from tests.runs import assert_all_answered, write_prompts


async def auto_run(scenario: Scenario, folder: Path, prompts: int, **settings):
    source, results, listener = folder / "prompts.jsonl", folder / "results.jsonl", Listener()
    write_prompts(source, prompts)
    async with DevServer(scenario) as server:
        overrides = {
            "input": [str(source)],
            "output.path": str(results),
            "provider": {"name": "openai", "base_url": server.base_url, "model": "m"},
            "concurrency": "auto",
            **settings,
        }
        report = await run_job(load_job(None, overrides), observers=[listener])
        return report, listener, server


@pytest.mark.parametrize(
    "settings", [{}, {"output.order": "input"}, {"dedup": True}, {"stragglers.second_attempt": "1s"}]
)
async def test_every_prompt_is_answered_whatever_the_capacity(tmp_path: Path, settings) -> None:
    """Refusals cost no prompt, and are few; the limit goes up and down with the service's."""
    scenario = Scenario(latency_ms=5, concurrency_limit=8, capacity_steps=((150, 24), (500, 3)))
    report, listener, _ = await auto_run(scenario, tmp_path, 700, **settings)
    assert (report.exit_code, report.answered) == (0, 700)
    assert_all_answered(tmp_path / "results.jsonl", range(700))
    assert listener.plan.finds_concurrency
    assert any("the service refuses requests" in notice for notice in listener.notices)


async def test_summary_tells_the_limit_of_the_end(tmp_path: Path) -> None:
    """The setting stays what the user gave."""
    report, _, _ = await auto_run(Scenario(latency_ms=2), tmp_path, 100)
    summary = json.loads((tmp_path / "results.run.json").read_text())
    assert report.concurrency == summary["concurrency"] >= 4
    assert summary["settings"]["concurrency"] == "auto"


async def test_first_requests_are_few(tmp_path: Path) -> None:
    """Nobody knows yet what the service takes."""
    scenario = Scenario(stall_before=1.0)
    source = tmp_path / "prompts.jsonl"
    write_prompts(source, 100)
    async with DevServer(scenario) as server:
        overrides = {
            "input": [str(source)],
            "output.path": str(tmp_path / "results.jsonl"),
            "provider": {"name": "openai", "base_url": server.base_url, "model": "m"},
            "concurrency": "auto",
            "timeout.run": "1s",
        }
        report = await run_job(load_job(None, overrides))
        assert report.exit_code == 5
        assert server.peak_in_flight == 4


async def test_stream_takes_auto_as_well() -> None:
    """And gives every outcome."""
    async with DevServer(Scenario(latency_ms=2)) as server:
        provider = {"name": "openai", "base_url": server.base_url, "model": "m"}
        outcomes = [
            outcome
            async for outcome in batchchat.stream((f"p{n}" for n in range(60)), provider=provider, concurrency="auto")
        ]
    assert sorted(outcome.index for outcome in outcomes) == list(range(60))


@pytest.mark.clocked
async def test_two_processes_share_one_limit(tmp_path: Path) -> None:
    """It is found in the parent, whoever speaks to the service."""
    report, listener, _ = await auto_run(Scenario(latency_ms=5, concurrency_limit=6), tmp_path, 200, processes=2)
    assert (report.exit_code, report.answered) == (0, 200)
    assert any("the service refuses requests" in notice for notice in listener.notices)
    assert report.concurrency is not None
    assert report.concurrency <= 12
