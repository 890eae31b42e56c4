"""Runs against servers that tell what is left of their limit: they are not asked for more."""

from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.runner import run_job
from tests.integration.test_run_job import Listener
from tests.runs import assert_all_answered, write_prompts


async def refused_in_run(
    folder: Path, prompts: int, scenario: Scenario, *others: Scenario, **settings: Any
) -> tuple[int, Listener]:
    """How many requests a run's service refused, with every prompt answered in the end."""
    write_prompts(folder / "in.jsonl", prompts)
    (folder / "out.jsonl").unlink(missing_ok=True)
    listener = Listener()
    async with DevServer(scenario) as server:
        overrides = {
            "input": [str(folder / "in.jsonl")],
            "output.path": str(folder / "out.jsonl"),
            "provider.name": "openai",
            "provider.model": "m",
            "provider.base_url": server.base_url,
        }
        report = await run_job(load_job(None, {**overrides, **settings}), observers=[listener], environ={})
        assert report.exit_code == 0
        assert_all_answered(folder / "out.jsonl", range(prompts))
        return sum(request.status == 429 for request in server.chats), listener


# Few enough for a busy machine to reach, too.
LIMITED = Scenario(rate_limit="20/s", rate_headers=True, latency_ms=20)


async def test_service_that_tells_what_is_left_refuses_next_to_nothing(tmp_path: Path) -> None:
    """Without its headers, some are refused each second: the crowd comes back after each pause."""
    refused, listener = await refused_in_run(tmp_path, 120, LIMITED, concurrency=12)
    assert refused <= 3
    assert sum("the service says that" in notice for notice in listener.notices) == 1
    blind, listener = await refused_in_run(tmp_path, 120, Scenario(rate_limit="20/s", latency_ms=20), concurrency=12)
    assert blind > refused
    assert not any("the service says that" in notice for notice in listener.notices)


@pytest.mark.parametrize("stream", [True, False])
async def test_headers_of_a_generous_service_change_nothing(tmp_path: Path, stream: bool) -> None:
    scenario = Scenario(rate_limit="10000/s", rate_headers=True)
    refused, listener = await refused_in_run(tmp_path, 100, scenario, **{"provider.stream": stream})
    assert refused == 0
    assert not any("the service says that" in notice for notice in listener.notices)
