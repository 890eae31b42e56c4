"""One limit over many workers, simulated: the desk's load, what is used of the limit, fairness, the fullest window.

``python -m tests.bench.desk_simulation [TABLE…] [--write]``. Desk and limiters are batchchat's own and run in virtual
time; what is around them is modelled. All that is left to chance comes from a seed: each run gives the same figures.
"""

import argparse
import asyncio
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from batchchat.durations import Rate
from batchchat.limits import Limiter
from tests.bench.measure import ROOT
from tests.bench.page import draw_bars, write_section
from tests.bench.table import Table
from tests.leased import Cluster, die
from tests.virtual_time import run_virtual

PAGE, PLOT = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.svg"
# What one message, there and back, takes of an actor's process; measured on Ray.
SERVICE_S = 1e-4
# Workers start one after the other within this time; figures begin after it and one window.
_START_S = 2.0
_RESTART_S = 5.0


@dataclass
class Model(Cluster):
    """A cluster whose desk works on one message at a time, and whose ways are now and then long."""

    waits_s: list[float] = field(default_factory=list)
    busy_until: float = 0.0

    async def arrive(self) -> None:
        """A message's turn at the desk."""
        now = asyncio.get_running_loop().time()
        begins = max(now, self.busy_until)
        self.busy_until = begins + SERVICE_S
        self.waits_s.append(begins - now)
        await asyncio.sleep(self.busy_until - now)

    def way(self) -> float:
        """Of a message: 0.4 to 2 ms, one in a hundred 20 ms more."""
        return super().way() + (0.02 if self.chance.random() < 0.01 else 0.0)

    def late_s(self) -> float:
        """How late a worker is with a request: 1 ms on average, one in five hundred 50 ms."""
        return 0.05 if self.chance.random() < 0.002 else self.chance.expovariate(1000.0)


@dataclass(frozen=True)
class Case:
    """What is simulated.

    Attributes:
        name: For the table.
        tasks: Requests that each worker has at once, on the wire or waiting.
        idle: Share of the workers that have nothing to send.
        lost: Share of the workers that are killed in the middle.
        restart: Whether the desk is killed in the middle, and begins again 5 s later.
        even: Whether each worker has its part of the limit to itself instead of asking the desk.
        demand: Requests that could be sent in a second without a limit, as a multiple of it.
    """

    name: str
    workers: int
    rate: Rate
    tasks: int = 16
    idle: float = 0.0
    lost: float = 0.0
    restart: bool = False
    even: bool = False
    demand: float = 2.5
    seconds: float = 20.0


@dataclass
class Found:
    """What came of it; times are those of the model."""

    case: Case
    times: list[float]
    sent: list[int]
    calls_per_s: float
    waits_s: list[float]
    begin: float
    end: float

    @property
    def used(self) -> float:
        """Share of the limit that was used after the start."""
        count = bisect_left(self.times, self.end) - bisect_left(self.times, self.begin)
        return count / (self.end - self.begin) * self.case.rate.per_s / self.case.rate.count

    @property
    def fullest(self) -> int:
        """The most requests in any window, as they reached the service."""
        most = first = 0
        for last, at in enumerate(self.times):
            while self.times[first] <= at - self.case.rate.per_s:
                first += 1
            most = max(most, last - first + 1)
        return most

    @property
    def shares(self) -> tuple[float, float, float]:
        """Least and most that a worker sent, to the mean; Jain's index, 1 where all sent the same."""
        middle = mean(self.sent)
        return (
            min(self.sent) / middle,
            max(self.sent) / middle,
            sum(self.sent) ** 2 / (len(self.sent) * sum(count * count for count in self.sent)),
        )

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a request."""
        return max(later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False))


def simulate(case: Case, seed: int = 1) -> Found:
    """Runs one case in virtual time."""
    return run_virtual(_simulate(case, seed))


async def _simulate(case: Case, seed: int) -> Found:
    model = Model([case.rate], seed=seed)
    loop = asyncio.get_running_loop()
    start, middle = loop.time(), loop.time() + _START_S + case.seconds / 2
    end = start + _START_S + case.seconds
    if case.restart:
        loop.call_at(middle, model.kill)
        loop.call_at(middle + _RESTART_S, model.start)
    busy = case.workers - round(case.idle * case.workers)
    killed = round(case.lost * case.workers)
    lives = [_life(model, case, end, middle if number < killed else None) for number in range(busy)]
    sent = await asyncio.gather(*lives)
    if model.service is not None:
        model.service.close()
    await asyncio.sleep(1.0)
    times = sorted(model.times)
    # Once all have started: as many as are there all the time share alike.
    return Found(
        case, times, sent[killed:], model.calls / (end - start), model.waits_s, start + _START_S + 1.0, end - 0.1
    )


async def _life(model: Model, case: Case, end: float, dies_at: float | None) -> int:
    """One worker; how many requests it sent once all had started."""
    loop, chance = asyncio.get_running_loop(), model.chance
    began = loop.time()
    await asyncio.sleep(chance.uniform(0.0, _START_S))
    limit: Any
    if case.even:
        rate, workers = case.rate, case.workers
        part = Rate(rate.count // workers, rate.per_s) if rate.count >= workers else None
        limit = Limiter([part or Rate(1, rate.per_s * workers / rate.count)])
    else:
        limit = model.worker(offset_s=chance.uniform(0.0, 1e5), drift=chance.uniform(-1e-4, 1e-4))
    answer_s = case.tasks * case.workers / (case.demand * case.rate.count / case.rate.per_s)
    sent = 0

    async def task() -> None:
        nonlocal sent
        if case.demand < 1.0:
            await asyncio.sleep(chance.uniform(0.0, 1.0) * answer_s)
        while loop.time() < end:
            at = await model.send(limit, way_s=model.late_s())
            if at is None:
                return
            sent += at >= began + _START_S + 1.0
            await asyncio.sleep(chance.uniform(0.5, 1.5) * answer_s)

    await limit.__aenter__()
    tasks = [asyncio.create_task(task()) for _ in range(case.tasks)]
    await asyncio.wait(tasks, timeout=(dies_at or end) - loop.time())
    for each in tasks:
        each.cancel()
    if not case.even:
        die(limit)
    await asyncio.gather(*tasks, return_exceptions=True)
    return sent


def load() -> list[Table]:
    """How the desk's load grows with the number of workers."""
    fast, few = Rate(1000, 1.0), Rate(200, 1.0)
    cases = [
        Case("64 at once each", 1, fast, tasks=64),
        *(Case("", workers, fast, seconds=20.0 if workers < 1000 else 60.0) for workers in (10, 100, 1000)),
        Case("", 100, few),
        Case("", 1000, few),
        Case("two at once each", 1000, fast, tasks=2, seconds=15.0),
        Case("demand half the limit", 1000, fast, demand=0.5, seconds=15.0),
        Case("", 1000, Rate(5000, 1.0), tasks=64),
        Case("", 100, Rate(600, 60.0), seconds=240.0),
    ]
    found = [simulate(case) for case in cases]
    bars = [
        (f"batchchat, {f.case.workers:,} worker{'s' if f.case.workers > 1 else ''}", f.calls_per_s) for f in found[:4]
    ]
    bars.append(("one message a request", 1000.0))
    LATER.append(lambda: draw_bars(PLOT, "Messages at the desk, 1,000 requests/s", "a second", bars))
    note = "Each worker has 16 requests at once, on the wire or waiting, unless told; the desk's wait is that of a message for its turn."
    return [Table("Load of the desk", note, *_rows(found))]


