"""Many limits share one timer: each ends at its own time, and the waits that end before theirs cost none."""

import asyncio

import pytest

from batchchat.deadlines import Deadlines
from tests.virtual_time import VirtualLoop, run_virtual


class CountingLoop(VirtualLoop):
    """Counts the timers that are set."""

    def __init__(self) -> None:
        self.timers = 0
        super().__init__()

    def call_at(self, *args, **more):
        self.timers += 1
        return super().call_at(*args, **more)


@pytest.mark.parametrize("limits_s", [[5, 1, 3, 4, 2], [1] * 5, [9, 7, 7, 9], [0.001, 1000]])
def test_each_wait_ends_at_its_own_limit(limits_s: list[float]) -> None:
    async def all_of_them() -> list[float]:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        began = loop.time()

        async def wait(limit_s: float) -> float:
            with pytest.raises(TimeoutError):
                with deadlines.until(began + limit_s) as limit:
                    await loop.create_future()
            assert limit.expired
            return loop.time() - began

        return await asyncio.gather(*map(wait, limits_s))

    assert run_virtual(all_of_them()) == pytest.approx(limits_s, abs=1e-4)


def test_limit_that_is_due_earlier_than_the_others_is_not_overlooked() -> None:
    """Long limits first, so that the timer stands far away; then one that is short, and later ones again."""

    async def ended_after() -> float:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()

        async def hold(limit_s: float) -> None:
            with deadlines.until(loop.time() + limit_s):
                await asyncio.sleep(50)

        holds = [asyncio.create_task(hold(300 + number)) for number in range(10)]
        await asyncio.sleep(1)
        began = loop.time()
        with pytest.raises(TimeoutError):
            with deadlines.until(began + 2):
                await loop.create_future()
        ended = loop.time() - began
        await asyncio.gather(*holds)
        return ended

    assert run_virtual(ended_after()) == pytest.approx(2, abs=1e-3)


def test_waits_that_end_before_their_limit_set_no_timer_each() -> None:
    """10,000 waits of 10 ms, 64 at a time, in limits of a minute: 1.6 s, in which one timer is set."""
    loop = CountingLoop()

    async def many() -> int:
        deadlines = Deadlines()
        turns = iter(range(10_000))

        async def worker() -> None:
            for _ in turns:
                with deadlines.until(loop.time() + 60):
                    await asyncio.sleep(0.01)

        before = loop.timers
        await asyncio.gather(*(worker() for _ in range(64)))
        deadlines.close()
        return loop.timers - before - 10_000  # each sleep has one of its own

    try:
        assert loop.run_until_complete(many()) == 1
    finally:
        loop.close()


def test_error_of_the_body_is_told_though_the_limit_is_over() -> None:
    """The body turned the end of its wait into an error of its own; the task can wait again afterwards."""

    async def failed() -> bool:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        with pytest.raises(KeyError):
            with deadlines.until(loop.time() + 1):
                try:
                    await loop.create_future()
                except asyncio.CancelledError:
                    raise KeyError from None
        await asyncio.sleep(1)
        task = asyncio.current_task()
        return task is not None and not task.cancelling()

    assert run_virtual(failed())


def test_limit_that_ends_together_with_a_cancelling_is_a_cancelling() -> None:
    async def cancelled() -> bool:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        due = loop.time() + 1

        async def body() -> None:
            with deadlines.until(due) as limit:
                loop.call_at(due, lambda: (limit.end(), task.cancel()))
                await loop.create_future()

        task = asyncio.create_task(body())
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert run_virtual(cancelled())


def test_no_timer_is_left_behind() -> None:
    async def closed() -> list[asyncio.TimerHandle]:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        with deadlines.until(loop.time() + 60):
            await asyncio.sleep(0)
        deadlines.close()
        return [handle for handle in loop._scheduled if not handle.cancelled()]

    assert run_virtual(closed()) == []
