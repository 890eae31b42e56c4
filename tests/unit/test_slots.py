"""Slots: never more than there are, in the order of asking, and nobody is left behind."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable

import pytest

from batchchat.durations import parse_rate
from batchchat.limits import Limiter
from batchchat.pool import PromptSource, WorkerPool
from batchchat.slots import Slots
from tests.virtual_time import run_virtual


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_free_slot_costs_no_turn_of_the_loop() -> None:
    slots = Slots(2)
    coroutine = slots.acquire()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert slots.free == 1


async def test_slots_are_given_in_the_order_of_asking() -> None:
    slots, got = Slots(1), []
    await slots.acquire()

    async def ask(number: int) -> None:
        await slots.acquire()
        got.append(number)
        slots.release()

    tasks = [asyncio.create_task(ask(number)) for number in range(20)]
    await settle()
    assert got == []
    slots.release()
    await asyncio.gather(*tasks)
    assert got == list(range(20))
    assert slots.free == 1


async def test_later_one_does_not_overtake_those_who_wait() -> None:
    slots = Slots(1)
    await slots.acquire()
    first = asyncio.create_task(slots.acquire())
    await settle()
    slots.leave()
    assert not slots.vacant
    second = asyncio.create_task(slots.acquire())
    await settle()
    assert first.done()
    assert not second.done()
    slots.release()
    await second


@pytest.mark.parametrize("granted", [False, True])
async def test_cancelled_wait_takes_no_slot(granted: bool) -> None:
    slots = Slots(1)
    await slots.acquire()
    waiting, after = asyncio.create_task(slots.acquire()), asyncio.create_task(slots.acquire())
    await settle()
    if granted:
        slots.release()
        waiting.cancel()
    else:
        waiting.cancel()
        slots.release()
    await asyncio.wait([waiting, after], timeout=5)
    assert waiting.cancelled()
    assert after.done()
    assert slots.free == 0


async def test_slot_given_back_before_the_end_lets_a_further_task_begin() -> None:
    slots = Slots(1)
    await slots.acquire()
    idle = [asyncio.create_task(slots.vacancy()) for _ in range(2)]
    await settle()
    slots.release()
    await settle()
    assert [task.done() for task in idle] == [True, False]
    slots.end()
    await asyncio.gather(*idle)


@pytest.mark.parametrize("woken", [False, True])
async def test_cancelled_idle_task_leaves_its_invitation_to_the_next(woken: bool) -> None:
    slots = Slots(1)
    await slots.acquire()
    first, second = (asyncio.create_task(slots.vacancy()) for _ in range(2))
    await settle()
    if woken:
        slots.release()
        first.cancel()
    else:
        first.cancel()
        await settle()
        slots.release()
    await asyncio.wait([second], timeout=5)
    assert second.done()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pool_handles_all_whatever_gives_its_slot_back_in_between(seed: int, limit: int) -> None:
    """Items wait at random with and without their slot, and some need none."""
    chance = random.Random(seed)
    slots, handled, held, most = Slots(limit), [], 0, 0

    async def handle(item: int) -> None:
        nonlocal held, most
        for turn in range(chance.randrange(4)):
            await slots.acquire()
            held += 1
            most = max(most, held)
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
            held -= 1
            if turn == 2:
                slots.leave()
            else:
                slots.release()
                await asyncio.sleep(chance.choice((0, 0.001)))
        handled.append(item)

    source = PromptSource(range(1, 301), ahead=limit)
    await asyncio.wait_for(WorkerPool(source, handle, tasks=2 * limit, keep=set(), slots=slots).run(), 60)
    assert sorted(handled) == list(range(1, 301))
    assert most <= limit
    assert slots.free == limit


async def calls_of(work: Callable[[], Awaitable[None]]) -> int:
    """Calls that the work makes, of Python and of C, its turns of the loop included."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        await work()
    finally:
        sys.setprofile(None)
    return count


async def test_cost_of_a_slot_does_not_grow_with_those_who_wait() -> None:
    async def cost(waiting: int) -> int:
        slots = Slots(1)
        await slots.acquire()
        tasks = [asyncio.create_task(slots.acquire()) for _ in range(waiting)]
        tasks += [asyncio.create_task(slots.vacancy()) for _ in range(waiting)]
        await settle()

        async def work() -> None:
            for _ in range(20):
                slots.release()
                await asyncio.sleep(0)

        found = await calls_of(work)
        slots.end()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return found

    assert await cost(2000) <= await cost(25) * 1.1


def test_cost_of_a_limited_request_does_not_grow_with_those_that_wait() -> None:
    """The limiter has one timer, however many wait for it."""

    async def cost(waiting: int) -> int:
        limiter = Limiter([parse_rate("100/s"), parse_rate("5000/min")])
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(waiting)]
        await settle()

        async def work() -> None:
            before = limiter.admitted
            while limiter.admitted < before + 20:
                await asyncio.sleep(0.01)

        found = await calls_of(work)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return found

    assert run_virtual(cost(2000)) <= run_virtual(cost(25)) * 1.1