def division() -> list[Table]:
    """Leases beside a limit that is divided evenly."""
    rate = Rate(200, 1.0)
    cases = [
        Case(name, workers, rate, idle=idle, even=even)
        for workers in (100, 1000)
        for name, idle in (("all busy", 0.0), ("half without work", 0.5))
        for even in (False, True)
    ]
    note = "Evenly: each worker has its part of the limit to itself, with the same pacing as in a run of one process."
    return [Table("Leased and divided evenly", note, *_rows([simulate(case) for case in cases], division=True))]


def faults() -> list[Table]:
    """Workers and a desk that are killed."""
    cases = [
        Case(name, workers, Rate(count, 1.0), lost=lost, restart=restart, seconds=20.0)
        for workers, count in ((100, 200), (1000, 1000))
        for name, lost, restart in (("every tenth worker killed", 0.1, False), ("desk away for 5 s", 0.0, True))
    ]
    note = "Killed in the middle of 20 s, all at once. What was leased to the dead counts as sent; a desk that begins again knows what it leased."
    return [Table("Faults", note, *_rows([simulate(case) for case in cases], gap=True))]


def _rows(found: Sequence[Found], *, division: bool = False, gap: bool = False) -> tuple[list[str], list[list[str]]]:
    columns = ["workers", "limit", "what is special", *(["limit is"] if division else [])]
    columns += [
        "used",
        "fullest window",
        "messages/s",
        "desk busy",
        "desk's wait, mean and 99 %",
        "least and most a worker sent, to the mean",
        "Jain's index",
    ]
    columns += ["longest silence"] if gap else []
    rows = []
    for each in found:
        case, (least, most, jain) = each.case, each.shares
        waits = sorted(each.waits_s) or [0.0]
        row = [
            f"{case.workers:,}",
            str(case.rate),
            case.name or "–",
            *(["divided" if case.even else "leased"] if division else []),
        ]
        row += [f"{each.used:.1%}", f"{each.fullest:,} of {case.rate.count:,}"]
        if case.even:
            row += ["–", "–", "–"]
        else:
            late = waits[int(0.99 * (len(waits) - 1))]
            row += [
                f"{each.calls_per_s:,.0f}",
                f"{each.calls_per_s * SERVICE_S:.1%}",
                f"{mean(waits) * 1000:.2f} ms, {late * 1000:.2f} ms",
            ]
        row += [f"{least:.2f}, {most:.2f}", f"{jain:.3f}"]
        row += [f"{each.longest_gap_s:.1f} s"] if gap else []
        rows.append(row)
    return columns, rows


TABLES: dict[str, Callable[[], list[Table]]] = {"load": load, "division": division, "faults": faults}
LATER: list[Callable[[], None]] = []


def main() -> int:
    """Simulates, prints and, if asked, writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.desk_simulation", description=__doc__)
    parser.add_argument("table", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all if none is named")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    if unknown := set(options.table) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    began = time.monotonic()
    for name in options.table or TABLES:
        tables = TABLES[name]()
        for table in tables:
            print(f"\n{table.text()}", flush=True)
        if options.write:
            write_section(PAGE, name, tables)
    if options.write:
        for write in LATER:
            write()
    print(f"\ntook {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
