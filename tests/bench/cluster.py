"""What a run on a Ray cluster costs beside one on this machine: prompts a second, CPU, start, memory."""

import contextlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.canned import Behaviour
from tests.bench.measure import Measured, measure, ours
from tests.bench.table import Table
from tests.bench.workloads import Plan, median, share
from tests.ray_cluster import RayCluster, descendants, ray_cluster

__all__ = ["cluster"]

_COUNT = 10_000
_WAYS: dict[str, tuple[str, ...]] = {
    "one process": (),
    "--processes 2": ("--processes", "2"),
    "Ray, 1 worker": ("--engine", "ray", "--workers", "1"),
    "Ray, 2 workers": ("--engine", "ray", "--workers", "2"),
    "Ray, 4 workers": ("--engine", "ray", "--workers", "4"),
}
_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_S = 0.05


def cluster(plan: Plan) -> list[Table]:
    """W1 in every way, on a cluster of one node that is there already; and a single prompt, for the start."""
    began = time.monotonic()
    with ray_cluster(PYTHONPATH=str(Path(__file__).parents[2])) as nodes:
        start_s = time.monotonic() - began
        idle_mb = _memory_mb(nodes)
        rows = [_row(plan, nodes, way, options) for way, options in _WAYS.items()]
    note = (
        f"The server takes its share of the same cores. Starting a cluster of one node took {start_s:.1f} s; idle, its "
        f"processes hold {idle_mb:,.0f} MB (each counts what it shares with others in part). CPU is that of the command and "
        "all processes of the cluster, in seconds for 1,000 prompts beyond those of a run with one prompt, which is what "
        "`start` tells: seconds on the clock, and of CPU."
    )
    columns = ["way", "answered", "prompts/s", "CPU s for 1,000", "start", "start, CPU", "memory MB"]
    return [Table(f"On one machine: {_COUNT:,} prompts, no latency, 64 in flight", note, columns, rows)]


def _row(plan: Plan, nodes: RayCluster, way: str, options: tuple[str, ...]) -> list[str]:
    more = (*options, "--ray-address", nodes.address) if "ray" in options else options
    runs: dict[int, list[tuple[Measured, float]]] = {1: [], _COUNT: []}
    peak = 0.0
    for _ in range(plan.rounds):
        for count, found in runs.items():
            plan.tell(f"{way}, {count:,} prompts")
            run, cpu_s = _with_cluster(
                nodes,
                lambda count=count: measure(
                    ours("openai", *more, python=sys.executable), plan.folder, Behaviour(), prompts=count
                ),
            )
            found.append((run, cpu_s))
            peak = max(peak, run.cost.rss_mb)
    single, many = runs[1], runs[_COUNT]
    start_cpu_s = median([cpu_s for _, cpu_s in single])
    cpu_s = statistics.median([(cpu_s - start_cpu_s) * 1000 / _COUNT for _, cpu_s in many])
    return [
        way,
        share(min(run.right for run, _ in many), _COUNT),
        f"{median([run.per_s for run, _ in many]):,.0f}",
        f"{cpu_s:.2f}",
        f"{median([run.cost.wall_s for run, _ in single]):.1f} s",
        f"{start_cpu_s:.1f} s",
        f"{peak:.0f}",
    ]


def _with_cluster(nodes: RayCluster, run: Callable[[], Measured]) -> tuple[Measured, float]:
    """The run, and seconds of CPU of the command and the cluster together."""
    with _cluster_cpu(nodes) as spent_s:
        measured = run()
    return measured, measured.cost.cpu_s + spent_s()


@contextlib.contextmanager
def _cluster_cpu(nodes: RayCluster) -> Iterator[Callable[[], float]]:
    """Seconds of CPU of the cluster's processes inside; told of each when it was looked at last.

    Nobody waits for workers of Ray's in a way that would count what they took, so they are looked at while they are there.
    """
    before, latest, over = _ticks(nodes), {}, threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            latest.update(_ticks(nodes))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: sum(ticks - before.get(process, 0) for process, ticks in latest.items()) / _TICKS
    finally:
        over.set()
        looking.join()
        latest.update(_ticks(nodes))


def _ticks(nodes: RayCluster) -> dict[tuple[int, str], int]:
    """User and system time of each process of the cluster, by its id and start."""
    found = {}
    for pid in descendants(nodes.process.pid):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid, fields[19]] = int(fields[11]) + int(fields[12])
    return found


def _memory_mb(nodes: RayCluster) -> float:
    total = 0
    for pid in descendants(nodes.process.pid):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
