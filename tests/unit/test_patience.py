"""A time limit takes what has come by its end, and does not count the time in which the process could not run."""

import asyncio
import socket
import time
from typing import Any

import pytest

from batchchat.deadlines import Deadlines
from batchchat.patience import PatientTimeout
from tests.virtual_time import run_virtual


class SharedTimer:
    """A limit of ``Deadlines`` in the shape of ``PatientTimeout``."""

    def __init__(self, due: float | None) -> None:
        self._limit = Deadlines().until(due)

    async def __aenter__(self) -> "SharedTimer":
        self._limit.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._limit.__exit__(*error)

    def expired(self) -> bool:
        return self._limit.expired

    @property
    def held_s(self) -> float:
        return self._limit.held_s


@pytest.fixture(params=[PatientTimeout, SharedTimer], autouse=True)
def clock_of(request: pytest.FixtureRequest) -> Any:
    """Either kind of limit keeps the same promises."""
    global Clock
    Clock = request.param
    return Clock


Clock: Any = PatientTimeout


async def waiting(due_in_s: float | None, wait_s: float) -> tuple[bool, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    clock = Clock(None if due_in_s is None else began + due_in_s)
    try:
        async with clock:
            await asyncio.sleep(wait_s)
    except TimeoutError:
        assert clock.expired()
        return True, loop.time() - began
    assert not clock.expired()
    return False, loop.time() - began


def test_limit_ends_a_wait_when_it_is_due() -> None:
    ended, after_s = run_virtual(waiting(60, 3600))
    assert ended
    assert after_s == pytest.approx(60, abs=0.001)
    assert not run_virtual(waiting(60, 59))[0]
    assert not run_virtual(waiting(None, 3600))[0]


def test_limit_that_is_past_ends_a_wait_at_once() -> None:
    ended, after_s = run_virtual(waiting(-5, 3600))
    assert ended
    assert after_s < 0.001


def test_limit_can_be_moved() -> None:
    async def moved() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with PatientTimeout(None) as clock:
                clock.reschedule(began + 7)
                await asyncio.sleep(3600)
        return loop.time() - began

    assert run_virtual(moved()) == pytest.approx(7, abs=0.001)


def test_bytes_that_came_while_the_loop_stood_still_are_taken() -> None:
    """Whether it stood still for just longer than the limit, or for much longer."""

    async def stood_still(seconds: float) -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            async with Clock(asyncio.get_running_loop().time() + 0.02):
                asyncio.get_running_loop().call_soon(_stand_still, theirs, seconds)
                data = await reader.read(100)
        writer.close()
        await writer.wait_closed()
        return data

    for seconds in (0.021, 0.03, 0.2):
        assert asyncio.run(stood_still(seconds)) == b"there"


def _stand_still(theirs: socket.socket, seconds: float) -> None:
    theirs.send(b"there")
    time.sleep(seconds)


def test_time_held_up_does_not_count_but_the_wait_after_it_is_short() -> None:
    """A machine that was suspended for a day waits no other day for a server that is gone."""

    async def late() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        began, clock = loop.time(), Clock(loop.time() + 10)
        with pytest.raises(TimeoutError):
            async with clock:
                loop.call_later(1, setattr, loop, "now", began + 86400)
                await loop.create_future()
        return clock.held_s, loop.time() - began

    held_s, after_s = run_virtual(late())
    assert after_s == pytest.approx(86405, abs=0.1)
    assert held_s == pytest.approx(86395, abs=0.1)


def test_cancelling_from_outside_stays_a_cancelling() -> None:
    async def cancelled() -> bool:
        async def body() -> None:
            async with Clock(asyncio.get_running_loop().time() + 60):
                await asyncio.sleep(3600)

        task = asyncio.create_task(body())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert run_virtual(cancelled())
