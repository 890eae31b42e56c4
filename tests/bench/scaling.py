"""What more processes bring, and how near ``--concurrency auto`` comes to the best number of slots."""

from functools import partial

from tests.bench.canned import Behaviour
from tests.bench.measure import Measured, lean, measure, ours
from tests.bench.table import Table
from tests.bench.workloads import Plan, median, share

__all__ = ["auto", "processes"]

# Requests that the server works on at once change from phase to phase.
_CAPACITIES = (8, 32, 4)
# The best of them is what hindsight tells; fewer would flatter what is compared with it.
_FIXED = (8, 16, 32, 64)


def processes(plan: Plan) -> list[Table]:
    """W1 by one process and by two: prompts a second, as CPU alone does not tell of cores."""
    count = 40_000
    rows = []
    for provider in ("openai", "ai-engine"):
        commands = {
            ("lean loop", 1): lean(provider),
            ("lean loop", 2): lean(provider, processes=2),
            ("batchchat", 1): ours(provider),
            ("batchchat", 2): ours(provider, "--processes", "2"),
        }
        found = plan.in_turns(
            {
                key: partial(measure, command, plan.folder, Behaviour(), prompts=count)
                for key, command in commands.items()
            }
        )
        gain = {name: _gain(found[name, 1], found[name, 2]) for name in ("lean loop", "batchchat")}
        for (name, number), runs in found.items():
            row = [name, provider, str(number), share(min(run.right for run in runs), count)]
            row += [f"{median([run.per_s for run in runs]):,.0f}", f"{median([run.cpu_ms for run in runs]):.3f}"]
            row += ["", ""] if number == 1 else [f"{gain[name]:.2f}", f"{gain[name] / gain['lean loop']:.2f}"]
            rows.append(row)
    note = (
        "The server takes its share of the same cores. The gain is that of prompts a second, the median of the rounds'."
    )
    columns = [
        "client",
        "provider",
        "processes",
        "answered",
        "prompts/s",
        "CPU ms a prompt",
        "gain",
        "to the lean loop's",
    ]
    return [Table(f"Two processes: {count:,} prompts, no latency, 64 in flight", note, columns, rows)]


def _gain(one: list[Measured], two: list[Measured]) -> float:
    return median([many.per_s / single.per_s for single, many in zip(one, two, strict=True)])


def auto(plan: Plan) -> list[Table]:
    """A server that works on 8, then 32, then 4 requests at once, which nobody tells the client."""
    phase_s = 20.0 if plan.full else 10.0
    rows = []
    for beyond, what in (("refuse", "429"), ("queue", "slower")):
        capacity = [(number * phase_s, most) for number, most in enumerate(_CAPACITIES)]
        behaviour = Behaviour(latency_ms=200, sigma=0.3, capacity=capacity, over_capacity=beyond)
        runs: dict[str, Measured] = {}
        for setting in ("auto", *map(str, _FIXED)):
            plan.tell(f"{what} beyond the capacity, --concurrency {setting}")
            more = ["--concurrency", setting, "--deadline", f"{phase_s * len(_CAPACITIES)}s", "--grace", "0s"]
            runs[setting] = measure(ours(), plan.folder, behaviour, prompts=int(500 * phase_s), more=more)
        best = max(run.right for setting, run in runs.items() if setting != "auto")
        rows += [
            [what, setting, f"{run.right:,}", f"{run.right / best:.2f}", _refused(run)] for setting, run in runs.items()
        ]
    note = f"Capacity 8, 32 and 4 for {phase_s:g} s each, 200 ms latency; the best is the best fixed setting, as only hindsight tells."
    columns = ["beyond the capacity", "--concurrency", "answered", "to the best", "refused"]
    return [Table("Finding the concurrency", note, columns, rows)]


def _refused(run: Measured) -> str:
    return f"{run.server['refused'] / max(1, run.server['requests']):.1%}"
