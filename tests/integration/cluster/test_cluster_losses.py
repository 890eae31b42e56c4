"""Workers that went with their node, where the cluster has no room to start them again."""

import asyncio
import errno
import json
from collections import Counter

import pytest

import batchchat.ray.driver
import batchchat.ray.minding
import batchchat.ray.readiness
import batchchat.ray.spread
from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.ray.actor import WorkerLostError
from batchchat.ray.desk import Desk
from batchchat.ray.spread import SpreadWork
from batchchat.ray.worker import ShardWorker
from batchchat.runner import run_job
from batchchat.shards.merge import Merger
from batchchat.shards.shard import ShardReport
from batchchat.stopping import StopReason
from tests.cluster_double import ClusterDouble
from tests.integration.test_run_job import Listener
from tests.runs import assert_all_answered, read_lines, write_prompts

COUNT = 120


@pytest.fixture(autouse=True)
def _soon(monkeypatch) -> None:
    monkeypatch.setattr(batchchat.ray.minding, "_LOOK_S", 0.05)
    monkeypatch.setattr(batchchat.ray.minding, "_AWAY_S", 0.3)


def job_for(server, folder, **settings):
    write_prompts(folder / "in.jsonl", COUNT)
    provider = {"name": "ai-engine", "base_url": server.base_url}
    job = {"input": [str(folder / "in.jsonl")], "output.path": str(folder / "out.jsonl"), "provider": provider}
    return load_job(None, {**job, "concurrency": 8, **settings})


async def start(server, folder, listener, **settings):
    """A run that has some answers, on two workers."""
    going = asyncio.create_task(run_job(job_for(server, folder, **settings), observers=[listener]))
    await server.wait_for_requests(40)
    return going


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("order", ["completion", "input"])
async def test_others_take_over_what_a_lost_worker_had(tmp_path, order, at_once) -> None:
    """Each prompt has its line, and nothing is asked twice but what was on the wire. In the order that is wanted, where
    Ray does not take the loss for a death that a prompt has caused."""
    listener = Listener()
    async with DevServer(Scenario(latency_ms=50)) as server:
        going = await start(server, tmp_path, listener, **{"output.order": order})
        ClusterDouble.last.workers[0].fails_at_once = at_once
        ClusterDouble.last.workers[0].lost.set()
        async with asyncio.timeout(30):
            report = await going
        await ClusterDouble.last.bury()
        asked = Counter(request.prompt for request in server.chats)
    assert report.exit_code == 0
    assert_all_answered(tmp_path / "out.jsonl", range(COUNT))
    assert sum(asked.values()) <= COUNT + 4
    if order == "input" and not at_once:
        assert [line["index"] for line in read_lines(tmp_path / "out.jsonl")] == list(range(COUNT))
    assert [notice for notice in listener.notices if "no room to start it again" in notice]


def end(worker) -> None:
    """It died and cannot be started again, as on a node without batchchat: each call fails at once."""
    worker.fails_at_once = True
    worker.given_up.set()
    worker.lost.set()


@pytest.mark.parametrize("order", ["completion", "input"])
async def test_a_worker_that_is_dead_for_good_gets_no_more_shards(monkeypatch, tmp_path, order) -> None:
    """The other one asks what it had, and no prompt fails; also before anybody has looked after it."""
    monkeypatch.setattr(batchchat.ray.minding, "_LOOK_S", 1000.0)
    listener = Listener()
    async with DevServer(Scenario(latency_ms=50)) as server:
        going = await start(server, tmp_path, listener, **{"output.order": order})
        end(ClusterDouble.last.workers[0])
        async with asyncio.timeout(30):
            report = await going
        await ClusterDouble.last.bury()
    assert (report.exit_code, report.failed) == (0, 0)
    assert_all_answered(tmp_path / "out.jsonl", range(COUNT))
    if order == "input":
        assert [line["index"] for line in read_lines(tmp_path / "out.jsonl")] == list(range(COUNT))
    assert [notice for notice in listener.notices if "cannot be started again; others ask its prompts" in notice]


