"""Whatever ends a run, the next one goes on: no answer lost, no prompt with two lines."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.runs import (
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run,
    run_arguments,
    serving,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = pytest.mark.process


@pytest.mark.parametrize("moment", [1, 9, 60, 150, 280])
def test_killed_run_loses_only_what_was_in_flight(tmp_path: Path, moment: int) -> None:
    """SIGKILL when the server has met so many prompts; the same command again finishes the rest."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 300), tmp_path / "out" / "results.jsonl"
    with serving(tmp_path, latency_ms=10, latency_jitter=1) as server:
        process = start_run(server, prompts, results, "--concurrency", "8")
        server.wait_for_chats(moment)
        kill(process)
        assert finish(process)[0] == -signal.SIGKILL
        code, _, err = run(server, prompts, results, "--concurrency", "8")
        assert code == 0, err
        asked = server.asked()
    assert_all_answered(results, range(300))
    assert sum(asked.values()) - 300 <= 8, "only what was in flight is asked twice"
    assert (tmp_path / "out" / "results.errors.jsonl").read_bytes() == b""


def test_killed_three_times_and_resumed_to_the_end(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 200), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=10) as server:
        for moment in (30, 80, 130):
            process = start_run(server, prompts, results, "--concurrency", "8")
            server.wait_for_chats(moment)
            kill(process)
            finish(process)
        assert run(server, prompts, results)[0] == 0
    assert_all_answered(results, range(200))


def test_finished_run_sends_nothing_again(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 5), tmp_path / "results.jsonl"
    with serving(tmp_path) as server:
        assert run(server, prompts, results)[0] == 0
        before = results.read_bytes()
        code, out, err = run(server, prompts, results)
        assert (code, out) == (0, "")
        assert "5 of 5 answered (5 before this run)" in err
        assert len(server.chats()) == 5
    assert results.read_bytes() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_first_signal_lets_prompts_in_flight_finish(tmp_path: Path, number: int, code: int) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 100), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=400) as server:
        process = start_run(server, prompts, results, "--concurrency", "4")
        server.wait_for_chats(6)
        met_before = len(server.chats())
        kill(process, number)
        returncode, _, err = finish(process)
        met = len(server.chats())
        assert returncode == code, err
        assert met - met_before <= 4, "nothing new is sent"
        assert len(read_lines(results)) == met, "what was in flight was answered and kept"
        assert "Traceback" not in err
        resume = next(line for line in err.splitlines() if "to resume:" in line)
        assert str(prompts) in resume
        assert str(results) in resume
        assert (tmp_path / "results.errors.jsonl").read_bytes() == b"", "interrupted prompts are pending, not failed"
        assert run(server, prompts, results, "--concurrency", "50")[0] == 0
    assert_all_answered(results, range(100))


def test_second_signal_ends_at_once_with_whole_lines(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 20), tmp_path / "results.jsonl"
    with serving(tmp_path, stall_before=1) as server:
        process = start_run(server, prompts, results, "--concurrency", "4", "-v")
        server.wait_for_chats(4)
        kill(process, signal.SIGINT)
        wait_until(lambda: "stopping" in process.stderr.readline())
        kill(process, signal.SIGINT)
        code, _, err = finish(process)
    assert code == 130, err
    assert read_lines(results) == []


def test_grace_time_bounds_the_wait_after_a_signal(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 20), tmp_path / "results.jsonl"
    with serving(tmp_path, stall_before=1) as server:
        process = start_run(server, prompts, results, "--concurrency", "4", "--grace", "300ms")
        server.wait_for_chats(4)
        kill(process, signal.SIGTERM)
        assert finish(process)[0] == 143


