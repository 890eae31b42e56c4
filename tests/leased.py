"""A desk and workers of a cluster in virtual time: messages take their time, clocks differ, workers are late and die."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from batchchat.durations import Rate
from batchchat.leases import Answer, Ask, DeskAwayError, DeskService, LeasedLimiter
from batchchat.leases.memory import DeskMemory, restored


def die(limit: LeasedLimiter) -> None:
    """Ends a worker's talking with the desk without a word."""
    for task in limit._talk._tasks:
        task.cancel()

    async def nothing(ask: Ask) -> Answer:
        raise DeskAwayError

    limit._line._exchange = nothing


@dataclass
class Cluster:
    """One desk; ``seed`` decides all that is left to chance.

    Attributes:
        way_s: The longest way of a message, and the shortest is a fifth of it.
        times: Loop times at which requests reached the service.
        records: What the desk kept.
        calls: Messages that the desk answered.
    """

    rates: Sequence[Rate] = ()
    burst: int = 1
    tokens_per_minute: int | None = None
    seed: int = 1
    way_s: float = 0.002
    times: list[float] = field(default_factory=list)
    calls: int = 0
    service: DeskService | None = None
    starts: int = 0
    records: list[bytes] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._calls: set[asyncio.Task[Answer]] = set()
        self.start()

    def start(self, *, offset_s: float = 0.0, wall_off_s: float = 0.0) -> None:
        """The desk begins, or begins again, with what it kept; on another machine where its clock is another."""
        self.starts += 1
        loop = asyncio.get_running_loop()

        def clock() -> float:
            return loop.time() + offset_s

        def wall() -> float:
            return 1.7e9 + loop.time() + wall_off_s

        desk = restored(
            self.records,
            self.rates,
            burst=self.burst,
            tokens_per_minute=self.tokens_per_minute,
            number=self.starts,
            now=clock(),
            wall=wall(),
            clock=str(offset_s),
        )
        memory = DeskMemory(desk, str(offset_s))
        self.records.append(memory.whole(clock(), wall()))

        async def remember() -> None:
            if record := memory.latest(clock(), wall()):
                if self.chance.random() < 0.01:
                    self.records[:] = [memory.whole(clock(), wall())]
                else:
                    self.records.append(record)

        self.service = DeskService(desk, remember, clock)

    def kill(self) -> None:
        """The desk is gone with all that was asked."""
        self.service = None
        for call in self._calls:
            call.cancel()

    async def _exchange(self, ask: Ask) -> Answer:
        await asyncio.sleep(self.way())
        if self.service is None:
            raise DeskAwayError
        await self.arrive()
        if self.service is None:
            raise DeskAwayError
        self.calls += 1
        call = asyncio.create_task(self.service.exchange(ask))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            answer = await asyncio.shield(call)
        except asyncio.CancelledError:
            if call.cancelled():
                raise DeskAwayError from None
            call.cancel()
            raise
        await asyncio.sleep(self.way())
        return answer

    async def arrive(self) -> None:
        """A message is there; it waits here for its turn."""

    def way(self) -> float:
        """Seconds that a message takes."""
        return self.chance.uniform(0.2, 1.0) * self.way_s

    def worker(self, *, offset_s: float = 0.0, drift: float = 0.0, made: Any = LeasedLimiter, **options) -> Any:
        """A worker's limiter, whose clock is another one."""
        loop = asyncio.get_running_loop()

        def clock() -> float:
            return loop.time() * (1 + drift) + offset_s

        options = {"failed": self.failures.append, "clock": clock, **options}
        return made(
            self.rates, burst=self.burst, tokens_per_minute=self.tokens_per_minute, exchange=self._exchange, **options
        )

    async def send(
        self, limit: LeasedLimiter, *, tokens: int = 0, way_s: float = 0.0, still: Callable[[], bool] = lambda: True
    ) -> float | None:
        """One request: its connection takes ``way_s``; the time at which it reached the service."""
        loop = asyncio.get_running_loop()
        send = await limit.acquire(tokens, still)
        if send is None:
            return None
        try:
            limit.begin(send)
            if way_s:
                await asyncio.sleep(way_s)
            if (waiting := limit.sent(send)) is not None:
                await waiting
            at = loop.time()
            self.times.append(at + self.chance.uniform(0.0, 0.008))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return at
        finally:
            limit.left(send)

    async def work(
        self, limit: LeasedLimiter, until: float, *, tasks: int = 16, answer_s: float = 0.0, **options
    ) -> int:
        """Sends as much as it may until a loop time; how many requests that were."""
        loop = asyncio.get_running_loop()
        sent = 0

        async def task() -> None:
            nonlocal sent
            while loop.time() < until:
                arrived = await self.send(limit, still=lambda: loop.time() < until, **options)
                if arrived is None:
                    return
                sent += 1
                if answer_s:
                    await asyncio.sleep(answer_s * self.chance.uniform(0.5, 1.5))

        async with limit:
            group = [asyncio.create_task(task()) for _ in range(tasks)]
            await asyncio.wait(group, timeout=until - loop.time())
            for each in group:
                each.cancel()
            for ended in await asyncio.gather(*group, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        return sent

    def assert_holds(self, *rates: Rate) -> None:
        """No sliding window of any rate holds more than its count."""
        times = sorted(self.times)
        for rate in rates or self.rates:
            for first, last in zip(times, times[rate.count :], strict=False):
                if last - first < rate.per_s:
                    pytest.fail(f"{rate.count + 1} requests within {last - first:.4f} s, from {first:.3f} on")

    def used(self, rate: Rate) -> float:
        """The share of the rate that was used between the first and the last request."""
        times = sorted(self.times)
        return (len(times) - 1) / (times[-1] - times[0]) * rate.per_s / rate.count
