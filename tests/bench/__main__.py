"""The command: ``python -m tests.bench [WORKLOAD…] [--full] [--rounds N] [--write]``."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.cluster import cluster
from tests.bench.measure import ROOT
from tests.bench.pacing import pacing
from tests.bench.page import bars_of, draw_bars, machine, write_section
from tests.bench.scaling import auto, processes
from tests.bench.sizes import long_answers, memory, resume, start
from tests.bench.where import where
from tests.bench.workloads import CPU_MS, Plan, peers, throughput, wall

WORKLOADS = {
    "w1": throughput,
    "peers": peers,
    "where": where,
    "processes": processes,
    "w2": wall,
    "w3": pacing,
    "auto": auto,
    "memory": memory,
    "resume": resume,
    "start": start,
    "answers": long_answers,
    "cluster": cluster,
}
PAGE, PLOT = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg"
PAGES = {"cluster": ROOT / "docs" / "scaling.md"}


def main() -> int:
    """Measures, prints and, if asked, writes the page."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measures batchchat beside the leanest client.")
    parser.add_argument(
        "workload", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; all if none is named"
    )
    parser.add_argument("--full", action="store_true", help="also what takes an hour: a million prompts")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each client (3)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    if unknown := set(options.workload) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    began = time.monotonic()
    print(machine())
    for name in options.workload or WORKLOADS:
        with tempfile.TemporaryDirectory(prefix="batchchat-bench-") as folder:
            plan = Plan(Path(folder), options.rounds, options.full, lambda text, name=name: tell(f"{name}: {text}"))
            tables = WORKLOADS[name](plan)
        for table in tables:
            print(f"\n{table.text()}", flush=True)
        if options.write and tables:
            write_section(PAGES.get(name, PAGE), name, tables)
            bars = [bar for name in ("w1", "peers") for bar in bars_of(PAGE, name, CPU_MS)]
            draw_bars(PLOT, "A short prompt that is answered at once", CPU_MS, bars)
    print(f"\ntook {time.monotonic() - began:.0f} s")
    return 0


def tell(text: str) -> None:
    """One line of what goes on."""
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
