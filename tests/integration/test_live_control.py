"""A run that is asked, paused, resumed and given other rates while it goes on."""

import asyncio
import itertools
from pathlib import Path

import pytest

from batchchat.control.client import ask, ask_or_fail
from batchchat.control.messages import Live, Request
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError
from tests.integration.test_run_job import Listener, files, run  # noqa: F401
from tests.runs import assert_all_answered, write_prompts

PAUSE, RESUME, STATUS = (Request(command=command) for command in ("pause", "resume", "status"))


async def tell(results: Path, request: Request) -> Live:
    reply = await asyncio.to_thread(ask_or_fail, str(results), request)
    assert reply.live is not None
    return reply.live


async def chats(server: DevServer, count: int) -> None:
    async with asyncio.timeout(30):
        while len(server.chats) < count:
            await asyncio.sleep(0.01)


@pytest.fixture
def started(files: tuple[Path, Path]):  # noqa: F811
    prompts, results = files
    write_prompts(prompts, 40)

    def start(server: DevServer, **settings) -> "asyncio.Task":
        return asyncio.create_task(run(server, prompts, results, **settings))

    return start, results


async def test_paused_run_sends_nothing_and_goes_on_when_it_is_resumed(started) -> None:
    start, results = started
    listener = Listener()
    async with DevServer(Scenario(latency_ms=30)) as server:
        running = start(server, concurrency=4, listener=listener)
        await chats(server, 8)
        live = await tell(results, PAUSE)
        assert (live.state, [hold.why for hold in live.holds]) == ("held", ["paused"])
        await asyncio.sleep(0.3)  # what was let out before may still be on its way
        met = len(server.chats)
        assert (await tell(results, PAUSE)).state == "held", "once more changes nothing"
        await asyncio.sleep(0.3)
        live = await tell(results, STATUS)
        assert len(server.chats) == met
        assert (live.in_flight, live.waiting, live.answered, live.left_s) == (0, 4, met, None)
        assert (await tell(results, RESUME)).holds == ()
        assert (await tell(results, RESUME)).state == "running"
        report = await running
    assert (report.exit_code, report.answered) == (0, 40)
    assert_all_answered(results, range(40))
    told = [notice for notice in listener.notices if "another shell" in notice]
    assert len(told) == 2, "each change is told once"


async def test_status_tells_what_only_the_run_knows(started) -> None:
    start, results = started
    async with DevServer(Scenario(stall_before=1)) as server:
        running = start(server, concurrency=3, rate="1000/s", timeout__attempt="500ms", retry__retries=1)
        async with asyncio.timeout(30):
            while True:
                await asyncio.sleep(0.05)
                met = len(server.requests)
                live = await tell(results, STATUS)
                if live.attempts.get("timeout") and live.in_flight:
                    break
            # what the run has sent may still be on its way to the server
            while len(server.requests) < live.requests:
                await asyncio.sleep(0.01)
        assert (live.state, live.total, live.rates) == ("running", 40, ("1000/s",))
        assert met <= live.requests
        assert 1 <= len(live.slow) <= 5
        oldest = live.slow[0]
        assert str(oldest.id).startswith("q-")
        assert oldest.last_error is not None
        assert oldest.last_error.startswith("timeout: no answer within")
        assert [slow.seconds for slow in live.slow] == sorted((slow.seconds for slow in live.slow), reverse=True)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(ConfigError, match="no run is going on there"):
        await tell(results, STATUS)


async def test_rate_is_changed_at_once_in_both_directions(started) -> None:
    start, results = started
    async with DevServer() as server:
        running = start(server, rate="1/h", concurrency=4)
        async with asyncio.timeout(30):
            while not server.requests:
                await asyncio.sleep(0.01)
        live = await tell(results, Request(command="set-rate", rates=("20/s", "100000/h")))
        assert live.rates == ("20/s", "100000/h")
        await chats(server, 3)
        await tell(results, Request(command="set-rate", rates=("1/h",)))
        met = len(server.chats)
        await asyncio.sleep(0.3)
        assert len(server.chats) <= met + 1, "one may have been let out already"
        assert len(server.chats) < 40
        assert (await tell(results, Request(command="set-rate"))).rates == ()
        assert (await running).exit_code == 0
    assert_all_answered(results, range(40))


@pytest.mark.parametrize("rates", [("fast",), ("0/s",), ("5/s", "none"), ("-1/s",), ("1/s",) * 17])
async def test_rate_that_is_none_is_refused_and_the_old_one_stays(started, rates: tuple[str, ...]) -> None:
    start, results = started
    async with DevServer(Scenario(latency_ms=100)) as server:
        running = start(server, rate="100/s", concurrency=2)
        await chats(server, 1)
        with pytest.raises(ConfigError, match="expected"):
            await tell(results, Request(command="set-rate", rates=rates))
        assert (await tell(results, STATUS)).rates == ("100/s",)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_several_who_pause_and_resume_at_once_leave_a_run_that_ends(started) -> None:
    start, results = started
    async with DevServer(Scenario(latency_ms=20)) as server:
        running = start(server, concurrency=2)
        await chats(server, 2)
        rates = (Request(command="set-rate", rates=(f"{number}00/s",)) for number in itertools.cycle((1, 2)))
        for _ in range(5):
            replies = await asyncio.gather(
                *(
                    asyncio.to_thread(ask, str(results), request)
                    for request in (PAUSE, RESUME, PAUSE, next(rates), STATUS)
                )
            )
            assert all(reply is not None and reply.done for reply in replies)
        await tell(results, RESUME)
        assert (await running).exit_code == 0
    assert_all_answered(results, range(40))


async def test_run_that_is_paused_before_its_first_request_waits(started) -> None:
    """Asked as early as can be: as soon as anybody answers."""
    start, results = started
    async with DevServer() as server:
        running = start(server, rate="2/s")
        async with asyncio.timeout(30):
            while (reply := await asyncio.to_thread(ask, str(results), PAUSE)) is None:
                await asyncio.sleep(0)
        assert reply.done
        await asyncio.sleep(0.3)  # what was let out before may still be on its way
        met = len(server.requests)
        await asyncio.sleep(0.7)
        assert len(server.requests) == met <= 1
        await tell(results, Request(command="set-rate"))
        await tell(results, RESUME)
        assert (await running).exit_code == 0


async def test_deadline_ends_a_paused_run(started) -> None:
    start, results = started
    async with DevServer(Scenario(latency_ms=20)) as server:
        running = start(server, concurrency=2, rate="10/s", timeout__run="1500ms")
        await chats(server, 2)
        await tell(results, PAUSE)
        report = await running
    assert report.exit_code == 5
    assert report.failed == 0
    assert 0 < report.answered < 40


async def test_results_that_go_to_no_file_have_no_control(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="- is no file"):
        ask_or_fail("-", PAUSE)
    with pytest.raises(ConfigError, match="there is no such results file"):
        ask_or_fail(str(tmp_path / "none.jsonl"), PAUSE)