async def test_a_run_whose_workers_are_all_dead_for_good_stops(tmp_path) -> None:
    """There is nobody to wait for, and the prompts that are left did nothing wrong: they stay to be asked."""
    listener = Listener()
    async with DevServer(Scenario(latency_ms=50)) as server:
        going = await start(server, tmp_path, listener)
        for worker in ClusterDouble.last.workers:
            end(worker)
        async with asyncio.timeout(30):
            report = await going
        await ClusterDouble.last.bury()
    assert (report.exit_code, report.reason, report.failed) == (4, "service", 0)
    assert report.pending == COUNT - report.answered > 0
    assert "no worker of the cluster is left that can ask" in report.message


async def test_a_run_whose_workers_die_before_they_have_a_shard_stops(monkeypatch, tmp_path) -> None:
    """They were there when the run began; nothing was asked, and nobody is told that all is done."""
    run = SpreadWork.run

    async def run_without(self):
        for worker in ClusterDouble.last.workers:
            end(worker)
        await run(self)

    monkeypatch.setattr(SpreadWork, "run", run_without)
    async with DevServer() as server:
        async with asyncio.timeout(30):
            report = await run_job(job_for(server, tmp_path))
        await ClusterDouble.last.bury()
        assert server.chats == []
    assert (report.exit_code, report.reason, report.answered, report.pending) == (4, "service", 0, COUNT)
    assert "no worker of the cluster is left that can ask" in report.message


async def test_a_shard_that_is_given_back_for_no_reason_stops_the_run(monkeypatch, tmp_path) -> None:
    """Whoever gives one back gives back all that come."""

    async def give_back(self, shard):
        return ShardReport(number=shard.number, whole=False)

    monkeypatch.setattr(ShardWorker, "ask", give_back)
    async with DevServer() as server:
        report = await run_job(job_for(server, tmp_path))
    assert (report.exit_code, report.reason, report.answered, report.pending) == (4, "service", 0, COUNT)
    assert "gave back prompts" in report.message


async def test_a_worker_that_ends_the_run_is_heard_where_the_desk_is_not(monkeypatch, tmp_path) -> None:
    """The desk may be started anew at that moment; the reason is the worker's, not that it gave its shard back."""

    async def refused(self, work):
        self.stop(StopReason(kind="service", message="the service refuses all"))
        await ask(self, work)

    ask = ShardWorker._run
    monkeypatch.setattr(ShardWorker, "_run", refused)
    monkeypatch.setattr(Desk, "_stop_for", lambda self, reason: None)
    async with DevServer() as server:
        async with asyncio.timeout(30):
            report = await run_job(job_for(server, tmp_path))
    assert (report.exit_code, report.reason, report.message) == (4, "service", "the service refuses all")


async def test_a_shard_that_killed_its_worker_is_asked_again_by_another(monkeypatch, tmp_path) -> None:
    """Alone, so that nothing else is taken for what killed it."""
    dying = []

    async def ask(self, shard):
        if self._opening.number == 1:
            dying.append(shard.number)
            raise WorkerLostError("it died, each time")
        return await asked(self, shard)

    asked = ShardWorker.ask
    monkeypatch.setattr(ShardWorker, "ask", ask)
    async with DevServer() as server:
        async with asyncio.timeout(30):
            report = await run_job(job_for(server, tmp_path))
    assert dying
    assert (report.exit_code, report.failed) == (0, 0)
    assert_all_answered(tmp_path / "out.jsonl", range(COUNT))


def no_room_for(monkeypatch, number) -> None:
    """The worker of that number never comes."""
    monkeypatch.setattr(batchchat.ray.readiness, "_MORE_S", 0.5)
    start_worker = ClusterDouble.start_worker

    def start_others(self, opening):
        worker = start_worker(self, opening)
        if opening.number == number:
            worker.lost.set()
        return worker

    monkeypatch.setattr(ClusterDouble, "start_worker", start_others)


