"""What a run sees of a limit that it shares: waits, reservations that are given back, and a file that fails."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from batchchat.devserver.state import worst_window
from batchchat.durations import Rate
from batchchat.errors import ConfigError
from batchchat.hostlimits import HostLimiter
from batchchat.hostlimits.ledger import Ledger
from tests.virtual_time import run_virtual

SECOND, MINUTE = Rate(1, 1.0), Rate(1, 60.0)


def limiter(folder: Path, *rates: Rate, told: Callable[[str], None] = lambda _: None, **options) -> HostLimiter:
    clock = asyncio.get_running_loop().time
    options = {"failed": pytest.fail, "notice": told, **options}
    return HostLimiter(rates, folder=folder, service=lambda: "digest", clock=clock, **options)


async def passes(limit: HostLimiter, *, way_s: float = 0.0) -> float:
    """The time at which one request is written, ``way_s`` after it was let out."""
    send = await limit.acquire()
    assert send is not None
    limit.begin(send)
    await asyncio.sleep(way_s)
    if (waiting := limit.sent(send)) is not None:
        await waiting
    at = asyncio.get_running_loop().time()
    await asyncio.sleep(0.001)
    limit.left(send)
    return at


def test_two_limiters_hold_one_rate(tmp_path) -> None:
    async def both() -> list[float]:
        async with limiter(tmp_path, Rate(5, 1.0)) as one, limiter(tmp_path, Rate(5, 1.0)) as other:
            return await asyncio.gather(*(passes(limit) for limit in (one, other) for _ in range(15)))

    times = run_virtual(both(), late_s=0.001)
    assert worst_window(times, 1.0) <= 5
    assert max(times) - min(times) < 29 / 5 * 1.03


def test_request_that_takes_long_to_the_wire_waits_again(tmp_path) -> None:
    """Ten seconds for a connection: meanwhile its time is another's."""

    async def slow() -> tuple[float, float, float]:
        async with limiter(tmp_path, Rate(2, 1.0)) as one, limiter(tmp_path, Rate(2, 1.0)) as other:
            late = asyncio.create_task(passes(one, way_s=10.0))
            await asyncio.sleep(9.9)
            times = [await passes(other) for _ in range(2)]
            return (*times, await late)

    assert worst_window(list(run_virtual(slow())), 1.0) <= 2


def test_request_that_is_written_twice_counts_twice(tmp_path) -> None:
    """As where the connection turns out to be of no use."""

    async def twice() -> list[float]:
        loop = asyncio.get_running_loop()
        async with limiter(tmp_path, SECOND) as limit:
            send = await limit.acquire()
            assert send is not None
            times = []
            for _ in range(3):
                if (waiting := limit.sent(send)) is not None:
                    await waiting
                times.append(loop.time())
            limit.left(send)
            return [*times, await passes(limit)]

    assert worst_window(run_virtual(twice()), 1.0) == 1


@pytest.mark.parametrize("end", ["written", "left"])
def test_request_that_another_process_writes_counts_from_when_it_has(tmp_path, end) -> None:
    async def elsewhere() -> float:
        async with limiter(tmp_path, SECOND) as one, limiter(tmp_path, SECOND) as other:
            send = await one.acquire()
            assert send is not None
            send.elsewhere = True
            assert one.sent(send) is None
            await asyncio.sleep(1.5)
            at = asyncio.get_running_loop().time()
            (one.written if end == "written" else one.left)(send)
            return await passes(other) - at

    assert 1.0 <= run_virtual(elsewhere()) < 1.1


@pytest.mark.parametrize("moment", ["before", "after", "after a second time was waited for", "after a late connection"])
def test_request_that_is_over_before_it_may_leave_holds_nobody(tmp_path, moment) -> None:
    """Another process was to write it, and ended its attempt meanwhile."""

    async def over() -> list[float]:
        async with limiter(tmp_path, Rate(2, 1.0)) as one, limiter(tmp_path, Rate(2, 1.0)) as other:
            send = await one.acquire()
            assert send is not None
            send.elsewhere = True
            if moment == "before":
                one.left(send)
            elif moment == "after a late connection":
                await asyncio.sleep(5.0)
                for _ in range(2):
                    await passes(other)
            waiting = one.sent(send)
            if moment == "after a second time was waited for":
                assert waiting is None
                one.written(send)
                waiting = one.sent(send)
            waited = None if waiting is None else asyncio.ensure_future(waiting)
            await asyncio.sleep(0.01)
            if moment != "before":
                one.left(send)
            if waited is not None:
                await waited
            await asyncio.sleep(5.0)
            return [await passes(limit) for limit in (one, other, one, other)]

    times = run_virtual(over())
    assert times[-1] - times[0] < 1.6