def test_second_run_on_the_same_results_is_refused(tmp_path: Path) -> None:
    """As when cron starts a job that is still at work."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 30), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=300) as server:
        first = start_run(server, prompts, results, "--concurrency", "2")
        server.wait_for_chats(3)
        code, _, err = run(server, prompts, results)
        assert code == 75
        assert f"process {first.pid}" in err
        assert "Traceback" not in err
        kill(first, signal.SIGKILL)
        finish(first)
        assert run(server, prompts, results, "--concurrency", "30")[0] == 0, "a dead run holds nothing"
    assert_all_answered(results, range(30))


def test_reader_of_standard_output_that_goes_away_ends_the_run_quietly(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 300)
    with serving(tmp_path, latency_ms=5) as server:
        process = start_run(server, prompts, "-", "--concurrency", "4", "--quiet")
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        code, _, err = finish(process)
    assert code == 6
    assert "Traceback" not in err
    assert "Error" not in err


def test_full_disk_stops_the_run_and_keeps_every_answer(tmp_path: Path) -> None:
    """The results may grow to 4 kB (RLIMIT_FSIZE); what arrives later is kept elsewhere and told."""
    import resource

    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 100), tmp_path / "results.jsonl"
    spill = tmp_path / "spill"
    spill.mkdir()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    with serving(tmp_path, latency_ms=20) as server:
        process = start_run(
            server, prompts, results, "--concurrency", "8", preexec_fn=limit, env={**os.environ, "TMPDIR": str(spill)}
        )
        code, _, err = finish(process)
        met = len(server.chats())
        assert code == 6, err
        assert "Traceback" not in err
        kept = read_lines(results)
        spilled = [line for path in spill.glob("batchchat-spill-*") for line in read_lines(path)]
        assert len(kept) + len(spilled) == met, "every answer is in one of the two places"
        assert met < 100, "nothing new is sent after the first failure"
        assert run(server, prompts, results)[0] == 0
    assert_all_answered(results, range(100))


def test_full_device_as_results_ends_with_its_own_code(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 10)
    with serving(tmp_path) as server:
        code, _, err = run(server, prompts, "/dev/full")
    assert code == 6
    assert "/dev/full" in err
    assert "Traceback" not in err


def test_standard_error_that_is_full_does_not_stop_the_run(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 10), tmp_path / "results.jsonl"
    with serving(tmp_path) as server, open("/dev/full", "w") as full:
        process = start_run(server, prompts, results, "-vv")
        assert finish(process)[0] == 0
        second = tmp_path / "second.jsonl"
        assert subprocess.run(run_arguments(server, prompts, second, "-vv"), stderr=full, check=False).returncode == 0
    assert_all_answered(second, range(10))


def test_results_cut_at_any_byte_are_resumed(tmp_path: Path) -> None:
    """The file as a crash might leave it: cut inside its last two lines."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 4), tmp_path / "results.jsonl"
    with serving(tmp_path) as server:
        assert run(server, prompts, results, "--order", "input")[0] == 0
        whole = results.read_bytes()
        lines = whole.splitlines(keepends=True)
        tail = len(lines[-1]) + len(lines[-2])
        for cut in (1, 2, len(lines[-1]) // 2, len(lines[-1]), len(lines[-1]) + 1, len(lines[-1]) + 40, tail - 1):
            results.write_bytes(whole[:-cut])
            code, _, err = run(server, prompts, results)
            assert code == 0, err
            assert_all_answered(results, range(4))


def test_next_run_uses_the_stored_nonce(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 3), tmp_path / "results.jsonl"
    with serving(tmp_path) as server:
        assert run(server, prompts, results)[0] == 0
        assert run(server, write_prompts(tmp_path / "more.jsonl", 3, start=3), results)[0] == 0
        assert [request["kind"] for request in server.requests()].count("session") == 1
        third = tmp_path / "third.jsonl"
        assert run(server, prompts, third, "--no-nonce-cache")[0] == 0
        assert [request["kind"] for request in server.requests()].count("session") == 2


def test_stream_is_resumed_and_counted_too(tmp_path: Path) -> None:
    """A stream cannot be checked before, but what it repeats is not asked again."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 6), tmp_path / "results.jsonl"
    with serving(tmp_path) as server:
        for expected in ("6 of 6 answered, 0 failed", "6 of 6 answered (6 before this run), 0 failed"):
            with open(prompts, "rb") as stream:
                done = subprocess.run(
                    run_arguments(server, "-", results),
                    stdin=stream,
                    capture_output=True,
                    text=True,
                    timeout=50,
                    check=False,
                )
            assert done.returncode == 0, done.stderr
            assert expected in done.stderr
        assert len(server.chats()) == 6
        prompts.write_text(prompts.read_text().replace("question 3", "other"))
        for options, words in (
            ((), "--on-change redo asks again"),
            (("--on-change", "redo"), "needs the prompts as a file"),
        ):
            with open(prompts, "rb") as stream:
                done = subprocess.run(
                    run_arguments(server, "-", results, *options),
                    stdin=stream,
                    capture_output=True,
                    text=True,
                    timeout=50,
                    check=False,
                )
            assert done.returncode == 3
            assert words in done.stderr
    assert_all_answered(results, range(6))