async def test_an_abort_ends_the_wait_for_a_worker_that_was_suspected(monkeypatch, tmp_path) -> None:
    """A shard that killed its worker is to be asked once more, and there is no room for that one any more."""
    monkeypatch.setattr(batchchat.ray.spread, "_ABORT_S", 0.0)
    monkeypatch.setattr(batchchat.ray.driver, "_CLOSE_S", 0.0)
    works, again = [], asyncio.Event()
    alone = SpreadWork._alone

    async def die(self, shard):
        raise WorkerLostError("it died, each time")

    async def without_room(self, shard, worker):
        worker.lost.set()
        works.append(self)
        again.set()
        await alone(self, shard, worker)

    monkeypatch.setattr(ShardWorker, "ask", die)
    monkeypatch.setattr(SpreadWork, "_alone", without_room)
    async with DevServer() as server:
        going = asyncio.create_task(run_job(job_for(server, tmp_path, workers=1)))
        async with asyncio.timeout(30):
            await again.wait()
            works[0]._asks.stop(StopReason(kind="interrupted", message="interrupted"))
            works[0]._asks.abort()
            report = await going
        await ClusterDouble.last.bury()
    assert (report.exit_code, report.pending) == (130, COUNT)


async def test_prompts_that_are_given_up_count_as_failures(monkeypatch, tmp_path) -> None:
    """Together with those that workers met: four are one too many."""

    async def die(self, shard):
        if shard.number > 1:
            raise WorkerLostError("it died, each time")
        return await ask(self, shard)

    ask = ShardWorker.ask
    monkeypatch.setattr(ShardWorker, "ask", die)
    monkeypatch.setattr(SpreadWork, "_best_size", lambda self: 3)
    async with DevServer(Scenario(error_500=1.0)) as server:
        job = job_for(server, tmp_path, workers=1, **{"stop.max_failures": 3, "retry.retries": 0})
        async with asyncio.timeout(30):
            report = await run_job(job)
    assert (report.exit_code, report.reason, report.failed) == (5, "limit", 4)
    assert report.message == "4 prompts failed, more than --max-failures 3"


async def test_prompts_whose_answers_cannot_be_read_do_not_fail(monkeypatch, tmp_path) -> None:
    """Their worker died, and what it had written is there, but not to be had: they stay as they are."""

    async def die(self, shard):
        raise WorkerLostError("it died, each time")

    async def unreadable(self, number, *, whole):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ShardWorker, "ask", die)
    monkeypatch.setattr(Merger, "merge", unreadable)
    async with DevServer() as server:
        async with asyncio.timeout(30):
            report = await run_job(job_for(server, tmp_path))
    assert (report.exit_code, report.reason, report.failed, report.pending) == (6, "results", 0, COUNT)
    assert "cannot be read: Input/output error" in report.message
    assert read_lines(tmp_path / "out.errors.jsonl") == []


async def test_no_shard_goes_to_a_worker_that_never_came(monkeypatch, tmp_path) -> None:
    """There was no room for the third from the beginning."""
    no_room_for(monkeypatch, 3)
    listener = Listener()
    async with DevServer(Scenario(latency_ms=50)) as server:
        going = await start(server, tmp_path, listener, workers=3)
        ClusterDouble.last.workers[0].lost.set()
        async with asyncio.timeout(30):
            report = await going
        await ClusterDouble.last.bury()
    assert report.exit_code == 0
    assert_all_answered(tmp_path / "out.jsonl", range(COUNT))


async def test_conversations_go_to_a_worker_that_is_there(monkeypatch, tmp_path) -> None:
    """All to the same one, but not to the first, which there was no room for from the beginning."""
    no_room_for(monkeypatch, 1)
    lines = [{"id": f"q-{n}", "prompt": f"question {n}", "chat_id": f"c-{n % 3}"} for n in range(12)]
    async with DevServer() as server:
        job = job_for(server, tmp_path, workers=3)
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        async with asyncio.timeout(30):
            report = await run_job(job)
        await ClusterDouble.last.bury()
        assert len(server.chats) == 12
    assert (report.exit_code, report.answered) == (0, 12)


async def test_a_run_without_any_worker_waits_for_room_and_can_be_ended(tmp_path) -> None:
    listener = Listener()
    async with DevServer(Scenario(latency_ms=50)) as server:
        going = await start(server, tmp_path, listener)
        for worker in ClusterDouble.last.workers:
            worker.lost.set()
        async with asyncio.timeout(30):
            while not any("goes on once there is room" in notice for notice in listener.notices):
                await asyncio.sleep(0.02)
        met = len(server.chats)
        await asyncio.sleep(0.3)
        assert len(server.chats) == met
        assert not going.done()
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        await ClusterDouble.last.bury()
