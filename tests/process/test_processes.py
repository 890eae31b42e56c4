"""``--processes``: one run over several children, whatever happens to them."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchchat.devserver.state import worst_window
from tests.runs import (
    Server,
    assert_all_answered,
    children_of,
    finish,
    is_running,
    kill,
    read_lines,
    serving,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
CHILD = "batchchat.processes.child"
PROVIDERS = {"ai-engine": [], "openai": ["--provider", "openai", "--model", "m"]}
# A request may take a while to be read by a server on a busy machine.
_JITTER_S = 0.3
both = pytest.mark.parametrize("provider", PROVIDERS)


def start(server: Server, folder: Path, *more: str, provider: str = "ai-engine", processes: int = 2, **how: Any) -> Any:
    how.setdefault("env", {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")})
    settings = [*PROVIDERS[provider], "--processes", str(processes), *more]
    return start_run(server, folder / "in.jsonl", folder / "out.jsonl", *settings, **how)


@contextmanager
def half_way(folder: Path, *more: str, count: int = 200, **scenario: Any) -> Iterator[tuple[Server, Any, list[int]]]:
    """A run over two processes that has met a part of its prompts."""
    write_prompts(folder / "in.jsonl", count)
    with serving(folder, **{"latency_ms": 15, "latency_jitter": 1} | scenario) as server:
        process = start(server, folder, *more)
        server.wait_for_chats(count // 4)
        yield server, process, children_of(process.pid, CHILD)
        kill(process)
        process.communicate()


@both
@pytest.mark.parametrize("processes", [2, 3])
def test_every_prompt_is_answered_once_and_by_several_processes(tmp_path: Path, provider: str, processes: int) -> None:
    write_prompts(tmp_path / "in.jsonl", 120)
    with serving(tmp_path, latency_ms=400) as server:  # it is at work for as long as its children are looked for
        process = start(server, tmp_path, provider=provider, processes=processes)
        server.wait_for_chats(20)
        assert len(children_of(process.pid, CHILD)) == processes - 1, "the run itself is one of them"
        code, out, err = finish(process)
        assert (code, out) == (0, ""), err
        assert set(server.asked().values()) == {1}
        assert Counter(request["kind"] for request in server.requests())["session"] <= 1
    assert_all_answered(tmp_path / "out.jsonl", range(120))
    report = json.loads((tmp_path / "out.run.json").read_text())
    assert report["requests"] == len(server.requests()), "each request is counted once"


@pytest.mark.parametrize("limit", [[], ["--rate", "200/s", "--rate-scope", "host"]], ids=["free", "host"])
def test_killed_child_costs_an_attempt_and_is_replaced(tmp_path: Path, limit: list[str]) -> None:
    with half_way(tmp_path, "-v", *limit) as (server, process, children):
        os.kill(children[0], signal.SIGKILL)
        code, _, err = finish(process)
        assert code == 0, err
        assert "worker process" in err
        assert "SIGKILL" in err
        assert "Traceback" not in err
        assert "Warning" not in err
        assert sum(server.asked().values()) - 200 <= 16, "only what it had in flight is asked twice"
    assert_all_answered(tmp_path / "out.jsonl", range(200))
    assert not [pid for pid in children if is_running(pid)]


def test_killed_parent_leaves_no_child_and_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    with half_way(tmp_path) as (server, process, children):
        assert len(children) == 1
        os.kill(children[0], signal.SIGSTOP)
        kill(process)
        finish(process)
        wait_until(lambda: not any(is_running(pid) for pid in children))
        code, _, err = finish(start(server, tmp_path))
        assert code == 0, err
        assert sum(server.asked().values()) - 200 <= 16
    assert_all_answered(tmp_path / "out.jsonl", range(200))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
@pytest.mark.parametrize("group", [False, True])
def test_first_signal_lets_prompts_in_flight_finish(tmp_path: Path, number: int, code: int, group: bool) -> None:
    """As from a terminal, the whole group may get it."""
    with half_way(tmp_path, "--concurrency", "6", latency_ms=300) as (server, process, children):
        if group:
            os.killpg(process.pid, number)
        else:
            kill(process, number)
        found, _, err = finish(process)
        assert found == code, err
        assert "Traceback" not in err
        met = len(server.chats())
        assert met < 200
        assert len(read_lines(tmp_path / "out.jsonl")) == met, "what was in flight was answered and kept"
        assert not [pid for pid in children if is_running(pid)]


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    with half_way(tmp_path, "--concurrency", "6", latency_ms=0, count=40, stall_before=0.5) as (_, process, children):
        kill(process, signal.SIGINT)
        while "stopping" not in process.stderr.readline():  # else both signals may become one
            assert process.poll() is None
        kill(process, signal.SIGINT)
        code, _, err = finish(process)
        assert code == 130, err
        assert not [pid for pid in children if is_running(pid)]


@pytest.mark.clocked
@both
def test_rate_holds_over_all_processes(tmp_path: Path, provider: str) -> None:
    """A rate that is not shared would be exceeded by four."""
    write_prompts(tmp_path / "in.jsonl", 120)
    with serving(tmp_path, latency_ms=10) as server:
        code, _, err = finish(start(server, tmp_path, "--rate", "40/s", provider=provider, processes=4))
        assert code == 0, err
        assert worst_window([request["time_s"] for request in server.requests()], 1.0 - _JITTER_S) <= 40
    assert_all_answered(tmp_path / "out.jsonl", range(120))


def test_pause_that_a_service_asks_for_holds_every_process(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 60)
    with serving(tmp_path, latency_ms=5, error_429=0.05, retry_after=1) as server:
        code, _, err = finish(start(server, tmp_path, "-v", processes=3))
        assert code == 0, err
        assert "waiting 1 s, as the service asks" in err
    assert_all_answered(tmp_path / "out.jsonl", range(60))


@pytest.mark.parametrize("option", [[], ["--no-nonce-cache"]])
def test_nonce_is_fetched_once_for_all_processes(tmp_path: Path, option: list[str]) -> None:
    write_prompts(tmp_path / "in.jsonl", 90)
    with serving(tmp_path, latency_ms=20, nonce_uses=40) as server:
        code, _, err = finish(start(server, tmp_path, "--concurrency", "30", *option))
        assert code == 0, err
        sessions = sum(request["kind"] == "session" for request in server.requests())
        assert sessions == 3, "90 prompts, 40 to a nonce"
    assert_all_answered(tmp_path / "out.jsonl", range(90))
    assert list((tmp_path / "cache").glob("*/nonce-*.json")) == [] or not option


@both
def test_faults_are_met_as_by_one_process(tmp_path: Path, provider: str) -> None:
    write_prompts(tmp_path / "in.jsonl", 150)
    faults = {"error_500": 0.05, "cut_mid_event": 0.05, "reset_before": 0.03, "empty_reply": 0.03}
    with serving(tmp_path, latency_ms=5, **faults) as server:
        code, _, err = finish(start(server, tmp_path, provider=provider))
        assert code == 0, err
    assert_all_answered(tmp_path / "out.jsonl", range(150))
    attempts = json.loads((tmp_path / "out.run.json").read_text())["attempts"]
    assert attempts["answered"] == 150
    assert {"server", "incomplete"} <= attempts.keys()
    assert sum(attempts.values()) == len(server.chats())


@pytest.mark.parametrize("limit", [[], ["--rate", "100/s"]])
def test_attempts_without_an_answer_cost_what_they_cost_with_one_process(tmp_path: Path, limit: list[str]) -> None:
    """What went to the wire counts, however the child told of it."""
    write_prompts(tmp_path / "in.jsonl", 12)
    reports = []
    for processes in (1, 2):
        with serving(tmp_path, content_null=0.5) as server:
            (tmp_path / "out.jsonl").unlink(missing_ok=True)
            more = ["--retries", "0", *limit]
            code, _, err = finish(start(server, tmp_path, *more, provider="openai", processes=processes))
            assert code == 1, err
        reports.append(json.loads((tmp_path / "out.run.json").read_text()))
    one, two = reports
    assert one["estimated_requests"] == one["attempts"]["incomplete"] > 0
    assert {key: two[key] for key in ("usage", "attempts", "requests", "estimated_requests")} == {
        key: one[key] for key in ("usage", "attempts", "requests", "estimated_requests")
    }


def test_order_of_the_input_is_kept(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 80)
    with serving(tmp_path, latency_ms=20, latency_jitter=1) as server:
        code, _, err = finish(start(server, tmp_path, "--order", "input"))
        assert code == 0, err
    assert [line["id"] for line in read_lines(tmp_path / "out.jsonl")] == [f"q-{n}" for n in range(80)]


@pytest.mark.parametrize(
    ("scenario", "options", "code"),
    [
        ({"error_500": 1}, ["--retries", "0"], 1),
        ({"auth_refused": "true"}, [], 4),
        ({"error_500": 1}, ["--retries", "0", "--max-failures", "2"], 5),
    ],
)
def test_exit_codes_are_those_of_one_process(
    tmp_path: Path, scenario: dict[str, Any], options: list[str], code: int
) -> None:
    write_prompts(tmp_path / "in.jsonl", 30)
    with serving(tmp_path, **scenario) as server:
        found, _, err = finish(start(server, tmp_path, *options, provider="openai"))
    assert found == code, err
    assert "Traceback" not in err


def run_with_package(
    folder: Path, complete: str, *more: str, count: int = 30, chats: int = 0
) -> "subprocess.CompletedProcess[str]":
    """A run over two processes of a provider from a package of the user's, whose ``complete`` is this."""
    package = folder / "packages"
    told = package / "odd-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[batchchat.providers]\nodd = odd:Odd\n")
    (package / "odd.py").write_text(
        "import asyncio, os, msgspec\n"
        "from batchchat.records import Completion\n"
        "class Config(msgspec.Struct):\n    pass\n"
        "class Odd:\n"
        "    kind, Config = 'odd', Config\n"
        "    def __init__(self, config, context): self.gate = context.gate\n"
        "    async def __aenter__(self): return self\n"
        "    async def __aexit__(self, *_): pass\n"
        "    def identity(self, prompt, params): return {'m': prompt.messages}\n"
        f"    async def complete(self, request): {complete}\n"
        "    async def stream(self, request): yield None\n"
    )
    write_prompts(folder / "in.jsonl", count)
    with (folder / "in.jsonl").open("a") as source:
        source.writelines(f'{{"id": "c-{n}", "chat_id": "chat {n}", "prompt": "hello {n}"}}\n' for n in range(chats))
    command = [sys.executable, "-m", "batchchat", "run", "in.jsonl", "-o", "out.jsonl", "--provider", "odd"]
    paths = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [*command, "--processes", "2", *more],
        cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip


