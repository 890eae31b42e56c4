"""One rate over real processes, as the server's log has it, whatever happens to some of them."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from batchchat.devserver.state import worst_window
from tests.runs import (
    Server,
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run,
    serving,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = [pytest.mark.clocked, pytest.mark.process]

# A request may take a while to be read by a server on a busy machine; a limit that is not shared is exceeded by far.
_JITTER_S = 0.3


def start(server: Server, folder: Path, number: int, count: int, *more: str) -> "subprocess.Popen[str]":
    prompts = write_prompts(folder / f"prompts-{number}.jsonl", count, start=1000 * number)
    results = folder / f"results-{number}.jsonl"
    return start_run(server, prompts, results, "--rate-scope", "host", "--concurrency", "4", *more)


def assert_within(server: Server, count: int, per_s: float = 1.0) -> None:
    assert worst_window([request["time_s"] for request in server.requests()], per_s - _JITTER_S) <= count


def of_run(server: Server, number: int) -> list[float]:
    """When the prompts of one run arrived."""
    return [chat["time_s"] for chat in server.chats() if int(chat["prompt"].split()[1]) // 1000 == number]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_one_rate(tmp_path: Path, processes: int) -> None:
    each = 80 // processes
    with serving(tmp_path, latency_ms=20) as server:
        runs = [start(server, tmp_path, number, each, "--rate", "20/s") for number in range(processes)]
        ends = [finish(process) for process in runs]
        assert [code for code, _, _ in ends] == [0] * processes, ends
        assert_within(server, 20)
        starts = [of_run(server, number)[0] for number in range(processes)]
    for number in range(processes):
        assert_all_answered(tmp_path / f"results-{number}.jsonl", range(1000 * number, 1000 * number + each))
    assert max(starts) - min(starts) < 20, "each had its turn"
    assert "all runs on this machine" in ends[0][2]
    folder = Path(os.environ["XDG_STATE_HOME"]) / "batchchat" / "limits"
    assert len([path for path in folder.iterdir() if path.suffix != ".lock"]) == 1, "who left is forgotten"


def test_killed_and_stopped_processes_break_no_limit_and_block_nobody(tmp_path: Path) -> None:
    with serving(tmp_path, latency_ms=20) as server:
        killed, stopped, other = (start(server, tmp_path, number, 60, "--rate", "20/s") for number in range(3))
        server.wait_for_chats(20)
        kill(killed)
        kill(stopped, signal.SIGSTOP)
        seen = len(of_run(server, 2))
        wait_until(lambda: len(of_run(server, 2)) >= min(60, seen + 25))
        kill(stopped, signal.SIGCONT)
        resumed = start(server, tmp_path, 0, 60, "--rate", "20/s")
        ends = [finish(process) for process in (stopped, other, resumed)]
        finish(killed)
        assert [code for code, _, _ in ends] == [0, 0, 0], ends
        assert_within(server, 20)
    for number in range(3):
        assert_all_answered(tmp_path / f"results-{number}.jsonl", range(1000 * number, 1000 * number + 60))


def test_one_run_after_the_other_counts_what_was_sent_before(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for number in range(3):
            code, _, err = finish(start(server, tmp_path, number, 3, "--rate", "10/s", "--burst", "10"))
            assert code == 0, err
        assert_within(server, 10)


def test_pause_that_one_is_asked_for_holds_for_all(tmp_path: Path) -> None:
    """The second process meets no refusal and yet sends nothing for as long as the first was told to wait."""
    with serving(tmp_path, fail_first=1, fail_with="error_429", retry_after=3) as server:
        first = start(server, tmp_path, 0, 1, "--rate", "50/s")
        server.wait_for_chats(1)
        wait_until(lambda: _told_of_pause(tmp_path))
        second = start(server, tmp_path, 1, 1, "--rate", "50/s")
        ends = [finish(process) for process in (first, second)]
        assert [code for code, _, _ in ends] == [0, 0], ends
        times = sorted(chat["time_s"] for chat in server.chats())
    assert times[1] - times[0] >= 2.9


def _told_of_pause(folder: Path) -> bool:
    limits = Path(os.environ["XDG_STATE_HOME"]) / "batchchat" / "limits"
    return any(b"\x06lcb" in path.read_bytes() for path in limits.iterdir())


def test_another_key_has_a_limit_of_its_own(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        runs = []
        for number in range(2):
            prompts = write_prompts(tmp_path / f"prompts-{number}.jsonl", 8, start=1000 * number)
            results = tmp_path / f"results-{number}.jsonl"
            more = ("--provider", "openai", "--model", "m", "--rate", "2/s", "--rate-scope", "host")
            runs.append(start_run(server, prompts, results, *more, env={**os.environ, "OPENAI_API_KEY": f"k{number}"}))
        ends = [finish(process) for process in runs]
        assert [code for code, _, _ in ends] == [0, 0], ends
        for number in range(2):
            assert worst_window(of_run(server, number), 1.0 - _JITTER_S) <= 2


def test_folder_that_cannot_be_written_refuses_to_run(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    with serving(tmp_path) as server:
        prompts = write_prompts(tmp_path / "prompts.jsonl", 3)
        code, _, err = run(server, prompts, tmp_path / "out.jsonl", "--rate-scope", "host", env=environ)
        assert not server.requests()
    assert code == 2
    assert err.count("\n") == 1
    assert "rate_scope: host" in err
    assert "use --rate-scope run" in err


def test_folder_that_goes_bad_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "batchchat" / "limits"
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    with serving(tmp_path) as server:
        prompts = write_prompts(tmp_path / "prompts.jsonl", 200)
        arguments = (server, prompts, tmp_path / "out.jsonl", "--rate-scope", "host", "--rate", "20/s")
        process = start_run(*arguments, env=environ)
        server.wait_for_chats(10)
        folder.rename(tmp_path / "gone")
        folder.write_text("a file")
        for path in (tmp_path / "gone").iterdir():
            path.unlink()
        code, _, err = finish(process)
        assert code == 5, err
        assert "Traceback" not in err
        assert "use --rate-scope run" in err
        assert len(read_lines(tmp_path / "out.jsonl")) < 200
        folder.unlink()
        assert run(*arguments[:3], env=environ)[0] == 0
    assert_all_answered(tmp_path / "out.jsonl", range(200))


def test_garbled_file_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert finish(start(server, tmp_path, 0, 3, "--rate", "20/s"))[0] == 0
        limits = Path(os.environ["XDG_STATE_HOME"]) / "batchchat" / "limits"
        (path,) = (path for path in limits.iterdir() if path.suffix == "")
        path.write_bytes(b"\x00\xffnonsense" * 99)
        began = time.monotonic()
        code, _, err = finish(start(server, tmp_path, 1, 3, "--rate", "20/s"))
    assert code == 0, err
    assert err.count("cannot be read") == 1
    assert str(path) in err
    assert time.monotonic() - began >= 1.0, "it counts as full"
