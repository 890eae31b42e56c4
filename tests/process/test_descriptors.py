"""A process that may open too few files says so, and one that may open few makes do."""

import resource
import subprocess
from pathlib import Path

import pytest

from tests.runs import assert_all_answered, run_arguments, serving, write_prompts

pytestmark = pytest.mark.process


@pytest.mark.parametrize("files", [8, 12, 16])
def test_too_few_files_are_told_in_a_sentence(tmp_path: Path, files: int) -> None:
    done = subprocess.run(
        run_arguments("http://127.0.0.1:9", write_prompts(tmp_path / "p.jsonl", 3), tmp_path / "r.jsonl"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ulimit -n" in done.stderr


def test_concurrency_beyond_the_limit_on_files_is_lowered(tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "p.jsonl", 300), tmp_path / "r.jsonl"
    with serving(tmp_path, latency_ms=5) as server:
        done = subprocess.run(
            run_arguments(server, prompts, results, "--concurrency", "200"),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
            capture_output=True,
            text=True,
            timeout=50,
        )
    assert done.returncode == 0, done.stderr
    assert "concurrency is 32 and not 200" in done.stderr
    assert_all_answered(results, range(300))
