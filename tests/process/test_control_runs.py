"""Runs in processes of their own, steered from another shell."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import (
    BATCHCHAT,
    Server,
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run_arguments,
    serving,
    start_command,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, latency_ms=100) as found:
        yield found


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl", 60)


SLOW = ("--concurrency", "3", "--rate", "3/s")  # so that a run does not end before another command has started


def call(*arguments: object, **options) -> tuple[int, str, str]:
    process = subprocess.run([*BATCHCHAT, *map(str, arguments)], capture_output=True, text=True, timeout=50, **options)
    return process.returncode, process.stdout, process.stderr


def test_pause_set_rate_and_resume_from_another_shell(server: Server, prompts: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    process = start_run(server, prompts, results, *SLOW)
    server.wait_for_chats(6)
    code, out, err = call("pause", results)
    assert (code, err) == (0, "")
    assert out.startswith(f"{results}: paused; nothing new is sent")
    met = len(server.chats())
    code, out, _ = call("status", results)
    assert code == 0
    assert "\n  paused   since " in out
    assert all(len(line) <= 60 for line in out.splitlines()[1:])
    code, out, _ = call("status", results, "--json")
    status = json.loads(out)
    assert status["live"]["state"] == "held"
    assert status["live"]["pid"] == process.pid == status["running"]["pid"]
    assert status["live"]["total"] == 60
    assert call("set-rate", results, "200/s", "100000/h")[:2] == (0, f"{results}: rate 200/s and 100000/h\n")
    assert len(server.chats()) == met, "nothing was sent meanwhile"
    assert call("resume", "results.jsonl", cwd=tmp_path)[:2] == (0, "results.jsonl: resumed\n")
    code, _, err = finish(process)
    assert code == 0
    assert err.count("another shell") == 3
    assert_all_answered(results, range(60))
    code, out, err = call("pause", results)
    assert (code, out) == (2, "")
    assert err == f"batchchat: {results}: no run is going on there; start one with 'batchchat run'\n"
    assert json.loads(call("status", results, "--json")[1])["live"] is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_paused_run_obeys_signals(server: Server, prompts: Path, tmp_path: Path, number: int, code: int) -> None:
    results = tmp_path / "results.jsonl"
    process = start_run(server, prompts, results, *SLOW)
    server.wait_for_chats(6)
    assert call("pause", results)[0] == 0
    kill(process, number)
    found, _, err = finish(process)
    assert found == code, err
    assert len(read_lines(results)) == len(server.chats())


def test_run_after_a_killed_one_takes_its_socket(server: Server, prompts: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    process = start_run(server, prompts, results, *SLOW)
    server.wait_for_chats(4)
    assert call("pause", results)[0] == 0
    kill(process)
    finish(process)
    code, _, err = call("resume", results)
    assert code == 2
    assert "no run is going on there" in err
    again = start_run(server, prompts, results, *SLOW)
    server.wait_for_chats(8)
    code, out, _ = call("status", results, "--json")
    live = json.loads(out)["live"]
    assert (live["pid"], live["holds"]) == (again.pid, []), "a pause ends with its run"
    assert call("set-rate", results, "none")[0] == 0
    assert finish(again)[0] == 0
    assert_all_answered(results, range(60))


def test_run_without_home_terminal_or_runtime_folder_is_found(server: Server, prompts: Path, tmp_path: Path) -> None:
    """A run from cron and a shell that has a runtime folder."""
    results = tmp_path / "results.jsonl"
    process = start_command(run_arguments(server, prompts, results, *SLOW), env={"LANG": "C"})
    server.wait_for_chats(2)
    with tempfile.TemporaryDirectory() as runtime:
        assert call("pause", results, env={**os.environ, "XDG_RUNTIME_DIR": runtime})[0] == 0
        assert call("resume", results, env={"XDG_RUNTIME_DIR": runtime})[0] == 0
    assert call("set-rate", results, "none")[0] == 0
    assert finish(process)[0] == 0


def test_run_that_is_stopped_by_the_system_is_told_from_its_files(
    server: Server, prompts: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    process = start_run(server, prompts, results, *SLOW)
    server.wait_for_chats(4)
    kill(process, signal.SIGSTOP)
    try:
        code, out, _ = call("status", results, "--json")
        assert code == 0
        assert json.loads(out)["live"] is None
        assert json.loads(out)["running"]["pid"] == process.pid
        code, _, err = call("pause", results)
        assert code == 2
        assert f"the run that holds it (process {process.pid}" in err
        assert "does not answer" in err
    finally:
        kill(process, signal.SIGCONT)
    assert call("set-rate", results, "none")[0] == 0
    code, _, err = finish(process)
    assert code == 0
    assert "paused" not in err, "what was given up is not done later"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["set-rate", "r.jsonl", "fast"], "expected a rate such as 200/s, 60/min, 1000/h or 10000/d, found 'fast'"),
        (["set-rate", "r.jsonl", "none", "5/s"], "none alone"),
        (["set-rate", "r.jsonl"], "Missing argument"),
        (["pause", "-"], "- is no file"),
        (["resume", "nowhere.jsonl"], "there is no such results file"),
    ],
)
def test_wrong_use_is_a_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    code, out, err = call(*arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def test_run_goes_on_where_nobody_can_listen(server: Server, prompts: Path, tmp_path: Path) -> None:
    """Every folder that could hold the socket is a file; told with -v only."""
    results = tmp_path / "results.jsonl"
    code = (
        "import batchchat.control.server as server, sys\n"
        f"server.folders = lambda: iter([{str(prompts)!r}])\n"
        "from batchchat.cli import main\nmain()"
    )
    arguments = run_arguments(server, prompts, results, "-v")[len(BATCHCHAT) :]
    process = start_command([sys.executable, "-c", code, *arguments])
    found, _, err = finish(process)
    assert found == 0, err
    assert "live control is not available: " in err
    wait_until(lambda: len(read_lines(results)) == 60)
