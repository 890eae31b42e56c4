"""How long commands take to start: CPU and wall time, each beside a plain import of what it cannot do without.

``python -m tests.bench.startup [ROUNDS] [NAME…]`` prints a table. A machine that does other things changes seconds but hardly
their ratios, as a command and its yardstick are measured in turns. Linux only: it reads the CPU clock of a child.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_CLICK = "import click"
_CLIENT = "import aiohttp, orjson, click, msgspec"
_JOB = """version: 1
input: [{folder}/in.jsonl]
output: {{path: {folder}/out.jsonl}}
provider: {{name: {kind}, base_url: "{url}"{more}}}
"""


class Cost(NamedTuple):
    """Seconds from the start of a process to its end, or to its first request."""

    cpu_s: float
    wall_s: float


def cost_of_exit(command: Sequence[str], environ: dict[str, str]) -> Cost:
    """Runs a command to its end."""
    began = time.monotonic()
    child = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    told = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    assert child.returncode == 0, told.decode(errors="replace")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began)


def cost_of_first_request(command: Sequence[str], environ: dict[str, str], listener: socket.socket) -> Cost:
    """Runs a command until the first byte of a request is at the listener, and ends it there."""
    began = time.monotonic()
    child = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        listener.settimeout(60)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            connection.recv(1)
            cost = Cost(time.clock_gettime(_cpu_clock(child.pid)), time.monotonic() - began)
    except TimeoutError:
        child.kill()
        raise AssertionError(child.communicate()[1].decode(errors="replace")) from None
    finally:
        child.kill()
        child.communicate()
    return cost


def _cpu_clock(pid: int) -> int:
    """The clock of the CPU time that a process has used with all its threads, as clock_getcpuclockid(3) makes it."""
    return (~pid << 3) | 2


def in_turns(measures: dict[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Measures each in every round, after one that counts for nothing (it writes what Python compiles)."""
    for measure in measures.values():
        measure()
    costs: dict[str, list[Cost]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            costs[name].append(measure())
    return costs


def measures(folder: Path, listener: socket.socket) -> dict[str, Callable[[], Cost]]:
    """Every command by name, yardsticks ``click`` and ``client`` among them."""
    # Without compiled modules a start costs several times as much.
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BATCHCHAT_", "PYTHONDONTWRITEBYTECODE"))
    }
    environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "XDG_STATE_HOME": f"{folder}/state", "OPENAI_API_KEY": "none"}
    url = "http://127.0.0.1:%d" % listener.getsockname()[1]
    python, ours = sys.executable, str(Path(sys.executable).with_name("batchchat"))
    (folder / "in.jsonl").write_text('{"id":"a","prompt":"Hello"}\n')
    (folder / "done.jsonl").write_text("")

    def run(command: Sequence[str]) -> Callable[[], Cost]:
        return lambda: cost_of_exit(command, environ)

    def request(*arguments: str) -> Callable[[], Cost]:
        def measure() -> Cost:
            for left in folder.glob("out*"):
                left.unlink()
            return cost_of_first_request((ours, "run", *arguments), environ, listener)

        return measure

    found = {
        "bare": run((python, "-c", "")),
        "click": run((python, "-c", _CLICK)),
        "client": run((python, "-c", _CLIENT)),
        "--help": run((ours, "--help")),
        "--version": run((ours, "--version")),
        "run --help": run((ours, "run", "--help")),
        "status": run((ours, "status", f"{folder}/done.jsonl")),
        "check": run((ours, "check", f"{folder}/in.jsonl", "--provider", "openai", "--base-url", url, "--model", "m")),
    }
    for kind, options, more in (("openai", ("--model", "m"), ", model: m"), ("ai-engine", (), "")):
        files = (f"{folder}/in.jsonl", "-o", f"{folder}/out.jsonl")
        found[f"run {kind}"] = request(*files, "--provider", kind, "--base-url", url, *options)
        job = folder / f"{kind}.yaml"
        job.write_text(_JOB.format(folder=folder, kind=kind, url=url, more=more))
        found[f"run -j {kind}"] = request("-j", str(job))
    return found


def main() -> None:
    """Prints medians, and ratios to the yardstick of each."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as listener:
        chosen = measures(Path(name), listener)
        if sys.argv[2:]:
            chosen = {name: each for name, each in chosen.items() if name in {"click", "client", *sys.argv[2:]}}
        costs = in_turns(chosen, rounds)
    medians = {
        name: Cost(*(statistics.median(each) for each in zip(*found, strict=True))) for name, found in costs.items()
    }
    print(f"{'':<18}{'CPU ms':>8}{'wall ms':>9}  ratio of CPU, of wall")
    for name, (cpu_s, wall_s) in medians.items():
        yardstick = medians["client" if name.startswith(("run -j", "run o", "run a", "client")) else "click"]
        ratios = f"{cpu_s / yardstick.cpu_s:8.2f}{wall_s / yardstick.wall_s:9.2f}"
        print(f"{name:<18}{cpu_s * 1000:8.0f}{wall_s * 1000:9.0f}{ratios}")


if __name__ == "__main__":
    main()
