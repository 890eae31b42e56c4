"""Nodes of a cluster with another version of batchchat, which might write other lines."""

import asyncio

import msgspec
import pytest

import batchchat.ray.readiness
from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError
from batchchat.ray.worker import ShardWorker
from batchchat.runner import run_job
from tests.integration.test_run_job import Listener
from tests.runs import assert_all_answered, write_prompts


def other_version(monkeypatch, numbers, late_s=0.0):
    """These workers have another one, and come so late."""
    ready = ShardWorker.ready

    async def other(self):
        if self._opening.number not in numbers:
            return await ready(self)
        await asyncio.sleep(late_s)
        return msgspec.structs.replace(await ready(self), version="0.0.1")

    monkeypatch.setattr(ShardWorker, "ready", other)


def job_for(server, folder, count):
    write_prompts(folder / "in.jsonl", count)
    provider = {"name": "ai-engine", "base_url": server.base_url}
    return load_job(
        None, {"input": [str(folder / "in.jsonl")], "output.path": str(folder / "out.jsonl"), "provider": provider}
    )


async def test_another_version_is_told_before_anything_is_sent(monkeypatch, tmp_path) -> None:
    other_version(monkeypatch, {1, 2})
    async with DevServer() as server:
        with pytest.raises(ConfigError, match=r"a worker on .* has batchchat 0\.0\.1, expected .* as here"):
            await run_job(job_for(server, tmp_path, 20))
        assert server.chats == []


async def test_a_worker_that_comes_later_with_another_version_gets_nothing(monkeypatch, tmp_path) -> None:
    """The others answer all, and the user is told once."""
    monkeypatch.setattr(batchchat.ray.readiness, "_MORE_S", 0.0)
    other_version(monkeypatch, {2}, late_s=0.2)
    listener = Listener()
    async with DevServer(Scenario(latency_ms=100)) as server:
        report = await run_job(job_for(server, tmp_path, 40), observers=[listener])
    assert report.exit_code == 0
    assert_all_answered(tmp_path / "out.jsonl", range(40))
    told = [notice for notice in listener.notices if "has batchchat 0.0.1" in notice]
    assert len(told) == 1
    assert told[0].endswith("the run goes on without it")
