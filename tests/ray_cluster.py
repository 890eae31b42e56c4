"""A Ray cluster for tests, in a process of its own that ends it: ``python -m tests.ray_cluster NODES``.

It prints the address as one line; then each line on its standard input is a command: ``lose N`` kills node N as a power
cut does, ``add`` adds one. It ends with its standard input.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

STORE_BYTES = 100_000_000
CPUS = 2


class RayCluster:
    """A running cluster.

    Attributes:
        address: Of its head.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.address = process.stdout.readline().strip()

    def do(self, command: str) -> None:
        """Has a command done."""
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "done"

    def actors(self, name: str) -> list[int]:
        """Process ids of the actors of a class, of all runs on this cluster."""
        return [pid for pid in descendants(self.process.pid) if f"ray::{name}" in _command(pid)]


@contextlib.contextmanager
def ray_cluster(nodes: int = 1, **environment: str) -> Iterator[RayCluster]:
    """A cluster of so many nodes of ``CPUS`` each."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ray_cluster", str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment},
        start_new_session=True,
    )
    try:
        yield RayCluster(process)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def descendants(pid: int) -> list[int]:
    """Process ids of all processes that a process has started, and those that these have."""
    found, waiting = [], [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = [int(child) for child in task.read_text().split()]
                found += children
                waiting += children
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _serve(nodes: int) -> None:
    import logging

    from ray.cluster_utils import Cluster

    logging.disable()
    cluster = Cluster()
    made = [
        cluster.add_node(
            num_cpus=CPUS, object_store_memory=STORE_BYTES, include_dashboard=False, node_name=f"node-{number}"
        )
        for number in range(nodes)
    ]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "lose":
            cluster.remove_node(made[int(number)], allow_graceful=False)
        elif word == "add":
            made.append(cluster.add_node(num_cpus=CPUS, object_store_memory=STORE_BYTES))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
