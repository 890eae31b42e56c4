"""Real runs against a service that goes away and comes back, and ends that are all alike."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runs import (
    BATCHCHAT,
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

SHORT = "breaker: {failures: 5, after: 500ms, max_open: 40s}\nretry: {retries: 5}\n"


def short_breaker(folder: Path, text: str = SHORT) -> list[str]:
    path = folder / "job.yaml"
    path.write_text(text)
    return ["-j", str(path)]


def test_outage_is_told_costs_nothing_and_ends_by_itself(tmp_path) -> None:
    """The service is down for its first 8 requests, fetches of nonces included."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 30)
    job = short_breaker(tmp_path, SHORT.replace("after: 500ms", "after: 100ms"))
    with serving(tmp_path, down_until_request=8) as server:
        code, _, err = finish(start_run(server, prompts, tmp_path / "results.jsonl", *job, "--concurrency", "8"))
        assert set(server.asked().values()) == {1}
    assert code == 0, err
    assert_all_answered(tmp_path / "results.jsonl", range(30))
    assert err.count("the service does not answer; waiting, and asking from time to time") == 1
    assert err.count("the service answers again after ") == 1


def restart(folder: Path, port: int) -> subprocess.Popen[str]:
    """A server on a port that is known, with a log of its own."""
    return subprocess.Popen(
        [*BATCHCHAT, "serve", "--port", str(port), "--log", str(folder / f"again-{time.monotonic_ns()}.log"), "--set", "latency_ms=50"],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_server_that_is_restarted_in_mid_run_costs_no_prompt(tmp_path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 100)
    results = tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=50) as server:
        process = start_run(server, prompts, results, *short_breaker(tmp_path), "--concurrency", "4")
        server.wait_for_chats(20)
        server.process.kill()
        server.process.wait(10)
        time.sleep(2.5)
        again = restart(tmp_path, int(server.base_url.rpartition(":")[2]))
        try:
            code, _, err = finish(process)
        finally:
            again.terminate()
            again.wait(10)
            again.stdout.close()
    assert code == 0, err
    assert_all_answered(results, range(100))
    assert read_lines(tmp_path / "results.errors.jsonl") == []


def test_outage_longer_than_allowed_ends_with_4_and_everything_pending(tmp_path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 20)
    job = short_breaker(tmp_path)
    with serving(tmp_path, error_503=1) as server:
        code, _, err = finish(
            start_run(server, prompts, tmp_path / "results.jsonl", *job, "--max-outage", "2s", "--concurrency", "8")
        )
    assert code == 4, err
    assert "the service has not answered for " in err
    assert "(--max-outage): server: " in err
    assert "to resume: " in err
    summary = json.loads((tmp_path / "results.run.json").read_text())
    assert (summary["pending"], summary["failed"], summary["reason"]) == (20, 0, "service")
    assert read_lines(tmp_path / "results.errors.jsonl") == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_run_that_waits_for_its_service_at_once(tmp_path, number: int, code: int) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 20)
    with serving(tmp_path, error_503=1) as server:
        process = start_run(
            server, prompts, tmp_path / "results.jsonl", *short_breaker(tmp_path), "--concurrency", "8", "--log-format", "json"
        )  # fmt: skip
        for line in process.stderr:
            if json.loads(line)["event"] == "held":
                break
        kill(process, number)
        assert finish(process)[0] == code
    assert json.loads((tmp_path / "results.run.json").read_text())["pending"] == 20


# What stops a run, the words that tell, the exit code, and prompts that fail on the way.
STOPS: list[tuple[str, dict[str, Any], list[str], str, int]] = [
    ("deadline", {}, ["--deadline", "3s", "--rate", "3/s"], "--deadline", 5),
    ("budget", {}, ["--budget", "0.0001", "-j", "PRICES", "--rate", "20/s"], "the budget of", 5),
    ("failures", {"error_500": 0.5}, ["--max-failures", "3", "--retries", "0"], "--max-failures 3", 5),
    ("share", {"error_500": 0.5}, ["--max-failures", "10%", "--retries", "0"], "--max-failures 10%", 5),
    ("quota", {"quota_exhausted_after": 12}, [], "quota", 4),
    ("blocked", {"html_403": 0.7}, ["--concurrency", "1"], "blocked", 4),
    ("outage", {"down_from": 0}, ["-j", "SHORT", "--max-outage", "1s"], "--max-outage", 4),
]


@pytest.mark.parametrize(("name", "scenario", "more", "words", "code"), STOPS, ids=[stop[0] for stop in STOPS])
def test_every_end_before_the_last_prompt_is_alike(tmp_path, name, scenario, more, words: str, code: int) -> None:
    """Nothing new goes out, answers on their way are kept, the rest is pending, and the same command goes on."""
    count = 60
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", count), tmp_path / "results.jsonl"
    jobs = {"PRICES": "prices: {'*': {input: 1, output: 1}}\n", "SHORT": SHORT}
    arguments = []
    for word in more:
        if word in jobs:
            (tmp_path / "job.yaml").write_text(jobs[word])
        arguments.append(str(tmp_path / "job.yaml") if word in jobs else word)
    settings = {"error_503": 1} if name == "outage" else scenario
    with serving(tmp_path, latency_ms=100, **settings) as server:
        command = run_arguments(
            server, prompts, results, *arguments, *(() if "--concurrency" in more else ("--concurrency", "4"))
        )
        got, _, err = finish(start_command([*command, "--log-format", "json"]))
        events = [json.loads(line) for line in err.splitlines()]
        chats = server.chats()
    assert got == code, err
    told = [event["event"] for event in events if event["event"] not in ("held", "progress")]
    stopping = [
        event for event in events if event.get("message", "") and str(event["message"]).startswith("stopping: ")
    ]
    assert len(stopping) == 1
    assert words in stopping[0]["message"]
    assert told[0] == "run_started"
    assert told[-2:] == ["run_finished", "resume"]
    end = events[-2]
    answered, errors = read_lines(results), read_lines(tmp_path / "results.errors.jsonl")
    assert (end["exit_code"], end["answered"], end["failed"]) == (code, len(answered), len(errors))
    assert end["pending"] == count - len(answered) - len(errors)
    assert end["pending"] > 0
    # Every request that the service answered has its line.
    well = {request["prompt"] for request in chats if request["status"] == 200 and request["fault"] is None}
    assert {line["input"]["prompt"] for line in answered} == well
    assert len({line["id"] for line in answered}) == len(answered)
    summary = json.loads((tmp_path / "results.run.json").read_text())
    assert (summary["reason"], summary["pending"]) == ("limit" if code == 5 else "service", end["pending"])
    # The same command, without what stopped it, goes on: nothing that is answered is asked again.
    with serving(tmp_path) as server:
        code, _, err = finish(start_run(server, prompts, results))
        assert sum(server.asked().values()) == count - len(answered)
    assert code == 0, err
    assert_all_answered(results, range(count))


def test_answers_on_their_way_at_the_deadline_are_kept(tmp_path) -> None:
    """The last twentieth of the time is theirs."""
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 12), tmp_path / "results.jsonl"
    with serving(tmp_path) as server:
        process = start_run(server, prompts, results, "--deadline", "10s", "--rate", "1/s", "--no-nonce-cache")
        wait_until(lambda: len(server.chats()) >= 2)
        code, _, err = finish(process)
        assert code == 5, err
        assert len(read_lines(results)) == len(server.chats())