def test_child_that_dies_again_and_again_ends_the_run(tmp_path: Path) -> None:
    """The run's own process asks nothing that might end it too."""
    done = run_with_package(tmp_path, "os._exit(3)", "--retries", "50")
    assert done.returncode == 4, done.stderr
    assert "it ended with exit code 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_own_process_asks_beside_its_child(tmp_path: Path) -> None:
    answer = "await asyncio.sleep(0.005); return Completion(text=f'{os.getpid()} {os.getppid()}')"
    done = run_with_package(tmp_path, answer, "--concurrency", "32", count=600)
    assert done.returncode == 0, done.stderr
    askers = Counter(line["response"] for line in read_lines(tmp_path / "out.jsonl"))
    assert len(askers) == 2
    (child, by_child), (own, by_own) = askers.most_common()
    assert child.split()[1] == own.split()[0], askers
    assert by_child > by_own > 0


def test_conversations_are_a_childs_affair(tmp_path: Path) -> None:
    """The service knows them by cookies, which one process has."""
    answer = "await asyncio.sleep(0.005); return Completion(text=str(os.getppid()))"
    done = run_with_package(tmp_path, answer, "--concurrency", "32", count=300, chats=600)
    assert done.returncode == 0, done.stderr
    parents = {line["response"] for line in read_lines(tmp_path / "out.jsonl") if line["id"].startswith("c-")}
    assert len(parents) == 1
    everyone = {line["response"] for line in read_lines(tmp_path / "out.jsonl")}
    assert len(everyone) == 2, "other prompts are asked by the run's own process too"


