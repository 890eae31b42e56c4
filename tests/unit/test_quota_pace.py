"""Pacing by a service's own headers: no request too many, none held up for nothing, whatever kind of limit it is."""

import asyncio
import random
from collections import deque
from collections.abc import Callable

import pytest

from batchchat.durations import Rate
from batchchat.limits import Limiter
from batchchat.rate_headers import Quota, RateHeaders, parse_rate_headers, parse_reset
from tests.virtual_time import run_virtual


class Service:
    """A limit of ``count`` in ``per_s`` that tells truthfully what is left; the kind says how it becomes whole again."""

    def __init__(self, count: int, per_s: float, *, tells_limit: bool = True, unit: str = "requests") -> None:
        self.count, self.per_s, self.tells_limit, self.unit = count, per_s, tells_limit, unit
        self.answered = self.refused = 0

    def take(self, amount: int, now: float) -> RateHeaders:
        """Takes a request in, or refuses it; what is left afterwards."""
        left, _ = self.left(now)
        if amount <= left:
            self.answered += 1
            self.spend(amount, now)
        else:
            self.refused += 1
        left, reset_s = self.left(now)
        quota = Quota(remaining=int(left), limit=self.count if self.tells_limit else None, reset_s=reset_s)
        return RateHeaders(requests=quota) if self.unit == "requests" else RateHeaders(tokens=quota)

    def left(self, now: float) -> tuple[float, float]:
        raise NotImplementedError

    def spend(self, amount: int, now: float) -> None:
        raise NotImplementedError


class FixedWindow(Service):
    began, used = -1e9, 0

    def left(self, now: float) -> tuple[float, float]:
        if now >= self.began + self.per_s:
            self.began, self.used = now, 0
        return self.count - self.used, self.began + self.per_s - now

    def spend(self, amount: int, now: float) -> None:
        self.used += amount


class SlidingWindow(Service):
    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.taken: deque[tuple[float, int]] = deque()

    def left(self, now: float) -> tuple[float, float]:
        while self.taken and self.taken[0][0] <= now - self.per_s:
            self.taken.popleft()
        reset_s = self.taken[-1][0] + self.per_s - now if self.taken else 0.0
        return self.count - sum(amount for _, amount in self.taken), reset_s

    def spend(self, amount: int, now: float) -> None:
        self.taken.append((now, amount))


class Bucket(Service):
    level: float | None = None
    seen = 0.0

    def left(self, now: float) -> tuple[float, float]:
        if self.level is None:
            self.level, self.seen = float(self.count), now
        self.level = min(self.count, self.level + (now - self.seen) * self.count / self.per_s)
        self.seen = now
        return self.level, (self.count - self.level) * self.per_s / self.count

    def spend(self, amount: int, now: float) -> None:
        self.level -= amount


async def send_all(
    limiter: Limiter,
    service: Service,
    prompts: int,
    concurrency: int,
    *,
    reads: bool = True,
    tokens: Callable[[], int] = lambda: 1,
    latency_s: float = 0.3,
) -> float:
    """Sends every prompt until it is answered; the seconds that it took."""
    loop = asyncio.get_running_loop()
    began, queue = loop.time(), deque(tokens() for _ in range(prompts))
    draw = random.Random(1)

    async def work() -> None:
        while queue:
            amount = queue.popleft()
            send = await limiter.acquire(amount)
            await asyncio.sleep(draw.uniform(0.5, 1.5) * 0.01)
            refused = service.refused
            told = service.take(amount, loop.time())
            was_refused = service.refused > refused
            await asyncio.sleep(draw.uniform(0.5, 1.5) * latency_s)
            if reads:
                limiter.observed(send, told)
            limiter.left(send)
            if was_refused:
                queue.appendleft(amount)
                await asyncio.sleep(1)

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return loop.time() - began


KINDS = [FixedWindow, SlidingWindow, Bucket]


