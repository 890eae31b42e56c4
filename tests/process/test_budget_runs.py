"""The budget of real runs in real processes: how they end, what they say, and what stops them while they wait."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.runs import BATCHCHAT, finish, kill, read_lines, serving, write_prompts

PRICES = {"m": {"input": 1000, "output": 2000}}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"provider": {"name": "openai", "model": "m"}, "prices": PRICES}))
    write_prompts(tmp_path / "in.jsonl", 20)
    return path


def start(job: Path, server: Any, *more: str, stdin: Any = subprocess.DEVNULL) -> subprocess.Popen[str]:
    folder = job.parent
    inputs = [] if stdin is not subprocess.DEVNULL else [str(folder / "in.jsonl")]
    command = [*BATCHCHAT, "run", *inputs, "-j", str(job), "-o", str(folder / "r.jsonl"), "--base-url", server.base_url]
    return subprocess.Popen(
        [*command, *more], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )


def test_spent_budget_ends_with_5_a_sentence_and_the_command_that_resumes(tmp_path, job) -> None:
    with serving(tmp_path) as server:
        code, out, err = finish(start(job, server, "--budget", "0.1", "--param", "max_tokens=4"))
        assert (code, out) == (5, "")
        assert "the budget of $0.100 allows no further request" in err
        assert "to resume: batchchat run" in err
        assert "--budget 0.1" in err
        summary = json.loads((tmp_path / "r.run.json").read_text())
        assert summary["exit_code"] == 5
        assert summary["cost_usd"] <= 0.1
        assert summary["cost_usd"] == pytest.approx(len(read_lines(tmp_path / "r.jsonl")) * 0.008)
        assert f"cost ${summary['cost_usd']:.4f}" in err
        code, _, err = finish(start(job, server, "--budget", "10", "--param", "max_tokens=4"))
        assert code == 0
    status = subprocess.run(
        [*BATCHCHAT, "status", "r.jsonl", "-j", "job.json", "--json"], cwd=tmp_path, capture_output=True, check=True
    )
    found = json.loads(status.stdout)
    assert found["cost_usd"] == pytest.approx(0.16)
    assert found["usage"] == {"input_tokens": 40, "output_tokens": 60}
    assert found["price_sources"] == ["the job"]


def test_check_tells_what_is_left_and_whether_the_budget_is_enough(tmp_path, job) -> None:
    command = [*BATCHCHAT, "check", "in.jsonl", "-j", "job.json", "-o", "r.jsonl", "--param", "max_tokens=4"]
    command += ["--base-url", "http://127.0.0.1:9"]

    def check(*more: str) -> str:
        return subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "cost              $0.370 (prices: the job)\n" in check()
    assert "; the budget of $0.100 may not be enough\n" in check("--budget", "0.1")
    with serving(tmp_path) as server:
        finish(start(job, server, "--limit", "15"))
    text = check("--budget", "0.1")
    assert "already answered  15\n" in text
    found = json.loads(check("--json"))
    assert (found["prompts"], found["answered"], found["requests"]) == (20, 15, 5)
    assert found["cost_usd"]["low"] == found["cost_usd"]["high"] > 0


def test_json_log_ends_with_usage_and_cost(tmp_path, job) -> None:
    with serving(tmp_path) as server:
        code, _, err = finish(start(job, server, "--log-format", "json"))
    assert code == 0
    (finished,) = [event for event in map(json.loads, err.splitlines()) if event["event"] == "run_finished"]
    assert finished["usage"] == {"input_tokens": 40, "output_tokens": 60}
    assert finished["cost_usd"] == pytest.approx(0.16)
    assert finished["estimated_requests"] == 0


@pytest.mark.parametrize(("stop", "code"), [("signal", 130), ("deadline", 5)])
def test_run_that_waits_for_its_budget_can_be_stopped(tmp_path, job, stop: str, code: int) -> None:
    more = ["--budget", "0.2", "--param", "max_tokens=50", "--grace", "1s"]
    more += ["--deadline", "3s"] if stop == "deadline" else []
    with serving(tmp_path, latency_ms=60_000) as server:
        process = start(job, server, *more)
        server.wait_for_chats(1)
        if stop == "signal":
            kill(process, signal.SIGINT)
        assert finish(process)[0] == code
        assert len(server.chats()) == 1  # the others waited for what it would cost
    assert json.loads((tmp_path / "r.run.json").read_text())["pending"] == 20


def test_prompts_of_a_stream_without_a_price_fail_one_by_one(tmp_path, job) -> None:
    with serving(tmp_path) as server:
        process = start(job, server, "-", "--budget", "10", stdin=subprocess.PIPE)
        lines = '{"id": 1, "prompt": "a"}\n{"id": 2, "prompt": "b", "model": "dear"}\n{"id": 3, "prompt": "c"}\n'
        _, err = process.communicate(lines, timeout=50)
    assert process.returncode == 1, err
    assert {line["id"] for line in read_lines(tmp_path / "r.jsonl")} == {1, 3}
    (failed,) = read_lines(tmp_path / "r.errors.jsonl")
    assert failed["error"]["type"] == "invalid_request"
    assert "no price for model dear" in failed["error"]["message"]