def test_script_without_a_main_guard_runs_it(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 20)
    with serving(tmp_path) as server:
        script = tmp_path / "script.py"
        script.write_text(
            "import batchchat\n"
            "job = batchchat.load_job(None, {'input': ['in.jsonl'], 'output.path': 'out.jsonl', 'processes': 2,\n"
            f"  'provider.name': 'openai', 'provider.model': 'm', 'provider.base_url': '{server.base_url}'}})\n"
            "report = batchchat.run_job_sync(job)\n"
            "print(report.answered)\n"
        )
        done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout.strip()) == (0, "20"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_is_stopped_while_its_processes_start_ends_at_once(tmp_path: Path, number: int) -> None:
    write_prompts(tmp_path / "in.jsonl", 20)
    with serving(tmp_path, latency_ms=50) as server:
        process = start(server, tmp_path, processes=4)
        wait_until(lambda: process.poll() is not None or len(children_of(process.pid, CHILD)) >= 2)
        kill(process, number)
        code, _, err = finish(process)
        assert code == 128 + number, err
        assert "Traceback" not in err
        assert len(server.chats()) < 20


def test_stopped_child_is_silence_and_is_replaced(tmp_path: Path) -> None:
    """It cannot keep its own time limits; the parent asks it for a sign of life."""
    with half_way(tmp_path, "--timeout", "2s", count=60, latency_ms=60) as (server, process, children):
        os.kill(children[0], signal.SIGSTOP)
        code, _, err = finish(process)
        assert code == 0, err
        assert "Traceback" not in err
        assert not [pid for pid in children if is_running(pid)]
        assert server.asked().total() >= 60  # more, if any of its requests was on the wire
    assert_all_answered(tmp_path / "out.jsonl", range(60))
    assert json.loads((tmp_path / "out.run.json").read_text())["attempts"]["timeout"] > 0


def test_prompts_that_ask_the_same_are_sent_once(tmp_path: Path) -> None:
    lines = [f'{{"id": "q-{n}", "prompt": "question {n % 10}"}}\n' for n in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    with serving(tmp_path, latency_ms=20) as server:
        code, _, err = finish(start(server, tmp_path, "--dedup", processes=3))
        assert code == 0, err
        assert sorted(server.asked().values()) == [1] * 10
    assert len(read_lines(tmp_path / "out.jsonl")) == 60


def test_budget_holds_over_all_processes(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 60)
    (tmp_path / "job.yaml").write_text("prices: {'*': {input: 1000, output: 1000}}\nstop: {budget_usd: 0.1}\n")
    with serving(tmp_path, latency_ms=20) as server:
        more = ["-j", str(tmp_path / "job.yaml"), "--param", "max_tokens=4"]
        code, _, err = finish(start(server, tmp_path, *more, provider="openai", processes=3))
        assert code == 5, err
        answered = len(server.chats())
    assert 0 < answered < 60
    assert json.loads((tmp_path / "out.run.json").read_text())["cost_usd"] <= 0.1
    assert len(read_lines(tmp_path / "out.jsonl")) == answered


def test_retry_goes_to_another_endpoint_also_by_another_process(tmp_path: Path) -> None:
    """With one endpoint that fails always, each prompt is answered by its second attempt at the latest."""
    write_prompts(tmp_path / "in.jsonl", 12)
    with serving(tmp_path) as good, serving(tmp_path, error_500=1) as bad:
        (tmp_path / "job.yaml").write_text(
            f"provider: {{name: openai, model: m, endpoints: [{{base_url: '{bad.base_url}'}}, "
            f"{{base_url: '{good.base_url}'}}]}}\n"
        )
        command = [sys.executable, "-m", "batchchat", "run", "in.jsonl", "-o", "out.jsonl", "-j", "job.yaml"]
        done = subprocess.run(
            [*command, "--processes", "2", "--retries", "1", "--concurrency", "4"],
            cwd=tmp_path, capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(good.chats()) == 12
    assert_all_answered(tmp_path / "out.jsonl", range(12))