@pytest.mark.parametrize("tells_limit", [True, False])
@pytest.mark.parametrize(
    ("count", "per_s", "concurrency"), [(60, 60, 8), (20, 1, 16), (5, 10, 4), (100, 60, 64), (1, 2, 1)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_no_request_is_one_too_many(kind, count: int, per_s: float, concurrency: int, tells_limit: bool) -> None:
    """Without reading the headers there are hundreds; the throughput stays near what the limit allows."""
    prompts = 300

    def run(*, reads: bool) -> tuple[Service, float]:
        service = kind(count, per_s, tells_limit=tells_limit)
        return service, run_virtual(send_all(Limiter(), service, prompts, concurrency, reads=reads))

    service, took_s = run(reads=True)
    assert service.answered == prompts
    assert service.refused <= 3
    blind, _ = run(reads=False)
    assert blind.refused > 10 * service.refused
    assert took_s < (1.6 if tells_limit else 2.6) * prompts / count * per_s + 60


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_paced_too_and_a_request_larger_than_the_limit_runs_alone(kind) -> None:
    draw = random.Random(2)
    service = kind(10_000, 60, unit="tokens")
    service_tokens = [draw.choice([200, 900, 3000]) for _ in range(200)]
    took_s = run_virtual(send_all(Limiter(), service, 200, 8, tokens=iter(service_tokens).__next__))
    assert service.answered == 200
    assert service.refused <= 5
    assert took_s < 3 * sum(service_tokens) / 10_000 * 60

    async def large() -> float:
        limiter, loop = Limiter(), asyncio.get_running_loop()
        first = await limiter.acquire(10)
        limiter.observed(first, RateHeaders(tokens=Quota(remaining=90, limit=100, reset_s=6)))
        began = loop.time()
        for _ in range(3):
            limiter.left(await limiter.acquire(5000))
            await asyncio.sleep(0.1)
        return loop.time() - began

    assert 12 < run_virtual(large()) < 20


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_within_the_limit_are_not_held_up(kind) -> None:
    service = kind(100, 60)
    assert run_virtual(send_all(Limiter(), service, 85, 16)) < 5


def test_more_capacity_is_used_as_soon_as_it_is_told() -> None:
    async def main() -> None:
        limiter, loop = Limiter(), asyncio.get_running_loop()
        first = await limiter.acquire()
        limiter.observed(first, RateHeaders(requests=Quota(remaining=1, limit=5, reset_s=200)))
        await asyncio.sleep(0.01)
        second = await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(1)
        assert not waiting.done()
        began = loop.time()
        limiter.observed(second, RateHeaders(requests=Quota(remaining=500, limit=1000, reset_s=30)))
        await waiting
        assert loop.time() - began < 0.1

    run_virtual(main())


def test_answer_to_an_older_request_changes_nothing() -> None:
    async def main() -> None:
        limiter = Limiter()
        first, second = await limiter.acquire(), await limiter.acquire()
        limiter.observed(second, RateHeaders(requests=Quota(remaining=0, limit=10, reset_s=50)))
        limiter.observed(first, RateHeaders(requests=Quota(remaining=9, limit=10, reset_s=5)))
        began = asyncio.get_running_loop().time()
        await limiter.acquire()
        assert asyncio.get_running_loop().time() - began == pytest.approx(50, abs=0.1)

    run_virtual(main())


def test_silence_after_the_end_of_a_limit_is_no_deadlock() -> None:
    """No answer comes any more: with a size told the limit counts as whole, without it one request goes at a time."""

    async def main(limit: int | None, *, hangs: bool) -> list[float]:
        limiter, loop = Limiter(), asyncio.get_running_loop()
        send = await limiter.acquire()
        began = loop.time()
        limiter.observed(send, RateHeaders(requests=Quota(remaining=0, limit=limit, reset_s=10)))
        times = []
        for _ in range(5):
            send = await limiter.acquire()
            times.append(round(loop.time() - began))
            asyncio.get_running_loop().call_later(300 if hangs else 1, limiter.left, send)
        return times

    assert run_virtual(main(100, hangs=True)) == [10] * 5
    assert run_virtual(main(None, hangs=False)) == [10, 20, 30, 40, 50]
    assert max(run_virtual(main(None, hangs=True))) <= 90


def test_budget_of_a_day_is_left_to_the_service() -> None:
    async def main() -> float:
        limiter, loop = Limiter(), asyncio.get_running_loop()
        send = await limiter.acquire()
        limiter.observed(send, RateHeaders(requests=Quota(remaining=0, limit=200, reset_s=7200)))
        began = loop.time()
        await limiter.acquire()
        return loop.time() - began

    assert run_virtual(main()) < 0.1


def test_with_a_rate_of_the_user_only_the_end_of_a_limit_counts() -> None:
    async def main() -> tuple[float, float]:
        limiter, loop = Limiter([Rate(10, 1.0)]), asyncio.get_running_loop()
        send = await limiter.acquire()
        limiter.observed(send, RateHeaders(requests=Quota(remaining=3, limit=100, reset_s=60)))
        began = loop.time()
        for _ in range(3):
            last = await limiter.acquire()
        free = loop.time() - began
        limiter.observed(last, RateHeaders(requests=Quota(remaining=0, limit=100, reset_s=60)))
        began = loop.time()
        await limiter.acquire()
        return free, loop.time() - began

    free, held = run_virtual(main())
    assert free < 1
    assert held == pytest.approx(60, abs=0.5)


def test_only_the_approach_of_an_end_is_told() -> None:
    async def main() -> list[bool]:
        limiter = Limiter()
        told = []
        for remaining in (90, 50, 10, 9, 8, 60, 5):
            send = await limiter.acquire()
            sentence = limiter.observed(send, RateHeaders(requests=Quota(remaining=remaining, limit=100, reset_s=0.01)))
            told.append(sentence is not None)
        return told

    assert run_virtual(main()) == [False, False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("2m59.56s", 179.56), ("1h2m3s", 3723), ("59.56s", 59.56), ("20", 20),
        ("0", 0), ("0.5", 0.5), (" 7 ", 7), ("1d", 86400), ("12µs", 12e-6), ("1000000010", 10), ("1000000010000", 10),
        ("999999990", 999999990), ("1700000000", 700000000),
        ("", None), ("soon", None), ("-1", None), ("nan", None), ("inf", None), ("1x", None), ("s", None), ("1s!", None),
        ("Tue, 01 Jan 2030 00:00:00 GMT", None), ("٣s", None),
    ],
)  # fmt: skip
def test_resets_are_read_in_every_form_that_services_send(text: str, seconds: float | None) -> None:
    found = parse_reset(text, 1e9)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-ratelimit-limit-requests": "60"}, None),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-remaining-requests": "many"}, None),
        ({"x-ratelimit-remaining-requests": "9" * 400}, None),
        ({"x-ratelimit-remaining-requests": "59", "x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "1s"},
         RateHeaders(requests=Quota(remaining=59, limit=60, reset_s=1))),
        ({"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-limit-tokens": "150000", "x-ratelimit-reset-tokens": "6ms"},
         RateHeaders(tokens=Quota(remaining=149984, limit=150000, reset_s=0.006))),
        ({"x-ratelimit-remaining-requests": "5"}, RateHeaders(requests=Quota(remaining=5, reset_s=60))),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-limit-requests": "-1", "x-ratelimit-reset-requests": "x"},
         RateHeaders(requests=Quota(remaining=5, reset_s=60))),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-limit": "10", "x-ratelimit-reset": "3"},
         RateHeaders(requests=Quota(remaining=5, limit=10, reset_s=3))),
        ({"x-ratelimit-remaining-requests": "7.0", "x-ratelimit-limit-requests": "5"},
         RateHeaders(requests=Quota(remaining=7, limit=7, reset_s=60))),
    ],
)  # fmt: skip
def test_headers_are_read_and_nonsense_counts_as_not_told(
    headers: dict[str, str], expected: RateHeaders | None
) -> None:
    assert parse_rate_headers(headers) == expected
