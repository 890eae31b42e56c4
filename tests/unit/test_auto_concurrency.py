"""``--concurrency auto`` against services in model time: it finds what pays, and asks for little more."""

import asyncio
import math
from statistics import mean

import pytest

from batchchat.auto_concurrency import ConcurrencyControl
from batchchat.auto_concurrency.metered_source import MeteredSource
from batchchat.pool import WorkerPool
from batchchat.slots import Slots
from tests.service_model import Fixed, Ran, Service, best_fixed, run

SEEDS = (1, 2)
CHANGES = Service.steps((60, 8), (120, 32), (180, 4), (240, 8))
# What a client could do at most with these changes, in answers: it would have to know each before it comes.
MOST_WITH_CHANGES = int(60 * (8 + 32 + 4 + 8) / 0.6 * 0.9)


def ran(service: Service, prompts: int, seed: int) -> Ran:
    return run(ConcurrencyControl(), service, prompts, seed, most_s=3600)


def shares_of_best(service: Service, prompts: int, capacity: int) -> tuple[list[float], list[Ran]]:
    """How fast each run was, 1 for as fast as the best fixed number; seeds differ in every latency."""
    numbers = (capacity, capacity * 3 // 2, 3 * capacity)
    best = best_fixed(service, prompts, 0, numbers)
    runs = [ran(service, prompts, seed) for seed in SEEDS]
    return [best / each.seconds for each in runs], runs


@pytest.mark.parametrize("capacity", [4, 8, 32])
@pytest.mark.parametrize("kind", ["refuse", "queue", "share", "set"])
def test_unknown_capacity_is_used(kind, capacity: int) -> None:
    """At least nine tenths of the best fixed number, fewer than two refusals in a hundred."""
    shares, runs = shares_of_best(Service(kind, lambda _: capacity), 150 * capacity, capacity)
    assert mean(shares) >= 0.9
    assert min(shares) >= 0.85
    assert max(each.refused_share for each in runs) < 0.02


@pytest.mark.parametrize("kind", ["refuse", "queue", "share", "set"])
def test_capacity_that_changes_is_followed(kind) -> None:
    """8, then 32, then 4, then 8 at a time, each for a minute: up and down again."""
    shares, runs = shares_of_best(Service(kind, CHANGES), MOST_WITH_CHANGES, 8)
    assert mean(shares) >= 0.9
    assert max(each.refused_share for each in runs) < 0.02


def shares_in_time(kind, phase_s: float, sigma: float, seeds: int, loss: float = 0.5) -> tuple[list[float], list[Ran]]:
    """Answers within three phases, of 8, 32 and 4 at a time, 1 for as many as the best fixed number gets.

    Answers take a second in the mean: a phase is as many times the latency as it has seconds.
    """
    capacity = Service.steps((phase_s, 8), (2 * phase_s, 32), (3 * phase_s, 4))
    service = Service(kind, capacity, median_s=math.exp(-sigma * sigma / 2), sigma=sigma, loss=loss)

    def within(control) -> list[Ran]:
        return [run(control(), service, 10**9, seed, most_s=3 * phase_s) for seed in range(1, seeds + 1)]

    best = max(mean(each.answered for each in within(lambda n=n: Fixed(n))) for n in (8, 16, 24, 32, 48, 64))
    runs = within(ConcurrencyControl)
    return [each.answered / best for each in runs], runs


@pytest.mark.parametrize("sigma", [0.0, 0.6])
@pytest.mark.parametrize("phase_s", [50, 100])
@pytest.mark.parametrize("kind", ["queue", "share", "set"])
def test_slower_above_a_capacity_that_changes_soon(kind, phase_s: int, sigma: float) -> None:
    """Answers all alike or of very different lengths, however the service slows down: nine tenths of the best."""
    shares, _ = shares_in_time(kind, phase_s, sigma, 4 if sigma else 1)
    assert mean(shares) >= 0.9
    assert min(shares) >= 0.8


@pytest.mark.parametrize("kind", ["queue", "share", "set"])
def test_slower_above_a_capacity_that_changes_at_once(kind) -> None:
    """A phase of twenty answers each after the other leaves a few turns to find out."""
    shares, _ = shares_in_time(kind, 20, 0.6, 6)
    assert mean(shares) >= 0.75


@pytest.mark.parametrize("sigma", [0.0, 0.6])
def test_refusals_of_a_whole_turn_at_once_are_one_congestion(sigma: float) -> None:
    """Where all answers end together, so do those that are refused: the next turn is as small as what was taken."""
    shares, runs = shares_in_time("refuse", 100, sigma, 3 if sigma else 1)
    assert mean(shares) >= 0.85
    assert max(each.refused_share for each in runs) < 0.025


def of_what_capacity_allows(
    phase_s: float, answer_s: float, sigma: float, seeds: int, pause_s=None, control=None, first_seed=1
):
    """Answers to the three phases of ``shares_in_time``, 1 for a service that is never idle, and refused shares."""
    capacity = Service.steps((phase_s, 8), (2 * phase_s, 32), (3 * phase_s, 4))
    median_s = answer_s * math.exp(-sigma * sigma / 2)
    service = Service("refuse", capacity, median_s=median_s, sigma=sigma, retry_after_s=pause_s)
    control = control or ConcurrencyControl
    runs = [run(control(), service, 10**9, seed, most_s=3 * phase_s) for seed in range(first_seed, first_seed + seeds)]
    shares = [each.answered / (44 * phase_s / answer_s) for each in runs]
    return mean(shares), mean(each.refused_share for each in runs)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("phase_s", [10, 20])
def test_refused_above_a_capacity_that_changes_soon(phase_s: int, sigma: float) -> None:
    """Phases of fifty and a hundred answers: nine tenths of all that the service could do, and few are refused."""
    share, refused = of_what_capacity_allows(phase_s, 0.2, sigma, 6 if sigma else 1)
    assert share >= 0.9
    assert refused < (0.015 if sigma else 0.025)  # all alike: a whole turn comes to the service that takes four


def test_refused_with_a_pause_above_a_capacity_that_changes_soon() -> None:
    """Each refusal costs a second of the whole run, also of a fixed number, the best of which keeps 32."""
    phases = (6, 8, 10, 11, 13, 15, 18, 20, 22, 25)
    got = [of_what_capacity_allows(phase_s, 0.2, 0.3, 2, 1.0) for phase_s in phases]
    best = [of_what_capacity_allows(phase_s, 0.2, 0.3, 1, 1.0, lambda: Fixed(32))[0] for phase_s in phases]
    shares = [share / fixed for (share, _), fixed in zip(got, best, strict=True)]
    assert mean(shares) >= 0.92
    assert min(shares) >= 0.65  # how the phases fall between two tries matters where there are few
    assert mean(refused for _, refused in got) < 0.01


@pytest.mark.parametrize("before", [24, 32, 64])
def test_capacity_that_fell_is_not_met_by_all_at_once_after_a_pause(before: int) -> None:
    """Nothing is left on the wire then: what goes out first finds out, and few are refused."""
    service = Service("refuse", Service.steps((40, before), (80, 4)), median_s=0.2, sigma=0.5, retry_after_s=1.0)
    for seed in SEEDS:
        until, after = (run(ConcurrencyControl(), service, 10**9, seed, most_s=most_s) for most_s in (40, 46))
        assert after.refused - until.refused <= before // 4 + 4
        assert 2 <= after.limits[-1][1] <= 5


def test_rise_of_a_service_that_refuses_is_not_lost_to_a_few_slow_answers() -> None:
    """Refusals tell what it can do; eight answers that happen to be long must not end the growth."""
    got = [of_what_capacity_allows(4, 0.2, 0.6, 1, first_seed=seed)[0] for seed in range(2, 8)]
    assert min(got) >= 0.6


@pytest.mark.parametrize("capacity", [1, 4, 16])
@pytest.mark.parametrize("before", [24, 32, 64])
def test_capacity_that_fell_is_found_by_halves(before: int, capacity: int) -> None:
    """Not by one a refusal: the requests that show it are few, however deep it fell."""
    service = Service("refuse", Service.steps((40, before), (80, capacity)), median_s=0.2, sigma=0.5)
    for seed in SEEDS:
        until, after = (run(ConcurrencyControl(), service, 10**9, seed, most_s=most_s) for most_s in (40, 43))
        assert after.refused - until.refused <= 16
        assert max(1, capacity // 2) <= after.limits[-1][1] <= capacity + 1


def test_refused_requests_are_not_counted_among_those_that_were_taken() -> None:
    """Eight at once to a service that takes three: each of the five others came as the fourth."""
    control = ConcurrencyControl(8)
    control.limit = 8
    flight = [control.begin(0.0) for _ in range(8)]
    for sent in flight[3:]:
        control.refused(sent, 0.1)
    assert control.ceiling.at == 4
    assert control.limit == 3


@pytest.mark.parametrize(("capacity", "least"), [(8, 0.72), (32, 0.75)])
def test_service_that_breaks_down_under_load_is_spared(capacity: int, least: float) -> None:
    """Where each request more costs power, hundreds at a time would bring a fifth; the worst start is left behind."""
    shares, _ = shares_of_best(Service("thrash", lambda _: capacity), 100 * capacity, capacity)
    assert mean(shares) >= least


def test_service_that_breaks_down_under_load_is_followed() -> None:
    """And its capacity changes."""
    shares, _ = shares_in_time("thrash", 100, 0.6, 3)
    assert mean(shares) >= 0.75


@pytest.mark.parametrize("capacity", [1, 2])
@pytest.mark.parametrize("kind", ["refuse", "queue", "share", "set"])
def test_one_or_two_at_a_time(kind, capacity: int) -> None:
    """The start is above what the service takes, which costs little."""
    shares, runs = shares_of_best(Service(kind, lambda _: capacity), 400, capacity)
    assert mean(shares) >= 0.85
    assert max(each.refused_share for each in runs) < 0.025


@pytest.mark.parametrize("sigma", [0.0, 1.2])
@pytest.mark.parametrize("kind", ["refuse", "queue"])
def test_length_of_answers_matters_little(kind, sigma: float) -> None:
    """All alike, or one in twenty seven times as long as the middle one: no long answer makes it cut."""
    shares, _ = shares_of_best(Service(kind, lambda _: 16, sigma=sigma), 2000, 16)
    assert mean(shares) >= 0.8


def test_nothing_in_the_way_is_found_soon() -> None:
    """A service that takes anything: the most that is tried at all is reached, and no congestion is seen."""
    for seed in SEEDS:
        control = ConcurrencyControl(64)
        run(control, Service("queue", lambda _: 10**9), 2500, seed)
        assert control.limit >= 48


def test_service_that_becomes_slower_by_itself_is_no_congestion() -> None:
    """Answers take twice as long after a minute whatever is in flight; fewer would only be slower still."""
    service = Service("queue", lambda _: 10**9, slower=lambda now: 1 + now / 60)
    shares = [
        run(_Most(64), service, 5000, seed).seconds / run(ConcurrencyControl(64), service, 5000, seed).seconds
        for seed in SEEDS
    ]
    assert mean(shares) >= 0.75


class _Most(ConcurrencyControl):
    """Never anything but the most."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.limit = most

    def answered(self, sent, now: float) -> None:
        self.forget(sent)


def test_one_congestion_is_one_cut() -> None:
    """Refusals of requests that were out before the cut only tell how far to go."""
    cuts: list[str] = []
    control = ConcurrencyControl(cut=cuts.append)
    flight = [control.begin(0.0) for _ in range(4)]
    while control.limit < 8:  # each answer makes room for one more
        control.answered(flight.pop(0), 1.0)
        flight += [control.begin(1.0) for _ in range(control.limit - len(flight))]
    for sent in flight[:2:-1]:  # all but three of those that are out, the last one first
        control.refused(sent, 1.1)
    assert control.limit == flight[3].beside - 1
    assert control.ceiling.cuts == 1
    assert cuts == ["the service refuses requests; 7 in flight, not 8"]


def test_refusals_that_go_on_cut_deeper_down_to_one() -> None:
    """A service whose capacity fell from many to none is asked less and less, and once at a time in the end."""
    control = ConcurrencyControl()
    limits = []
    for now in range(40):
        for sent in [control.begin(float(now)) for _ in range(control.limit)]:
            control.refused(sent, now + 0.01)
        limits.append(control.limit)
    assert limits[-1] == 1
    assert limits == sorted(limits, reverse=True)


@pytest.mark.parametrize("pause_s", [None, 1.0])
def test_rate_limit_does_not_bring_it_down_for_good(pause_s: float | None) -> None:
    """Refusals for a rate, whatever is in flight: half of the rate is used, and the limit stays above one."""
    service = Service("queue", lambda _: 10**9, per_s=40, retry_after_s=pause_s)
    for seed in SEEDS:
        control = ConcurrencyControl()
        model = run(control, service, 2000, seed, most_s=600)
        assert model.seconds <= 3 * 2000 / 40
        assert control.limit > 1


def test_refusals_for_no_number_leave_some_room() -> None:
    """One request in ten is refused whatever is in flight: once that is known, the limit is not brought down by it."""
    service = Service("queue", lambda _: 64, refused_share=0.1)
    for seed in SEEDS:
        control = ConcurrencyControl()
        limits = run(control, service, 6000, seed, most_s=400).limits
        assert max(limit for when, limit in limits if when > 60) >= 32


@pytest.mark.parametrize("capacity", [8, 32])
def test_service_that_counts_late_refuses_few(capacity: int) -> None:
    """What was just answered counts as one at work for a tenth of its time: the number that it takes is no fixed one."""
    service = Service("refuse", lambda _: capacity, median_s=0.1, lag_s=0.01)
    shares, runs = shares_of_best(service, 200 * capacity, capacity)
    assert mean(shares) >= 0.85
    assert max(each.refused_share for each in runs) < 0.02


def test_service_that_was_away_is_used_again_soon() -> None:
    """Refusing everything for a minute tells nothing of a capacity; prompts wait for their next attempt for a while."""
    service = Service("refuse", Service.steps((30, 16), (90, 0), (600, 16)))
    for seed in SEEDS:
        limits = run(ConcurrencyControl(), service, 2000, seed).limits
        back = next(when for when, limit in limits if when > 90 and limit >= 12)
        assert back < 120


def test_pause_of_the_whole_run_is_dear() -> None:
    """A service that asks everyone to wait a second at each refusal is tried no more often than pays."""
    shares, runs = shares_of_best(Service("refuse", lambda _: 16, retry_after_s=1.0), 2000, 16)
    assert mean(shares) >= 0.9
    assert max(each.refused_share for each in runs) < 0.02


def test_idle_client_learns_nothing() -> None:
    """With one request at a time, as under a rate, the limit does not grow."""
    control = ConcurrencyControl()
    for now in range(200):
        control.answered(control.begin(float(now)), now + 0.5)
    assert control.limit == 4


def test_limit_stays_within_what_is_allowed() -> None:
    """Not above the most, not below one."""
    for service in (Service("queue", lambda _: 10**9), Service("refuse", lambda _: 1)):
        control = ConcurrencyControl(6)
        limits = [limit for _, limit in run(control, service, 600).limits]
        assert min(limits) >= 1
        assert max(limits) <= 6


async def test_slots_grow_and_shrink() -> None:
    """More slots go to who waits; with fewer, none is given on until so many are free."""
    slots = Slots(2)
    held = [asyncio.create_task(slots.acquire()) for _ in range(5)]
    await asyncio.sleep(0)
    assert [task.done() for task in held] == [True, True, False, False, False]
    slots.resize(4)
    await asyncio.sleep(0)
    assert [task.done() for task in held] == [True] * 4 + [False]
    slots.resize(1)
    for _ in range(3):
        slots.release()
    await asyncio.sleep(0)
    assert not held[4].done()
    slots.release()
    await held[4]


class _Numbers:
    def __init__(self, count: int) -> None:
        self.left = list(range(count))
        self.failed = None
        self.closed = False

    async def next(self) -> int | None:
        await asyncio.sleep(0)
        return self.left.pop(0) if self.left else None

    def close(self) -> None:
        self.closed = True


async def test_prompts_are_taken_as_there_are_slots() -> None:
    """Of a hundred tasks, no more have a prompt than fit; each that is done, and more slots, let others in."""
    limit = 4
    inner = _Numbers(200)
    source: MeteredSource[int] = MeteredSource(inner, lambda: limit)
    got: list[int] = []
    done = asyncio.Event()

    async def work() -> None:
        while (item := await source.next()) is not None:
            got.append(item)
            await done.wait()
            source.done()

    tasks = [asyncio.create_task(work()) for _ in range(100)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert got == list(range(12))
    limit = 10
    source.changed()
    for _ in range(200):
        await asyncio.sleep(0)
    assert got == list(range(20))
    done.set()
    await asyncio.gather(*tasks)
    assert got == list(range(200))


async def test_slots_that_become_fewer_strand_nobody() -> None:
    """A pool whose slots go from many to few and back in mid-run handles every item."""
    slots, limit = Slots(30), 30
    inner = _Numbers(500)
    source: MeteredSource[int] = MeteredSource(inner, lambda: limit)
    handled: list[int] = []

    async def handle(item: int) -> None:
        nonlocal limit
        await slots.acquire()
        for _ in range(item % 7):
            await asyncio.sleep(0)
        handled.append(item)
        if item % 60 == 50:
            limit = 2 if item % 120 == 50 else 25
            slots.resize(limit)
            source.changed()
        slots.leave()
        source.done()

    pool = WorkerPool(source, handle, tasks=60, keep=set(), slots=slots)
    await asyncio.wait_for(pool.run(), 20)
    assert sorted(handled) == list(range(500))


async def test_waiting_task_that_is_ended_keeps_nobody_waiting() -> None:
    """A task cancelled right when its turn came passes it on."""
    source: MeteredSource[int] = MeteredSource(_Numbers(100), lambda: 1)
    holders = [asyncio.create_task(source.next()) for _ in range(9)]
    await asyncio.gather(*holders)
    waiting = [asyncio.create_task(source.next()) for _ in range(3)]
    await asyncio.sleep(0)
    source._limit = lambda: 2  # room for one more
    source.changed()
    waiting[0].cancel()
    await asyncio.wait_for(waiting[1], 5)
    assert not waiting[2].done()
    waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
