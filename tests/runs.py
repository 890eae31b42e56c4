"""Real runs for tests: the command line as a child process, and the development server beside it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.nursery import ServerProcess, start_server

BATCHCHAT = [sys.executable, "-m", "batchchat"]
_LIMIT_S = 50.0


class Server:
    """``batchchat serve`` as a child process; what it was asked is in its log."""

    def __init__(self, process: "ServerProcess | subprocess.Popen[str]", base_url: str, log: Path) -> None:
        self.process, self.base_url, self._log = process, base_url, log

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def chats(self) -> list[dict[str, Any]]:
        """Requests that carried a prompt."""
        return [request for request in self.requests() if request["kind"] == "chat"]

    def asked(self) -> Counter[str]:
        """How often each prompt text was sent."""
        return Counter(request["prompt"] for request in self.chats())

    def wait_for_chats(self, count: int) -> None:
        """Returns when so many prompts have arrived."""
        wait_until(lambda: self._log.exists() and self._log.read_bytes().count(b'"chat"') >= count)


@contextlib.contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Server]:
    """A server with scenario keys as given."""
    log = folder / f"server-{len(list(folder.glob('server-*')))}.log"
    arguments = [f"--set={key}={value}" for key, value in settings.items()]
    process = start_server(["serve", "--port", "0", "--log", str(log), *arguments])
    try:
        line = process.stdout.readline()
        yield Server(process, json.loads(line)["base_url"], log)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def wait_until(condition: Any, limit_s: float = _LIMIT_S) -> None:
    """Returns when the condition holds; fails after a generous while."""
    give_up = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up, "waited too long"
        time.sleep(0.005)


def write_prompts(path: Path, count: int, *, start: int = 0) -> Path:
    """``{"id": "q-N", "prompt": "question N"}`` lines."""
    path.write_text("".join(f'{{"id": "q-{n}", "prompt": "question {n}"}}\n' for n in range(start, start + count)))
    return path


def run_arguments(server: Server | str, prompts: Path | str, results: Path | str, *more: str) -> list[str]:
    """The command line of a run against the server."""
    base_url = server if isinstance(server, str) else server.base_url
    return [
        *BATCHCHAT,
        "run",
        str(prompts),
        "-o",
        str(results),
        "--provider",
        "ai-engine",
        "--base-url",
        base_url,
        *more,
    ]


def start_run(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Starts a run in its own process group."""
    return start_command(run_arguments(*arguments), **options)


def start_command(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Starts a command in its own process group."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process that ends by itself."""
    out, err = process.communicate(timeout=_LIMIT_S)
    return process.returncode, out, err


def run(*arguments: Any, **options: Any) -> tuple[int, str, str]:
    """Runs to the end."""
    return finish(start_run(*arguments, **options))


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Sends a signal to the process alone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def children_of(pid: int, module: str) -> list[int]:
    """The child processes that run a module of batchchat's."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read_proc(task).split():
            if module.encode() in _read_proc(Path(f"/proc/{int(child)}/cmdline")):
                found.append(int(child))
    return found


def _read_proc(path: Path) -> bytes:
    """A file of /proc; empty where its thread or process has ended since it was listed."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def is_running(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; every line must be whole."""
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def assert_all_answered(path: Path, numbers: Iterable[int]) -> None:
    """Exactly one right line for each prompt, and no other."""
    lines = read_lines(path)
    assert sorted(line["id"] for line in lines) == sorted(f"q-{n}" for n in numbers)
    for line in lines:
        assert line["response"] == f"Echo: question {line['id'][2:]}"
        assert line["error"] is None
