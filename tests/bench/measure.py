"""One client, one server, one run: what it cost, and whether every answer is there and right."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.canned import Behaviour, expected_reply, prompt_text
from tests.bench.peers.registry import PEERS, python_of

__all__ = ["Cost", "Measured", "client", "lean", "measure", "ours", "run_command", "serving", "write_prompts"]

ROOT = Path(__file__).parents[2]
# Of an environment with batchchat alone, as it is installed without extras; tests have them all.
_PLAIN = os.environ.get("BENCH_PYTHON") or sys.executable
_ASKED = re.compile(r'id=(\d{9})|"id": ?"(\d{9})"|"index": ?(\d+)')
_REPLY = re.compile(r"R(\d{9})((?: [a-z]+)*)( END)?")


class Cost(msgspec.Struct):
    """What a command cost: seconds on the clock and of CPU, the most memory; -9 as exit where it took too long."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    exit: int


class Measured(msgspec.Struct):
    """One run of a client: its cost, how many prompts have their right answer, and what the server counted."""

    cost: Cost
    prompts: int
    right: int
    faulty: int
    server: dict[str, Any]

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU a prompt, start-up included."""
        return self.cost.cpu_s * 1000 / self.prompts

    @property
    def per_s(self) -> float:
        """Prompts a second from the first request to the last answer."""
        return self.right / self.server["span_s"] if self.server["span_s"] else 0.0

    @property
    def fine(self) -> bool:
        """Whether every prompt has exactly its answer."""
        return self.right == self.prompts and not self.faulty and self.cost.exit == 0


class FastServer:
    """The fast server as a child process."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.base_url = process, f"http://127.0.0.1:{port}"

    def stats(self) -> dict[str, Any]:
        """What it counted so far."""
        with urllib.request.urlopen(self.base_url + "/stats", timeout=30) as response:
            return json.load(response)


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[FastServer]:
    """A server of its own."""
    command = [sys.executable, "-m", "tests.bench.fast_server", msgspec.json.encode(behaviour).decode()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield FastServer(process, int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def write_prompts(path: Path, count: int) -> Path:
    """``{"id": "000000017", "prompt": "Say …"}`` lines."""
    with path.open("w") as sink:
        for number in range(count):
            sink.write(f'{{"id": "{number:09d}", "prompt": "{prompt_text(number)}"}}\n')
    return path


def lean(provider: str = "openai", *, processes: int = 1) -> list[str]:
    """The yardstick's command, to which ``measure`` adds the rest."""
    return [_PLAIN, "-m", "tests.bench.lean", "--provider", provider, "--processes", str(processes)]


def ours(provider: str = "openai", *more: str, python: str = _PLAIN) -> list[str]:
    """batchchat's command, to which ``measure`` adds the rest."""
    model = ["--model", "canned"] if provider == "openai" else []
    return [python, "-m", "batchchat", "run", "--provider", provider, "--quiet", *model, *more]


def client(name: str) -> list[str]:
    """The command of another tool."""
    return [str(python_of(name)), "-m", f"tests.bench.peers.{PEERS[name].driver}", "--provider", PEERS[name].provider]


def run_command(
    command: Sequence[str], folder: Path, limit_s: float = 300, state: Path | None = None, quiet: bool = False
) -> Cost:
    """Runs a command, with the caches and settings of nobody; all its children end after ``limit_s``.

    Args:
        state: Folder of what several runs share; None for a run by itself.
        quiet: Whether its standard output is thrown away.
    """
    figures, log = folder / "figures.json", folder / "log.txt"
    # Without compiled modules a start costs several times as much, for any client that was not installed with them.
    unfit = ("BATCHCHAT_", "PYTHONDONTWRITEBYTECODE")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(unfit)}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder), "XDG_STATE_HOME": str(state or folder)}
    launcher = [sys.executable, "-S", str(Path(__file__).with_name("launcher.py")), str(figures)]
    figures.unlink(missing_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else sink,
            stderr=sink,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return Cost(limit_s, 0.0, 0.0, -9)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return msgspec.json.decode(figures.read_bytes(), type=Cost)


def measure(
    command: Sequence[str],
    folder: Path,
    behaviour: Behaviour,
    *,
    prompts: int,
    concurrency: int = 64,
    more: Sequence[str] = (),
    limit_s: float = 300,
) -> Measured:
    """Gives a client so many prompts and a server of its own.

    Args:
        command: See ``ours``, ``lean`` and ``client``.
        folder: What is written there is gone afterwards.
        more: Options beyond those that every client takes.
    """
    work = folder / "work"
    work.mkdir()
    try:
        source, results = write_prompts(work / "prompts.jsonl", prompts), work / "results.jsonl"
        paths = [str(source), "-o", str(results)] if "batchchat" in command else ["--input", str(source)]
        if "batchchat" not in command:
            paths += ["--output", str(results)]
        with serving(behaviour) as server:
            where = ["--base-url", server.base_url]
            where += [] if "--concurrency" in more else ["--concurrency", str(concurrency)]
            cost = run_command([*command, *paths, *where, *more], work, limit_s)
            stats = server.stats()
        right, faulty = _verify(results, behaviour)
        return Measured(cost, prompts, right, faulty, stats)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _verify(path: Path, behaviour: Behaviour) -> tuple[int, int]:
    """Prompts with a right line; lines that are cut, another prompt's, or one too many. Any tool's output will do."""
    found: Counter[int] = Counter()
    faulty = 0
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if (reply := _REPLY.search(line)) is None:
                    continue
                number = int(reply[1])
                asked = _ASKED.search(line)
                same = asked is None or int(next(group for group in asked.groups() if group)) == number
                if same and line.endswith("\n") and reply[0] == expected_reply(number, behaviour):
                    found[number] += 1
                else:
                    faulty += 1
    return len(found), faulty + sum(found.values()) - len(found)
