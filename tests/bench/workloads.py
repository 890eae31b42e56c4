"""The workloads: each gives its tables; clients take turns, and a figure is the median of the rounds."""

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.bench.canned import Behaviour, ideal_makespan_s
from tests.bench.measure import Measured, client, lean, measure, ours
from tests.bench.peers.registry import PEERS, installed
from tests.bench.table import Table

K = TypeVar("K", bound=Hashable)

__all__ = ["CPU_MS", "Plan", "peers", "throughput", "wall"]


class Plan:
    """How much is measured.

    Attributes:
        folder: For what the clients write.
        rounds: Turns that each client gets.
        full: Whether to take the long way.
    """

    def __init__(self, folder: Path, rounds: int, full: bool, tell: Callable[[str], None]) -> None:
        self.folder, self.rounds, self.full, self.tell = folder, rounds, full, tell

    def in_turns(self, runs: Mapping[K, Callable[[], Measured]]) -> dict[K, list[Measured]]:
        """Each of the runs, so many times, one after the other."""
        found: dict[K, list[Measured]] = {name: [] for name in runs}
        for number in range(self.rounds):
            for name, run in runs.items():
                words = name if isinstance(name, str) else ", ".join(map(str, name))
                self.tell(f"{words}, round {number + 1} of {self.rounds}")
                found[name].append(run())
        return found


# Heading of what the plot shows.
CPU_MS = "CPU ms a prompt"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def share(part: int, whole: int) -> str:
    """``10,000`` or ``9,998 of 10,000``."""
    return f"{whole:,}" if part == whole else f"{part:,} of {whole:,}"


def throughput(plan: Plan) -> list[Table]:
    """W1: short prompts, no latency, streamed, results written."""
    count = 10_000
    tables = []
    for provider in ("openai", "ai-engine"):
        found = plan.in_turns(
            {
                name: partial(measure, command, plan.folder, Behaviour(), prompts=count)
                for name, command in (("batchchat", ours(provider)), ("lean loop", lean(provider)))
            }
        )
        tables.append(_throughput_table(f"W1, {provider}: {count:,} prompts, no latency, 64 in flight", found))
    return tables


def _throughput_table(title: str, found: Mapping[str, list[Measured]]) -> Table:
    cost = {name: median([run.cpu_ms for run in runs]) for name, runs in found.items()}
    rows = [
        [
            name,
            share(min(run.right for run in runs), runs[0].prompts),
            f"{median([run.per_s for run in runs]):,.0f}",
            f"{cost[name]:.3f}",
            f"{_ratio(runs, found['lean loop']):.2f}",
            f"{median([run.cost.rss_mb for run in runs]):.0f}",
        ]
        for name, runs in found.items()
    ]
    columns = ["client", "answered", "prompts/s", CPU_MS, "to the lean loop", "memory MB"]
    note = "CPU is that of the client with its start-up; the ratio is the median of the rounds' own."
    return Table(title, note, columns, rows)


def _ratio(runs: Sequence[Measured], yardstick: Sequence[Measured]) -> float:
    """Each round's figure to that of the same round."""
    return median([run.cpu_ms / lean_run.cpu_ms for run, lean_run in zip(runs, yardstick, strict=True)])


def wall(plan: Plan) -> list[Table]:
    """W2: log-normal latency; how near to the shortest possible time."""
    rows = []
    for count, concurrency, latency_ms in ((2000, 200, 200), (6000, 2000, 1000)):
        behaviour = Behaviour(latency_ms=latency_ms)
        runs = {"batchchat": ours(), "lean loop": lean()}
        found = plan.in_turns(
            {
                name: partial(measure, command, plan.folder, behaviour, prompts=count, concurrency=concurrency)
                for name, command in runs.items()
            }
        )
        ideal_s = ideal_makespan_s(behaviour, count, concurrency)
        for name, each in found.items():
            spans = [run.server["span_s"] for run in each]
            answered = share(min(run.right for run in each), count)
            most = max(run.server["peak"] for run in each)
            rows.append([name, f"{latency_ms} ms", f"{concurrency:,}", answered, f"{most:,}", f"{ideal_s:.2f}"])
            rows[-1] += [f"{median(spans) / ideal_s:.3f}", f"{min(spans) / ideal_s:.3f}"]
    note = "Time from the first request to the last answer, to the shortest in which so many slots can do it."
    columns = ["client", "mean latency", "in flight", "answered", "most at once", "shortest s", "median", "best"]
    return [Table("W2: log-normal latency", note, columns, rows)]


def peers(plan: Plan) -> list[Table]:
    """W1 with the other tools that are installed; they answer whole, as they do not stream, and fewer prompts."""
    rows = []
    for name in installed():
        plan.tell(name)
        count = PEERS[name].prompts
        _, few, run = (  # the first one compiles its modules
            measure(client(name), plan.folder, Behaviour(), prompts=prompts, limit_s=120)
            for prompts in (count // 10, count // 10, count)
        )
        if not run.right:
            plan.tell(f"{name}: no answers, left out")
            continue
        rows.append(
            [
                name,
                share(run.right, count),
                f"{run.per_s:,.0f}",
                f"{_cpu_ms_of_many(few, run):.2f}",
                f"{run.cost.rss_mb:.0f}",
            ]
        )
    if not rows:
        plan.tell("no other tools are installed: make bench-peers")
        return []
    note = (
        "One run each, as their documentation shows; the slow ones get fewer prompts, so their CPU is what one prompt more "
        "costs, with a ten-thousandth of the start-up. `make bench-peers` installs them."
    )
    columns = ["client", "answered", "prompts/s", CPU_MS, "memory MB"]
    return [Table("W1, other tools: no latency, 64 in flight", note, columns, rows)]


def _cpu_ms_of_many(few: Measured, many: Measured) -> float:
    """CPU of a prompt as it would be with as many as W1 has."""
    each_s = (many.cost.cpu_s - few.cost.cpu_s) / (many.prompts - few.prompts)
    return 1000 * (each_s + (few.cost.cpu_s - few.prompts * each_s) / 10_000)
