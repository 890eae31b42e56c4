"""The pool: input read a little ahead, tasks that end when they should, outcomes let through in order."""

import asyncio
import threading

import pytest

from batchchat.pool import InputOrder, PromptSource, WorkerPool


async def until(condition) -> None:
    """Lets the loop and other threads go on until the condition holds."""
    while not condition():
        await asyncio.sleep(0)


async def take_all(source: PromptSource) -> list:
    items = []
    while (item := await source.next()) is not None:
        items.append(item)
    return items


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 5000])
@pytest.mark.parametrize("ahead", [1, 2, 7])
async def test_every_item_comes_once_and_in_order(count: int, ahead: int) -> None:
    assert await take_all(PromptSource(range(1, count + 1), ahead=ahead)) == list(range(1, count + 1))


async def test_end_stays_the_end() -> None:
    source = PromptSource([1], ahead=2)
    assert await take_all(source) == [1]
    assert await source.next() is None


async def test_several_takers_get_every_item_once() -> None:
    source = PromptSource(range(1, 2001), ahead=4)
    taken = await asyncio.gather(*(take_all(source) for _ in range(9)))
    assert sorted(item for items in taken for item in items) == list(range(1, 2001))


async def test_input_is_read_no_further_than_asked() -> None:
    read = 0

    def items():
        nonlocal read
        while True:
            read += 1
            yield read

    source = PromptSource(items(), ahead=10)
    for taken in range(1, 51):
        assert await source.next() == taken
        assert read <= taken + 11
    await until(lambda: read >= 55)
    assert read <= 61
    source.close()


async def test_item_comes_before_the_input_goes_on() -> None:
    """As from a pipe that stays open."""
    more = threading.Event()

    def items():
        yield "first"
        more.wait(30)
        yield "last"

    source = PromptSource(items(), ahead=10)
    assert await source.next() == "first"
    waiting = asyncio.create_task(source.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    more.set()
    assert await waiting == "last"


async def test_error_of_the_input_comes_after_what_was_read() -> None:
    def items():
        yield 1
        raise LookupError("cut")

    source = PromptSource(items(), ahead=5)
    assert await source.next() == 1
    assert await source.next() is None
    assert isinstance(source.failed, LookupError)


async def test_pool_handles_what_came_before_an_error_of_the_input() -> None:
    """The error must not take away prompts that are on the wire already."""
    done = []

    def items():
        yield from range(4)
        raise LookupError("cut")

    async def handle(item: int) -> None:
        await asyncio.sleep(0.05)
        done.append(item)

    pool = WorkerPool(PromptSource(items(), ahead=8), handle, tasks=4, keep=set())
    with pytest.raises(LookupError, match="cut"):
        await pool.run()
    assert sorted(done) == [0, 1, 2, 3]


async def test_cancelled_taker_takes_nothing_away() -> None:
    more = threading.Event()

    def items():
        more.wait(30)
        yield 1

    source = PromptSource(items(), ahead=5)
    first, second = asyncio.create_task(source.next()), asyncio.create_task(source.next())
    await asyncio.sleep(0)
    first.cancel()
    more.set()
    assert await second == 1
    assert first.cancelled()


async def test_closed_source_ends_its_thread() -> None:
    source = PromptSource(iter(int, 1), ahead=3)
    await source.next()
    source.close()
    await until(lambda: not source._thread.is_alive())


async def test_outcomes_pass_in_the_order_of_their_tickets() -> None:
    order, passed = InputOrder(), []
    gates = [asyncio.Event() for _ in range(5)]

    async def one(number: int, ticket: int) -> None:
        await gates[number].wait()
        await order.wait(ticket)
        passed.append(number)
        order.leave(ticket)

    tasks = [asyncio.create_task(one(number, order.ticket())) for number in range(5)]
    for number in (3, 1, 0, 4, 2):
        gates[number].set()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert passed == [0, 1, 2, 3, 4]


async def test_ticket_given_back_holds_nobody_up() -> None:
    order = InputOrder()
    first, second, third = (order.ticket() for _ in range(3))
    waiting = asyncio.create_task(order.wait(third))
    await asyncio.sleep(0)
    order.leave(second)
    await asyncio.sleep(0)
    assert not waiting.done()
    order.leave(first)
    await waiting


async def test_cancelled_outcome_holds_nobody_up() -> None:
    order = InputOrder()
    first, second, third = (order.ticket() for _ in range(3))

    async def one(ticket: int) -> None:
        try:
            await order.wait(ticket)
        finally:
            order.leave(ticket)

    cancelled, last = asyncio.create_task(one(second)), asyncio.create_task(one(third))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    order.leave(first)
    await last


def pool_of(items, handle, *, tasks: int = 4, keep=None) -> WorkerPool:
    return WorkerPool(PromptSource(items, ahead=tasks), handle, tasks=tasks, keep=set() if keep is None else keep)


async def test_pool_handles_every_item() -> None:
    handled = []

    async def handle(item: int) -> None:
        await asyncio.sleep(0)
        handled.append(item)

    await pool_of(range(1, 501), handle).run()
    assert sorted(handled) == list(range(1, 501))


async def test_error_of_one_item_ends_the_pool() -> None:
    async def handle(item: int) -> None:
        if item == 3:
            raise ValueError("third")
        await asyncio.sleep(3600)

    with pytest.raises(ExceptionGroup) as caught:
        await pool_of(range(1, 100), handle).run()
    assert [str(error) for error in caught.value.exceptions] == ["third"]


async def running(pool: WorkerPool, holding: list, count: int) -> asyncio.Task:
    """The pool at work with so many items in hand."""
    task = asyncio.create_task(pool.run())
    await until(lambda: len(holding) == count)
    return task


async def test_drain_lets_finish_what_is_on_the_wire_and_gives_up_what_waits() -> None:
    """Items 1 and 2 are on the wire, 3 is being written, 4 only waits."""
    keep, holding, done, go = set(), [], [], asyncio.Event()

    async def handle(item: int) -> None:
        task = asyncio.current_task()
        if item <= 2:
            keep.add(task)
        elif item == 3:
            pool.writing.add(task)
        holding.append(item)
        await go.wait()
        done.append(item)

    pool = pool_of(range(1, 100), handle, keep=keep)
    task = await running(pool, holding, 4)
    pool.drain()
    go.set()
    await task
    assert sorted(done) == [1, 2, 3]
    assert len(holding) == 4, "no new item is taken"


async def test_abort_lets_nothing_finish_but_writes() -> None:
    keep, holding, done, go = set(), [], [], asyncio.Event()

    async def handle(item: int) -> None:
        task = asyncio.current_task()
        (pool.writing if item == 3 else keep).add(task)
        holding.append(item)
        await go.wait()
        done.append(item)

    pool = pool_of(range(1, 100), handle, keep=keep)
    task = await running(pool, holding, 4)
    pool.abort()
    go.set()
    await task
    assert done == [3]


async def test_task_that_calls_for_the_drain_goes_on() -> None:
    done = []

    async def handle(item: int) -> None:
        if item != 2:
            await asyncio.sleep(3600)
        pool.drain()
        await asyncio.sleep(0)
        done.append(item)

    pool = pool_of(range(1, 100), handle)
    await pool.run()
    assert done == [2]


async def test_drained_pool_that_waits_for_its_input_ends() -> None:
    never = threading.Event()

    def items():
        yield 1
        never.wait(30)

    handled = []

    async def handle(item: int) -> None:
        handled.append(item)

    pool = pool_of(items(), handle)
    task = await running(pool, handled, 1)
    pool.drain()
    await task
    never.set()
