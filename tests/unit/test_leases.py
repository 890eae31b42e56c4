"""One limit over many workers: no window at the service holds one too many, and at least 95 % of it is used."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchchat.durations import Rate
from batchchat.leases import Ask, Desk, DeskFile, DeskService, LeasedLimiter, Schedule, SteeringLimiter
from batchchat.leases.clock_map import ClockMap
from batchchat.leases.messages import Told
from batchchat.limits import Send
from batchchat.rate_headers import Quota, RateHeaders
from tests.leased import Cluster, die
from tests.virtual_time import run_virtual

SECOND, MINUTE = Rate(1, 1.0), Rate(60, 60.0)
few = settings(max_examples=16, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def run(main: Coroutine[Any, Any, Any], *, late_s: float | Callable[[], float] = 0.001) -> Any:
    return run_virtual(main, late_s=late_s)


def some(cluster: Cluster, count: int, **options) -> list:
    """Workers whose clocks are anything, and run apart."""
    chance = cluster.chance
    return [
        cluster.worker(offset_s=chance.uniform(-900, 1e5), drift=chance.uniform(-2e-4, 2e-4), **options)
        for _ in range(count)
    ]


async def all_work(cluster: Cluster, count: int, seconds: float, **options) -> list[int]:
    until = asyncio.get_running_loop().time() + seconds
    return await asyncio.gather(*(cluster.work(limit, until, **options) for limit in some(cluster, count)))


@few
@given(
    workers=st.integers(1, 50),
    rates=st.sampled_from(
        [
            [Rate(1, 10.0)],
            [MINUTE],
            [Rate(10, 1.0)],
            [Rate(200, 1.0)],
            [Rate(600, 1.0)],
            [Rate(50, 1.0), Rate(1000, 60.0)],
            [Rate(20, 1.0), Rate(60, 10.0)],
        ]
    ),
    burst=st.sampled_from([1, 1, 7, 1000]),
    way_s=st.sampled_from([0.0002, 0.002, 0.02]),
    seed=st.integers(0, 99),
)
def test_windows_hold_and_the_rate_is_used(workers, rates, burst, way_s, seed) -> None:
    """Whatever the number of workers, their clocks and the ways of messages."""
    slowest_s = max(rate.per_s / rate.count for rate in rates)
    seconds = max(2.1 * max(rate.per_s for rate in rates), min(40.0 * slowest_s, 400.0), 4.0)

    async def main() -> Cluster:
        cluster = Cluster(rates, burst=burst, way_s=way_s, seed=seed)
        tasks = 1 + 1000 // (4 * workers) if rates[0].count == 600 else 8
        await all_work(cluster, workers, seconds, tasks=tasks, answer_s=0.0)
        return cluster

    cluster = run(main())
    cluster.assert_holds()
    assert not cluster.failures
    if burst == 1:
        assert max(cluster.used(rate) * rate.per_s / rate.count / slowest_s for rate in rates) >= 0.95


def busy_machine(seed: int) -> Callable[[], float]:
    """How late a timer fires: mostly a millisecond, some times far too late."""
    chance = random.Random(seed)
    return lambda: chance.uniform(0.02, 0.12) if chance.random() < 0.001 else chance.expovariate(1 / 0.001)


@pytest.mark.parametrize("rate", [Rate(100, 1.0), MINUTE])
@pytest.mark.parametrize("seed", range(2))
def test_requests_that_are_late_break_no_window(rate, seed) -> None:
    """Timers are late, and every eighth request waits for a connection for up to two seconds."""

    async def main() -> Cluster:
        cluster = Cluster([rate], seed=seed)
        limits = some(cluster, 5)
        until = asyncio.get_running_loop().time() + 3 * rate.per_s + 5

        async def late(limit) -> None:
            while asyncio.get_running_loop().time() < until:
                await cluster.send(limit, way_s=cluster.chance.uniform(0, 2.0))

        async def work(limit) -> None:
            slow = asyncio.create_task(late(limit))
            await cluster.work(limit, until, tasks=8)
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)

        await asyncio.gather(*map(work, limits))
        return cluster

    cluster = run(main(), late_s=busy_machine(seed))
    cluster.assert_holds()
    assert cluster.used(rate) >= 0.95


@pytest.mark.parametrize(("rate", "late_s", "used"), [(Rate(50, 1.0), 0.05, 0.85), (MINUTE, 0.5, 0.95)])
def test_workers_whose_loops_are_always_late_send_all_the_same(rate, late_s, used) -> None:
    """As on a machine with too much to do: every timer is late, by more than a lease is long as a rule."""
    chance = random.Random(1)

    async def main() -> Cluster:
        cluster = Cluster([rate])
        await all_work(cluster, 4, 3 * rate.per_s + 12, way_s=0.01)
        return cluster

    cluster = run(main(), late_s=lambda: chance.uniform(0.0, late_s))
    cluster.assert_holds()
    assert cluster.used(rate) >= used


@pytest.mark.parametrize("rate", [Rate(1, 10.0), MINUTE, Rate(50, 1.0)])
def test_nobody_starves(rate) -> None:
    """Twenty that want as much as they can get send equally much, give or take one."""

    async def main() -> list[int]:
        cluster = Cluster([rate])
        return await all_work(cluster, 20, 200 * rate.per_s / rate.count, tasks=3)

    sent = run(main())
    assert max(sent) - min(sent) <= 3
    assert sum(sent) >= 188


def test_worker_that_wants_little_leaves_the_rest_to_others() -> None:
    async def main() -> tuple[Cluster, int, int]:
        cluster = Cluster([Rate(100, 1.0)])
        until = asyncio.get_running_loop().time() + 10
        one, other, idle = some(cluster, 3)
        async with idle:
            much, little = await asyncio.gather(
                cluster.work(one, until), cluster.work(other, until, tasks=1, answer_s=1.0)
            )
        return cluster, much, little

    _, much, little = run(main())
    assert 5 <= little <= 20
    assert much + little >= 950


def test_worker_that_dies_costs_what_was_leased_to_it_and_no_more() -> None:
    async def main() -> Cluster:
        cluster = Cluster([Rate(100, 1.0)])
        loop = asyncio.get_running_loop()
        until = loop.time() + 8
        dying = some(cluster, 3)
        tasks = [asyncio.create_task(cluster.work(limit, until)) for limit in dying]
        living = [asyncio.create_task(cluster.work(limit, until)) for limit in some(cluster, 3)]
        await asyncio.sleep(3)
        for limit, task in zip(dying, tasks, strict=True):
            die(limit)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*living)
        return cluster

    cluster = run(main())
    cluster.assert_holds()
    assert cluster.used(Rate(100, 1.0)) >= 0.95


@pytest.mark.parametrize("rates", [[], [Rate(50, 1.0)]])
def test_pause_of_one_holds_all(rates) -> None:
    async def main() -> tuple[Cluster, float]:
        cluster = Cluster(rates)
        loop = asyncio.get_running_loop()
        start = loop.time()
        limits = some(cluster, 5)
        loop.call_later(2.0, lambda: limits[0].pause(30.0))
        await asyncio.gather(*(cluster.work(limit, start + 40, tasks=2, answer_s=0.1) for limit in limits))
        return cluster, start

    cluster, start = run(main())
    since = [at - start for at in cluster.times]
    assert any(at < 2.0 for at in since)
    assert not any(2.05 < at < 32.0 for at in since)
    assert 32.0 <= min(at for at in since if at > 3.0) < 33.0


def test_many_that_are_told_to_wait_change_the_pause_once() -> None:
    """Else each of a thousand workers would have a thousand messages to read."""

    async def main() -> int:
        cluster = Cluster([], way_s=0.01)
        limits = some(cluster, 30)
        loop = asyncio.get_running_loop()
        for limit in limits:
            loop.call_later(cluster.chance.uniform(1.0, 1.3), limit.pause, 5.0)
        await asyncio.gather(*(cluster.work(limit, loop.time() + 10, tasks=1, answer_s=0.5) for limit in limits))
        return cluster.service.desk._revision

    assert run(main()) <= 4


def test_hold_of_all_is_seen_by_each_and_ends() -> None:
    async def main() -> tuple[Cluster, float, list]:
        cluster = Cluster([Rate(50, 1.0)])
        loop = asyncio.get_running_loop()
        start = loop.time()
        limits = some(cluster, 4)
        seen = []
        loop.call_later(2.0, lambda: cluster.service.hold("paused"))
        loop.call_later(5.0, lambda: seen.extend(limit.holds for limit in limits))
        loop.call_later(9.0, lambda: cluster.service.release("paused"))
        await asyncio.gather(*(cluster.work(limit, start + 12) for limit in limits))
        seen.extend(limit.holds for limit in limits)
        return cluster, start, seen

    cluster, start, seen = run(main())
    assert seen == [frozenset(("paused",))] * 4 + [frozenset()] * 4
    since = [at - start for at in cluster.times]
    assert not any(2.05 < at < 9.0 for at in since)
    assert sum(at >= 9.0 for at in since) >= 0.95 * 50 * 3 - 5
    cluster.assert_holds()


@pytest.mark.parametrize("way_s", [0.0, 1.0])
def test_request_with_a_pass_goes_out_while_the_breaker_holds(way_s) -> None:
    """As many as were let through, and no more; also where the lease is over before the connection is made."""

    async def main() -> tuple[int, int, int]:
        cluster = Cluster([Rate(50, 1.0)])
        (limit,) = some(cluster, 1)
        async with limit:
            limit.hold("breaker")
            limit.let_through(2)
            sending = [asyncio.create_task(cluster.send(limit, way_s=way_s)) for _ in range(5)]
            await asyncio.sleep(5.0)
            sent = sum(each.done() for each in sending)
            limit.release("breaker")
            await asyncio.gather(*sending)
            return sent, limit.through, len(cluster.times)

    assert run(main()) == (2, 0, 5)


def test_pass_helps_through_the_hold_of_the_breaker_alone() -> None:
    async def main() -> tuple[bool, float]:
        cluster = Cluster([Rate(50, 1.0)])
        loop = asyncio.get_running_loop()
        (limit,) = some(cluster, 1)
        async with limit:
            limit.hold("breaker")
            limit.let_through(1)
            probe = asyncio.create_task(cluster.send(limit, way_s=1.0))
            await asyncio.sleep(0.5)
            cluster.service.hold("paused")
            await asyncio.sleep(5.0)
            done, released_at = probe.done(), loop.time()
            cluster.service.release("paused")
            async with asyncio.timeout(100):
                return done, await probe - released_at

    early, after_s = run(main())
    assert not early
    assert after_s < 1.0


def test_request_from_before_a_hold_goes_out_with_a_pass_of_its_own() -> None:
    """It has a connection to wait for while the breaker opens; no other request may go out in addition."""

    async def main() -> tuple[list[bool], int]:
        cluster = Cluster([Rate(50, 1.0)])
        (limit,) = some(cluster, 1)
        async with limit:
            sending = [asyncio.create_task(cluster.send(limit, way_s=1.0))]
            await asyncio.sleep(0.5)
            limit.hold("breaker")
            sending.append(asyncio.create_task(cluster.send(limit)))
            await asyncio.sleep(2.0)
            done = [each.done() for each in sending]
            limit.let_through(1)
            await asyncio.sleep(2.0)
            sent = sum(each.done() for each in sending)
            limit.release("breaker")
            await asyncio.gather(*sending)
            return done, sent

    assert run(main()) == ([False, False], 1)


def test_driver_steers_all_workers_and_sees_what_they_do() -> None:
    async def main() -> tuple[Cluster, float, SteeringLimiter, list[str]]:
        cluster = Cluster([Rate(50, 1.0)])
        loop = asyncio.get_running_loop()
        start, told, seen = loop.time(), [], []
        driver = cluster.worker(made=SteeringLimiter, notice=told.append)
        limits = some(cluster, 3)
        tells = RateHeaders(requests=Quota(remaining=3, limit=1000, reset_s=5.0))
        async with driver:
            loop.call_at(start + 3, driver.hold, "window")
            loop.call_at(start + 5, driver.release, "window")
            loop.call_at(start + 9, lambda: seen.extend((driver.admitted, driver.waiting, driver.sent_per_s(3))))
            loop.call_at(start + 9, driver.set_rates, [Rate(10, 1.0)])
            loop.call_at(start + 18, limits[0].observed, Send(0.0, 0), tells)
            await asyncio.gather(*(cluster.work(limit, start + 20, tasks=4) for limit in limits))
        return cluster, start, driver, [*seen, *told]

    cluster, start, driver, (admitted, waiting, per_s, sentence) = run(main())
    since = [at - start for at in cluster.times]
    assert not any(3.06 < at < 5.0 for at in since)
    assert sum(10 < at < 17 for at in since) == pytest.approx(70, abs=3)
    assert driver.rates == (Rate(10, 1.0),)
    assert admitted == pytest.approx(sum(at < 9 for at in since), abs=60)
    assert waiting == 12
    assert per_s == pytest.approx(50, abs=5)
    assert sentence.startswith("the service says that 3 of 1000 requests are left")


@pytest.mark.parametrize(("before", "after"), [(Rate(100, 1.0), Rate(5, 1.0)), (Rate(1, 3600.0), Rate(50, 1.0))])
def test_rates_that_are_set_hold_at_once_for_all(before, after) -> None:
    async def main() -> tuple[Cluster, float]:
        cluster = Cluster([before])
        loop = asyncio.get_running_loop()
        start = loop.time()
        limits = some(cluster, 4)
        loop.call_later(3.0, lambda: limits[0].set_rates([after]))
        await asyncio.gather(*(cluster.work(limit, start + 13) for limit in limits))
        assert {limit.rates for limit in limits} == {(after,)}
        return cluster, start

    cluster, start = run(main())
    cluster.times = [at for at in cluster.times if at > start + 3.05]
    cluster.assert_holds(after)
    assert cluster.used(after) >= 0.95


def test_limits_that_are_taken_away_or_come_hold_at_once() -> None:
    async def main() -> tuple[int, int, int]:
        cluster = Cluster([Rate(1, 10.0)])
        loop = asyncio.get_running_loop()
        start = loop.time()
        limits = some(cluster, 3)
        loop.call_at(start + 3, limits[0].set_rates, [])
        loop.call_at(start + 6, limits[1].set_rates, [Rate(20, 1.0)])
        await asyncio.gather(*(cluster.work(limit, start + 10, tasks=5, answer_s=0.1) for limit in limits))
        since = [at - start for at in cluster.times]
        return tuple(sum(a < at < b for at in since) for a, b in ((0, 3), (3.1, 6), (7.1, 9.1)))

    few, free, paced = run(main())
    assert few == 1
    assert free > 300
    assert 38 <= paced <= 40


@pytest.mark.parametrize("rates", [[], [Rate(10, 1.0)]])
def test_tokens_of_all_fit_the_minute_and_corrections_count(rates) -> None:
    """Half of them cost twice what was estimated, others half: the windows are judged by estimates or by costs."""

    async def main() -> list[tuple[float, int]]:
        cluster = Cluster(rates, tokens_per_minute=6000)
        loop = asyncio.get_running_loop()
        until = loop.time() + 200
        spent: list[tuple[float, int]] = []

        async def task(limit, cost: int) -> None:
            while loop.time() < until:
                send = await limit.acquire(100, lambda: loop.time() < until)
                if send is None:
                    return
                if (waiting := limit.sent(send)) is not None:
                    await waiting
                spent.append((loop.time(), cost))
                await asyncio.sleep(0.01)
                limit.correct(send, cost)
                limit.left(send)

        async with asyncio.timeout(2000):
            limits = some(cluster, 4)
            for limit in limits:
                await limit.__aenter__()
            tasks = [asyncio.create_task(task(limit, cost)) for limit in limits for cost in (100, 50)]
            await asyncio.wait(tasks, timeout=200)
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for limit in limits:
                await limit.__aexit__(None, None, None)
        return spent

    spent = sorted(run(main()))
    for index, (first, _) in enumerate(spent):
        assert sum(cost for at, cost in spent[index : index + 200] if at < first + 60.0) <= 6000
    assert sum(cost for _, cost in spent) >= 0.95 * 6000 * 3


@few
@given(
    rate=st.sampled_from([Rate(1, 10.0), MINUTE, Rate(20, 1.0), Rate(200, 1.0), Rate(100, 3600.0)]),
    offset_s=st.sampled_from([0.0, -990.0, 5000.0]),
    wall_off_s=st.floats(-1.9, 1.9),
    away_s=st.floats(0.01, 3.0),
    seed=st.integers(0, 99),
)
def test_desk_that_begins_again_forgets_nothing(rate, offset_s, wall_off_s, away_s, seed) -> None:
    """Killed in the middle, twice, it begins again on its machine or on another one."""

    async def main() -> Cluster:
        cluster = Cluster([rate], burst=5, seed=seed)
        loop = asyncio.get_running_loop()
        seconds = min(3.0 * rate.per_s + 9.0, 4000.0)
        for moment in (0.3, 0.6):
            at = loop.time() + moment * seconds
            loop.call_at(at, cluster.kill)
            loop.call_at(at + away_s, lambda: cluster.start(offset_s=offset_s, wall_off_s=wall_off_s))
        await all_work(cluster, 3, seconds)
        return cluster

    cluster = run(main())
    cluster.assert_holds()
    assert cluster.used(rate) >= 0.3
    assert not cluster.failures


def test_desk_that_is_away_for_a_while_is_waited_for() -> None:
    async def main() -> Cluster:
        cluster = Cluster([Rate(50, 1.0)])
        loop = asyncio.get_running_loop()
        start = loop.time()
        loop.call_later(3.0, cluster.kill)
        loop.call_later(8.0, cluster.start)
        await asyncio.gather(*(cluster.work(limit, start + 14) for limit in some(cluster, 3)))
        cluster.times = [at - start for at in cluster.times]
        return cluster

    cluster = run(main())
    assert not cluster.failures
    assert not any(3.2 < at < 8.0 for at in cluster.times)
    assert sum(at > 8.0 for at in cluster.times) > 0.85 * 50 * 6
    cluster.assert_holds()


def test_desk_that_stays_away_ends_the_run_with_a_sentence() -> None:
    async def main() -> tuple[list[str], object]:
        cluster = Cluster([Rate(50, 1.0)])
        limit = cluster.worker(patience_s=20.0)
        async with limit:
            await cluster.send(limit)
            cluster.kill()
            waiting = [asyncio.create_task(limit.acquire()) for _ in range(50)]
            done = await asyncio.gather(*waiting)
            return cluster.failures, done[-1]

    failures, send = run(main())
    assert send is None
    assert failures == [
        "what leases the limit to all workers did not answer for 20 s; "
        "run the same command again once the cluster is well"
    ]


@pytest.mark.parametrize("moment", ["in line", "leased", "let out"])
def test_request_that_is_given_up_leaves_its_time_to_others(moment) -> None:
    async def main() -> float:
        cluster = Cluster([Rate(1, 60.0)])
        loop = asyncio.get_running_loop()
        one, other = some(cluster, 2)
        async with one, other:
            start = loop.time()
            if moment == "let out":
                one.left(await one.acquire())
            else:
                waiting = asyncio.create_task(one.acquire())
                await asyncio.sleep(0.0001 if moment == "in line" else 0.004)
                waiting.cancel()
            return await cluster.send(other) - start

    assert run(main()) < 1.0


def test_end_of_a_run_waits_for_nothing() -> None:
    async def main() -> float:
        cluster = Cluster([Rate(1, 3600.0)])
        loop = asyncio.get_running_loop()
        (limit,) = some(cluster, 1)
        async with limit:
            await cluster.send(limit)
            waiting = [asyncio.create_task(limit.acquire()) for _ in range(5)]
            await asyncio.sleep(1)
            start = loop.time()
        assert await asyncio.gather(*waiting) == [None] * 5
        return loop.time() - start

    assert run(main()) < 1.0


def test_what_a_service_tells_of_its_limits_holds_for_all() -> None:
    """Ten requests are left for 20 s; six workers send no more than these."""

    async def main() -> tuple[int, list[str]]:
        cluster = Cluster([])
        loop = asyncio.get_running_loop()
        start = loop.time()
        limits = some(cluster, 6)
        tells = RateHeaders(requests=Quota(remaining=10, limit=100, reset_s=20.0))

        async def tell() -> None:
            await asyncio.sleep(1.0)
            send = await limits[0].acquire()
            limits[0].sent(send)
            limits[0].observed(send, tells)
            limits[0].left(send)

        told = asyncio.create_task(tell())
        await asyncio.gather(*(cluster.work(limit, start + 15, tasks=2, answer_s=0.2) for limit in limits))
        await told
        notices = cluster.service.desk._watchers.notices
        return sum(at > start + 1.1 for at in cluster.times), notices

    sent, notices = run(main())
    assert 5 <= sent <= 11
    assert notices == ["the service says that 10 of 100 requests are left for 20 s; sending no faster than that"]


@pytest.mark.parametrize("left", [0, 10])
def test_desk_that_begins_again_knows_what_the_service_told(left) -> None:
    """So many requests were left for 30 s, some of which were leased since; the others go out, and no more."""

    async def main() -> tuple[int, int]:
        cluster = Cluster([Rate(100, 1.0)])
        loop = asyncio.get_running_loop()
        start = loop.time()
        limits = some(cluster, 2)
        tells = RateHeaders(requests=Quota(remaining=left, limit=1000, reset_s=30.0))
        loop.call_at(start + 2.0, limits[0].observed, Send(0.0, 0), tells)
        loop.call_at(start + 2.05, cluster.kill)
        loop.call_at(start + 4.0, cluster.start)
        await asyncio.gather(*(cluster.work(limit, start + 40, tasks=4) for limit in limits))
        since = [at - start for at in cluster.times]
        return sum(2.2 < at < 31.9 for at in since), sum(at > 34 for at in since)

    few, again = run(main())
    assert few <= left
    assert again > 100


def test_calls_of_many_workers_stay_few() -> None:
    async def main() -> float:
        cluster = Cluster([Rate(1000, 1.0)])
        await all_work(cluster, 100, 4.0, tasks=16, answer_s=0.5)
        cluster.assert_holds()
        return cluster.calls / 4.0

    assert run(main()) < 500


@pytest.mark.parametrize("after_s", [-0.2, 0.0, 3.0])
def test_what_counts_is_when_a_request_was_sent(after_s) -> None:
    """Early within its lease, or long after it because the process was stopped at the last moment."""
    desk = Desk(Schedule([Rate(1, 10.0)]))
    desk.take(Ask(worker="w", wants=(0,)), 0.0)
    ((_, answer),) = desk.due(0.0)
    (lease,) = answer.leases
    desk.take(Ask(worker="w", sent=((lease.number, after_s),)), lease.until + 3.5)
    opens_at, _ = desk.schedule.open_at(0, 4.0)
    assert lease.until + after_s + 10.0 <= opens_at <= lease.until + after_s + 10.5


def test_message_that_comes_twice_changes_nothing_more() -> None:
    desk = Desk(Schedule([Rate(2, 60.0)], burst=2), burst=2)
    ticket = desk.take(Ask(worker="w", wants=(0, 0)), 0.0)
    ((answered, answer),) = desk.due(0.0)
    assert answered == ticket
    assert len(answer.leases) == 2
    again = Ask(worker="w", unused=(answer.leases[0].number,), over=(answer.leases[1].number,), pause_s=5.0)
    states = []
    for _ in range(2):
        desk.take(again, 1.0)
        states.append((len(desk.schedule.sent), desk.paused_until, desk.due(1.0)[0][1]))
    assert states[0] == states[1]
    assert states[0][0] == 1


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 5), st.floats(0, 0.5), st.floats(0, 60)), min_size=1), st.data()
)
@settings(max_examples=60, deadline=None)
def test_bounds_of_the_desks_clock_hold_the_truth(exchanges, data) -> None:
    drift, offset = data.draw(st.floats(-5e-4, 5e-4)), data.draw(st.floats(-1e6, 1e6))

    def desk(own: float) -> float:
        return own * (1 + drift) + offset

    clock, now = ClockMap(), 1000.0
    for there, held, back, idle in exchanges:
        asked, taken, answered = now, now + there, now + there + held
        now = answered + back
        clock.note(asked, desk(taken), desk(answered), now)
        now += idle
        assert desk(clock.surely_from(desk(now) + 1.0)) >= desk(now) + 1.0 - 1e-6
        assert desk(clock.surely_until(desk(now) + 1.0)) <= desk(now) + 1.0 + 1e-6


def test_file_of_a_desk_outlives_it(tmp_path) -> None:
    """Whatever is torn at its end; and it stays small."""
    path, clock = tmp_path / "desk", [0.0]

    def opened(number: int) -> tuple[DeskFile, Desk]:
        file = DeskFile(path, clock="boot", now=lambda: clock[0])
        return file, file.open([Rate(1000, 60.0)], number=number)

    async def lease(file: DeskFile, desk: Desk, count: int) -> None:
        for _ in range(count):
            desk.take(Ask(worker="w", wants=(0,) * 9), clock[0])
            desk.due(clock[0])
            await file.remember()
            clock[0] += 0.5

    file, desk = opened(1)
    asyncio.run(lease(file, desk, 400))
    assert path.stat().st_size < 400_000
    with open(path, "ab") as stream:
        stream.write(b'{"wall":')
    _, again = opened(2)
    assert [slot.at for slot in again.schedule.sent] == [slot.at for slot in desk.schedule.sent]
    assert again.next_lease == desk.next_lease
    assert again.schedule.open_at(0, clock[0])[0] >= desk.schedule.sent[0].at + 60.0


def test_desk_whose_file_cannot_be_written_leases_nothing(tmp_path) -> None:
    async def main() -> tuple[list[str], int]:
        (tmp_path / "folder").mkdir()
        file = DeskFile(tmp_path / "folder" / "desk", clock="")
        desk = file.open([Rate(100, 1.0)], number=1)
        for path in (tmp_path / "folder").iterdir():
            path.unlink()
        (tmp_path / "folder").rmdir()
        (tmp_path / "folder").write_text("a file")
        service, failed = DeskService(desk, file.remember), []
        limit = LeasedLimiter([Rate(100, 1.0)], exchange=service.exchange, failed=failed.append, patience_s=0.3)
        async with limit:
            assert await limit.acquire() is None
        return failed, limit.admitted

    failed, admitted = asyncio.run(main())
    assert len(failed) == 1
    assert admitted == 0


def test_what_nobody_thought_of_ends_the_run_with_a_sentence() -> None:
    """Requests would wait for ever for leases that nobody asks for any more."""

    async def main() -> tuple[object, list[str]]:
        cluster = Cluster([Rate(50, 1.0)])
        (limit,) = some(cluster, 1)

        async def fail(ask: Ask) -> None:
            raise ValueError("no\nsuch thing")

        async with limit, asyncio.timeout(100):
            await cluster.send(limit)
            limit._line._exchange = fail
            return await limit.acquire(), cluster.failures

    send, failures = run(main())
    assert send is None
    assert failures == ["what leases the limit to all workers failed: ValueError: no\\nsuch thing"]


def due(desk: Desk, now: float) -> list:
    return [lease for _, answer in desk.due(now) for lease in answer.leases]


def test_tokens_fit_the_minute_though_one_far_away_leaves_the_line() -> None:
    """Its lease could begin a second from now only, when much would have left the minute: that is no room for others,
    whose leases begin before."""
    desk, start = Desk(Schedule((), tokens_per_minute=1000)), 1000.0
    sent = []
    for at, tokens in ((0.0, 900), (30.0, 100)):
        desk.take(Ask(worker="near", wants=(tokens,), lead_s=0.003), start + at)
        (lease,) = due(desk, start + at)
        desk.take(Ask(worker="near", sent=((lease.number, lease.at - lease.until),)), start + at + 0.05)
        desk.due(start + at + 0.05)
        sent.append((lease.at, tokens))
    desk.take(Ask(worker="far", wants=(950,), lead_s=1.0), start + 59.1)
    assert not due(desk, start + 59.1)
    desk.take(Ask(worker="near", wants=(300,), lead_s=0.003), start + 59.11)
    desk.take(Ask(worker="far", gone=True), start + 59.15)
    (lease,) = due(desk, start + 59.15) or due(desk, start + 60.0)
    sent.append((lease.at, 300))
    assert lease.at == pytest.approx(start + 60.0, abs=0.1)
    for first, _ in sent:
        assert sum(tokens for at, tokens in sent if first <= at < first + 60.0) <= 1000


def test_limit_of_the_service_is_not_taken_for_whole_before_it_is() -> None:
    """By the rate, the next request may go long after that; with another rate it may go before."""
    desk = Desk(Schedule([Rate(1, 60.0)]))
    desk.take(Ask(worker="w", wants=(0,)), 0.0)
    (lease,) = due(desk, 0.0)
    told = RateHeaders(requests=Quota(remaining=0, limit=100, reset_s=30.0))
    desk.take(Ask(worker="w", sent=((lease.number, 0.0),), told=(Told(lease.number, told),)), 1.0)
    desk.take(Ask(worker="w", wants=(0,)), 1.0)
    assert not due(desk, 1.0)
    desk.set_rates([Rate(100, 1.0)], 2.0)
    desk.take(Ask(worker="w", wants=(0,)), 2.0)
    assert not due(desk, 2.0)
    assert not due(desk, 30.5)
    desk.take(Ask(worker="w", wants=(0,)), 31.1)  # it was answered in between, as nothing was to be said for long
    (lease,) = due(desk, 31.1)
    assert lease.at >= 31.0