@pytest.mark.parametrize("moment", ["waiting", "let out"])
def test_request_that_is_given_up_leaves_its_time_to_others(tmp_path, moment) -> None:
    async def given_up() -> float:
        async with limiter(tmp_path, MINUTE) as one, limiter(tmp_path, MINUTE) as other:
            start = asyncio.get_running_loop().time()
            if moment == "let out":
                send = await one.acquire()
                assert send is not None
                one.left(send)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.0):
                        await one.acquire()
            await asyncio.sleep(0.2)
            return await passes(other) - start

    assert run_virtual(given_up()) < 5.0


def test_pause_of_one_holds_the_other_and_a_hold_only_its_own(tmp_path) -> None:
    async def paused() -> tuple[float, float]:
        async with limiter(tmp_path, Rate(100, 1.0)) as one, limiter(tmp_path, Rate(100, 1.0)) as other:
            start = asyncio.get_running_loop().time()
            one.hold("paused")
            one.pause(30.0)
            await asyncio.sleep(0.1)
            second = await passes(other) - start
            one.release("paused")
            return second, await passes(one) - start

    assert all(30.0 <= after < 33.0 for after in run_virtual(paused()))


def test_rates_that_are_set_hold_at_once(tmp_path) -> None:
    async def changed() -> float:
        async with limiter(tmp_path, Rate(1, 3600.0)) as limit:
            start = await passes(limit)
            waiting = asyncio.create_task(passes(limit))
            await asyncio.sleep(5.0)
            limit.set_rates([Rate(2, 10.0)])
            return await waiting - start

    assert 5.0 <= run_virtual(changed()) < 6.5


def test_lock_that_is_held_blocks_no_loop_and_is_told(tmp_path) -> None:
    async def held() -> tuple[list[str], float]:
        told: list[str] = []
        async with limiter(tmp_path, Rate(100, 1.0), told=told.append) as limit:
            (path,) = tmp_path.glob("*.lock")
            with open(path, "rb+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                waiting = asyncio.create_task(passes(limit))
                given_up = asyncio.create_task(limit.acquire())
                await asyncio.sleep(6.0)
                given_up.cancel()
                assert not waiting.done()
            return told, await waiting

    told, _ = run_virtual(held())
    assert len(told) == 1
    assert "it may be stopped" in told[0]


def test_run_that_ends_while_the_lock_is_held_ends(tmp_path) -> None:
    async def ended() -> None:
        async with limiter(tmp_path, Rate(100, 1.0)) as limit:
            (path,) = tmp_path.glob("*.lock")
            stream = open(path, "rb+")  # noqa: SIM115 - held to the end
            fcntl.flock(stream, fcntl.LOCK_EX)
            waiting = asyncio.create_task(limit.acquire())
            await asyncio.sleep(0.1)
            waiting.cancel()
        stream.close()

    run_virtual(ended())


def test_file_that_cannot_be_written_any_more_lets_nothing_out(tmp_path) -> None:
    async def broken() -> tuple[list[str], object]:
        told: list[str] = []
        folder = tmp_path / "limits"
        async with limiter(folder, Rate(100, 1.0), failed=told.append) as limit:
            await passes(limit)
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            folder.write_text("a file")
            await asyncio.sleep(2.0)
            sends = await asyncio.gather(*(limit.acquire() for _ in range(5)))
            limit.pause(3.0)
            await asyncio.sleep(1.0)
            return told, next(filter(None, sends), None)

    told, send = run_virtual(broken())
    assert send is None
    assert len(told) == 1
    assert str(tmp_path) in told[0]


def test_folder_that_is_none_is_told_in_a_sentence(tmp_path) -> None:
    (tmp_path / "limits").write_text("a file")

    async def enter() -> None:
        async with limiter(tmp_path / "limits", SECOND):
            pytest.fail("entered")

    with pytest.raises(ConfigError, match="make that folder writable, or use --rate-scope run"):
        run_virtual(enter())


_FORKED = """
import asyncio, os, signal, sys, time
from pathlib import Path
from batchchat.hostlimits import HostLimiter

async def main():
    limit = HostLimiter((), folder=Path(sys.argv[1]), service=lambda: "digest", failed=print, notice=print)
    async with limit:
        assert limit._access.ledger.try_lock()
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.process
def test_forked_child_keeps_no_lock_of_its_parent(tmp_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _FORKED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait(20) == -signal.SIGKILL
        ledger = Ledger(tmp_path, "digest", [])
        ledger.open()
        assert len([path for path in tmp_path.iterdir() if path.name.count(".") and path.suffix != ".lock"]) == 1
        ledger.close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
