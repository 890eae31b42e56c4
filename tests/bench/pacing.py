"""W3: how much of an allowance is used, at a server that refuses what goes beyond it."""

import concurrent.futures
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench.canned import Behaviour
from tests.bench.measure import Measured, lean, measure, ours, run_command, serving, write_prompts
from tests.bench.table import Table
from tests.bench.workloads import Plan, share

__all__ = ["pacing"]


class Allowance(msgspec.Struct, frozen=True):
    """Rates as the user gives them and as the server keeps them, and how many prompts to send."""

    told: tuple[str, ...]
    kept: tuple[tuple[int, float], ...]
    prompts: int

    def used(self, requests: int, span_s: float) -> float:
        """Share of the allowance that so many requests in so many seconds, first to last, amount to."""
        return (requests - 1) / span_s / min(count / per_s for count, per_s in self.kept) if span_s else 0.0


FAST = Allowance(("200/s",), ((200, 1.0),), 4000)
SLOW = Allowance(("60/min",), ((60, 60.0),), 75)
BOTH = Allowance(("50/s", "1000/min"), ((50, 1.0), (1000, 60.0)), 1250)


def pacing(plan: Plan) -> list[Table]:
    """Every allowance by one run, and the fast one shared by four."""
    rows = [_row("batchchat", FAST, _one(plan.folder, ours(), FAST))]
    if plan.full:
        rows.append(_row("lean loop, a grid at 99 %", FAST, _one(plan.folder, lean(), FAST, lean_rate="200")))
    plan.tell("60/min and 50/s with 1000/min, side by side")
    with concurrent.futures.ThreadPoolExecutor() as pool:  # both are nearly idle
        runs = [pool.submit(_one, _sub(plan.folder, number), ours(), each) for number, each in enumerate((SLOW, BOTH))]
        rows += [_row("batchchat", each, run.result()) for each, run in zip((SLOW, BOTH), runs, strict=True)]
    plan.tell("200/s, four processes, then four runs that share it")
    rows.append(_row("batchchat --processes 4", FAST, _one(plan.folder, ours("openai", "--processes", "4"), FAST)))
    rows.append(_row("4 runs, --rate-scope host", FAST, _shared(plan.folder, 4, FAST)))
    note = (
        "The server refuses what does not fit every sliding window. Used is counted from the first request that it let in "
        "to the last."
    )
    columns = ["client", "allowed", "answered", "used", "refused"]
    return [Table("W3: pacing, 20 ms latency", note, columns, rows)]


def _sub(folder: Path, number: int) -> Path:
    path = folder / f"side-{number}"
    path.mkdir(exist_ok=True)
    return path


def _behaviour(allowance: Allowance) -> Behaviour:
    return Behaviour(latency_ms=20, sigma=0, rates=list(allowance.kept))


def _one(folder: Path, command: Sequence[str], allowance: Allowance, lean_rate: str = "") -> Measured:
    more = ["--rate", lean_rate] if lean_rate else [f"--rate={rate}" for rate in allowance.told]
    return measure(command, folder, _behaviour(allowance), prompts=allowance.prompts, more=more)


def _shared(folder: Path, runs: int, allowance: Allowance) -> Measured:
    """The prompts split among runs of their own that share the limit; one figure for all of them."""
    each = Allowance(allowance.told, allowance.kept, allowance.prompts // runs)
    work = folder / "shared"
    work.mkdir()
    try:
        with serving(_behaviour(allowance)) as server, concurrent.futures.ThreadPoolExecutor() as pool:
            costs = list(pool.map(lambda number: _share(work, number, each, server.base_url), range(runs)))
            stats = server.stats()
        lines = [path.read_bytes().count(b"\n") for path in work.glob("*/results.jsonl")]
        return Measured(costs[0], allowance.prompts, sum(lines), 0, stats)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _share(work: Path, number: int, each: Allowance, base_url: str):
    folder = work / str(number)
    folder.mkdir()
    prompts = write_prompts(folder / "prompts.jsonl", each.prompts)
    rates = [f"--rate={rate}" for rate in each.told]
    arguments = [str(prompts), "-o", str(folder / "results.jsonl"), "--base-url", base_url, "--rate-scope", "host"]
    return run_command([*ours(), *arguments, *rates], folder, state=work)


def _row(name: str, allowance: Allowance, run: Measured) -> list[str]:
    used = allowance.used(run.server["requests"] - run.server["refused"], run.server["let_in_s"])
    allowed = " and ".join(allowance.told)
    return [name, allowed, share(run.right, run.prompts), f"{used:.1%}", str(run.server["refused"])]
