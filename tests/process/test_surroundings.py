"""What stands around a process, in its most unkind form."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs import (
    assert_all_answered,
    finish,
    kill,
    run,
    run_arguments,
    serving,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = pytest.mark.process

FORKING = """
import multiprocessing, sys, time
import batchchat

class Forking:
    forked = False
    def prompt_finished(self, outcome):
        if not self.forked:
            self.forked = True
            process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
            process.start()
            print(process.pid, flush=True)
    def __getattr__(self, name):
        return lambda *given: None

batchchat.run_job_sync(batchchat.load_job(sys.argv[1]), observers=[Forking()])
"""


def test_worker_that_was_forked_off_does_not_keep_the_results_locked(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 20), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=100) as server:
        (tmp_path / "job.yaml").write_text(
            f"version: 1\ninput: [{prompts}]\noutput: {{path: {results}}}\nconcurrency: 2\n"
            f'provider: {{name: ai-engine, base_url: "{server.base_url}"}}\n'
        )
        parent = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "job.yaml")], stdout=subprocess.PIPE
        )
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            code, _, err = run(server, prompts, results)
            assert code == 0, err
            os.kill(child, 0)  # it is still there
        finally:
            os.kill(child, 9)
            parent.stdout.close()
    assert_all_answered(results, range(20))


def test_answers_that_came_while_the_run_was_stopped_are_kept(tmp_path: Path) -> None:
    """Stopped for longer than every limit; nothing is asked twice, as the bytes are there."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 12), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=300) as server:
        process = start_run(
            server, prompts, results, "--concurrency", "4", "--timeout", "1s", "--idle-timeout", "500ms"
        )
        server.wait_for_chats(3)
        kill(process, 19)
        time.sleep(1.6)  # the time that passes for the run is what is tested
        kill(process, 18)
        code, _, err = finish(process)
        asked = server.asked()
    assert code == 0, err
    assert_all_answered(results, range(12))
    assert set(asked.values()) == {1}


def test_messages_that_nobody_reads_stop_no_job(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 1500), tmp_path / "results.jsonl"
    reading, writing = os.pipe()
    with serving(tmp_path) as server:
        process = subprocess.Popen(run_arguments(server, prompts, results, "-vv"), stderr=writing)
        os.close(writing)
        wait_until((tmp_path / "results.errors.jsonl").exists)  # made at the end
        assert_all_answered(results, range(1500))
        os.close(reading)
        assert process.wait(50) == 0
    assert json.loads((tmp_path / "results.run.json").read_bytes())["answered"] == 1500


@pytest.mark.parametrize(("name", "code"), [("results.jsonl", 2), ("{folder}/results.jsonl", 0)])
def test_working_folder_that_was_removed_matters_to_relative_names_only(tmp_path: Path, name: str, code: int) -> None:
    prompts, gone = write_prompts(tmp_path / "prompts.jsonl", 3), tmp_path / "gone"
    gone.mkdir()
    with serving(tmp_path) as server:
        command = run_arguments(server, prompts, name.format(folder=tmp_path))
        script = ["sh", "-c", 'rmdir "$0" && exec "$@"', str(gone), *command]
        done = subprocess.run(script, cwd=gone, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert ("the working folder was removed" in done.stderr) == (code == 2)
