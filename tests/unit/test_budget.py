"""The gate of the budget: who is let out, in which order, and when it is used up."""

import asyncio
import random
from decimal import Decimal

import pytest

from batchchat.budget import Budget
from batchchat.prices import Price, PriceConfig
from batchchat.records import Usage
from tests.virtual_time import run_virtual

DOLLAR = Price.per_million(PriceConfig(input=1_000_000, output=1_000_000))


def usd(budget: Budget, amount: int | str) -> None:
    """Counts so many dollars as spent."""
    cents = Price(input=Decimal("0.01"), output=Decimal(0), cached_input=Decimal(0), reasoning=Decimal(0))
    budget.spend(Usage(input_tokens=int(Decimal(amount) * 100)), cents, "m")


async def one_request(budget: Budget, held: str, cost: str, seconds: float, order: list[int], number: int) -> None:
    await budget.hold(Decimal(held))
    order.append(number)
    await asyncio.sleep(seconds)
    usd(budget, cost)
    budget.release(Decimal(held))


def test_without_a_limit_nobody_waits_and_everything_is_counted() -> None:
    async def main() -> None:
        budget = Budget()
        await budget.hold(Decimal(10**9))
        budget.spend(Usage(input_tokens=2, output_tokens=3, estimated=True), DOLLAR, "m")
        budget.spend(Usage(input_tokens=1, output_tokens=1), None, None)
        budget.spend(Usage(input_tokens=1, output_tokens=1), None, "x")
        spent = budget.spent
        assert spent.usage == Usage(input_tokens=4, output_tokens=5, estimated=True)
        assert spent.estimated_requests == 1
        assert spent.cost_usd is None
        assert spent.unpriced == {"": 1, "x": 1}

    run_virtual(main())


def test_requests_wait_for_room_in_the_order_in_which_they_came() -> None:
    async def main() -> None:
        why: list[str] = []
        budget, order = Budget(Decimal(10), why.append), []
        async with asyncio.TaskGroup() as group:
            for number in range(9):
                # A small one could overtake a large one that waits, and must not.
                held = "6" if number % 3 == 0 else "1"
                group.create_task(one_request(budget, held, "0.5", 1.0, order, number))
        assert order == list(range(9))
        assert budget.spent.cost_usd == Decimal("4.5")
        assert why == []

    run_virtual(main())


def test_the_whole_budget_may_be_spent() -> None:
    async def main() -> None:
        budget = Budget(Decimal(2), pytest.fail)
        for _ in range(2):
            await one_request(budget, "1", "1", 0, [], 0)
        await one_request(budget, "0", "0", 0, [], 0)  # what costs nothing always fits

    run_virtual(main())


def test_used_up_is_told_once_and_only_when_nothing_is_left_to_settle() -> None:
    async def main() -> None:
        why: list[str] = []
        budget, order = Budget(Decimal(1), why.append), []
        tasks = [asyncio.create_task(one_request(budget, "0.6", "0.6", 1, order, n)) for n in range(5)]
        await asyncio.sleep(0.5)
        assert (order, why) == ([0], [])
        await asyncio.sleep(1)
        assert order == [0]
        assert why == [
            "the budget of $1.00 allows no further request: $0.600 are spent, and the next one may cost up to $0.600 "
            "(less with a smaller max_tokens)"
        ]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert len(why) == 1

    run_virtual(main())


def test_request_dearer_than_the_budget_is_never_let_out() -> None:
    async def main() -> None:
        why: list[str] = []
        budget = Budget(Decimal(1), why.append)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await budget.hold(Decimal("1.000001"))
        assert len(why) == 1
        assert "may cost up to" in why[0]

    run_virtual(main())


def test_request_that_fits_alone_goes_when_nothing_else_is_on_its_way() -> None:
    async def main() -> None:
        why: list[str] = []
        budget = Budget(Decimal(10), why.append)
        assert await budget.hold(Decimal(100), alone=Decimal(2)) == 2
        second = asyncio.create_task(budget.hold(Decimal(100), alone=Decimal(2)))
        await asyncio.sleep(1)
        assert not second.done()
        usd(budget, 1)
        budget.release(Decimal(2))
        assert await second == 2
        usd(budget, 8)
        budget.release(Decimal(2))
        third = asyncio.create_task(budget.hold(Decimal(100), alone=Decimal(2)))
        await asyncio.sleep(1)
        assert "$9.00 are spent, and the next one may cost up to $2.00" in why[0]
        third.cancel()
        await asyncio.wait([third])

    run_virtual(main())


@pytest.mark.parametrize("granted", [False, True], ids=["waiting", "just let out"])
def test_one_that_is_cancelled_leaves_its_place_to_the_next(granted: bool) -> None:
    async def main() -> None:
        budget = Budget(Decimal(10), pytest.fail)
        await budget.hold(Decimal(9))
        first = asyncio.create_task(budget.hold(Decimal(5)))
        second = asyncio.create_task(budget.hold(Decimal(1 if not granted else 6)))
        await asyncio.sleep(0)
        if granted:
            budget.release(Decimal(9))  # the first has its room, but does not know it yet
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        async with asyncio.timeout(1):
            await second

    run_virtual(main())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_budget_holds_and_nobody_is_forgotten(seed: int) -> None:
    """Random requests, some of which are cancelled; each costs at most what was held."""
    chance = random.Random(seed)

    async def main() -> None:
        stopped = asyncio.Event()
        budget = Budget(Decimal(chance.randint(1, 30)), lambda why: stopped.set())
        in_flight = 0

        async def request() -> None:
            nonlocal in_flight
            held = Decimal(chance.randint(0, 300)) / 100
            await asyncio.sleep(chance.random() * 3)
            await budget.hold(held)
            in_flight += 1
            try:
                await asyncio.sleep(chance.random())
            finally:
                in_flight -= 1
                if chance.random() < 0.8:
                    usd(
                        budget, held if chance.random() < 0.3 else str(int(held * 100 * Decimal(chance.random())) / 100)
                    )
                budget.release(held)
            assert budget.spent.cost_usd <= budget.limit_usd

        tasks = [asyncio.create_task(request()) for _ in range(60)]
        for task in tasks:
            if chance.random() < 0.2:
                asyncio.get_running_loop().call_later(chance.random() * 4, task.cancel)
        stop = asyncio.create_task(stopped.wait())
        waiting = set(tasks)
        while waiting and not stopped.is_set():
            done, _ = await asyncio.wait([*waiting, stop], return_when=asyncio.FIRST_COMPLETED, timeout=1000)
            assert done, "somebody waits for ever"
            waiting -= done
        assert in_flight == 0 or not stopped.is_set()
        for task in (*tasks, stop):
            task.cancel()
        await asyncio.gather(*tasks, stop, return_exceptions=True)
        assert budget.spent.cost_usd <= budget.limit_usd

    run_virtual(main())
