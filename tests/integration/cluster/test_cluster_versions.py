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


@pytest.mark.parametrize("chats", [False, True])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_worker_that_comes_later_with_another_version_gets_nothing(
    monkeypatch, tmp_path, number, chats
) -> None:
    """The others answer all, and the user is told once."""
    monkeypatch.setattr(batchchat.ray.readiness, "_MORE_S", 0.0)
    other_version(monkeypatch, {number}, late_s=0.2)
    listener, asked = Listener(), set()
    ask = ShardWorker.ask

    async def noted(self, shard):
        asked.add(self._opening.number)
        return await ask(self, shard)

    monkeypatch.setattr(ShardWorker, "ask", noted)
    async with DevServer(Scenario(latency_ms=100)) as server:
        job = job_for(server, tmp_path, 40)
        if chats:
            path = tmp_path / "in.jsonl"
            path.write_text(
                "".join(f'{{"id": "q-{n}", "prompt": "question {n}", "chat_id": "c{n % 20}"}}\n' for n in range(40))
            )
        report = await run_job(job, observers=[listener])
    assert asked == {3 - number}
    assert report.exit_code == 0
    assert_all_answered(tmp_path / "out.jsonl", range(40))
    told = [notice for notice in listener.notices if "has batchchat 0.0.1" in notice]
    assert len(told) == 1
    assert told[0].endswith("the run goes on without it")
