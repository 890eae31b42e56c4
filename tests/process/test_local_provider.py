"""Provider ``local`` with a real model: what it promises on a machine with no account and no network."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.real_servers import Environment, local_environment
from tests.runs import finish, is_running, kill, read_lines, wait_until
from tests.runs import start_command as start

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(300)]
QUESTIONS = [f"What is the capital of {country}? Answer in one sentence." for country in ("France", "Italy", "Japan")]


@pytest.fixture(scope="module")
def local() -> Environment:
    return local_environment()


def command(local: Environment, folder: Path, *more: str, results: str = "answers.jsonl") -> list[str]:
    return [
        *(local.python, "-m", "batchchat", "run", str(folder / "prompts.jsonl"), "-o", str(folder / results)),
        *("--provider", "local", "--param", "temperature=0", *more),
    ]


def ask(local: Environment, folder: Path, *more: str, results: str = "answers.jsonl") -> tuple[int, str, str]:
    return finish(start(command(local, folder, *more, results=results)))


def prompts(folder: Path, texts: list[str], **keys: Any) -> None:
    lines = [json.dumps({"id": f"q-{number}", "prompt": text, **keys}) for number, text in enumerate(texts)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")


def servers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a run has started and that are at work."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"\nPPid:\t{process.pid}\n" in text and "\nState:\tZ" not in text:
            found.append(int(status.parent.name))
    return found


def test_answers_are_text_with_usage_and_the_same_on_a_second_run(local: Environment, tmp_path: Path) -> None:
    prompts(tmp_path, QUESTIONS)
    for name in ("one.jsonl", "two.jsonl"):
        code, _, err = ask(local, tmp_path, results=name)
        assert code == 0, err
    one, two = ({line["id"]: line for line in read_lines(tmp_path / name)} for name in ("one.jsonl", "two.jsonl"))
    assert "Paris" in one["q-0"]["response"]
    for key, line in one.items():
        assert line["response"] == two[key]["response"]
        assert line["fingerprint"] == two[key]["fingerprint"]
        assert line["finish_reason"] == "stop"
        assert line["provider"] == "local"
        assert line["model"].startswith("SmolLM2-135M-Instruct")
        assert line["usage"]["input_tokens"] > 10
        assert line["usage"]["output_tokens"] > 3


def test_a_second_run_of_the_same_results_starts_no_model(local: Environment, tmp_path: Path) -> None:
    prompts(tmp_path, QUESTIONS)
    assert ask(local, tmp_path)[0] == 0
    code, _, err = ask(local, tmp_path, "-vv")
    assert code == 0
    assert "model:" not in err


def test_an_answer_cut_by_max_tokens_says_so(local: Environment, tmp_path: Path) -> None:
    prompts(tmp_path, ["Tell me a long story."])
    assert ask(local, tmp_path, "--param", "max_tokens=5")[0] == 0
    (line,) = read_lines(tmp_path / "answers.jsonl")
    assert (line["finish_reason"], line["usage"]["output_tokens"]) == ("length", 5)


def test_the_model_of_a_batch_line_does_not_change_the_answer_or_the_fingerprint(
    local: Environment, tmp_path: Path
) -> None:
    for name, keys in (("one.jsonl", {}), ("two.jsonl", {"model": "gpt-5"})):
        prompts(tmp_path, QUESTIONS[:1], **keys)
        assert ask(local, tmp_path, results=name)[0] == 0
    (one,), (two,) = read_lines(tmp_path / "one.jsonl"), read_lines(tmp_path / "two.jsonl")
    assert (one["response"], one["fingerprint"]) == (two["response"], two["fingerprint"])


def test_a_prompt_longer_than_the_context_fails_alone(local: Environment, tmp_path: Path) -> None:
    prompts(tmp_path, [QUESTIONS[0], "word " * 3000])
    code, _, err = ask(local, tmp_path)
    assert code == 1, err
    (failed,) = read_lines(tmp_path / "answers.errors.jsonl")
    assert failed["id"] == "q-1"
    assert failed["error"]["type"] == "invalid_request"
    assert "context" in failed["error"]["message"]


def test_a_server_that_is_killed_is_started_again_and_no_prompt_is_lost(local: Environment, tmp_path: Path) -> None:
    prompts(tmp_path, [f"Count from {number} on." for number in range(8)])
    process = start(command(local, tmp_path, "--param", "max_tokens=60", "--concurrency", "2"))
    wait_until(lambda: (tmp_path / "answers.jsonl").exists() and (tmp_path / "answers.jsonl").stat().st_size)
    (server,) = servers_of(process)
    os.kill(server, signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 0, err
    assert "the model's server is started again: the system ended it with SIGKILL" in err
    assert len(read_lines(tmp_path / "answers.jsonl")) == 8


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_the_run(local: Environment, tmp_path: Path, number: int) -> None:
    prompts(tmp_path, [f"Count from {start} on." for start in range(8)])
    process = start(command(local, tmp_path, "--param", "max_tokens=100", "--concurrency", "2", "--grace", "1s"))
    wait_until(lambda: (tmp_path / "answers.jsonl").exists() and (tmp_path / "answers.jsonl").stat().st_size)
    (server,) = servers_of(process)
    kill(process, number)
    finish(process)
    wait_until(lambda: not is_running(server))


def test_an_interrupt_lets_answers_come_to_their_end(local: Environment, tmp_path: Path) -> None:
    """A terminal sends its Ctrl-C to all of its group; the model must go on with what is in flight."""
    prompts(tmp_path, [f"Count from {start} on." for start in range(30)])
    process = start(command(local, tmp_path, "--param", "max_tokens=60", "--concurrency", "2"))
    wait_until(lambda: (tmp_path / "answers.jsonl").exists() and (tmp_path / "answers.jsonl").stat().st_size)
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130, err
    assert (tmp_path / "answers.errors.jsonl").read_text() == ""


def test_a_broken_model_is_told_in_one_sentence(local: Environment, tmp_path: Path) -> None:
    prompts(tmp_path, QUESTIONS)
    model = subprocess.run(
        [local.python, "-m", "batchchat", "model", "path"], capture_output=True, text=True, check=True
    ).stdout.strip()
    cut = tmp_path / "cut.gguf"
    with open(model, "rb") as whole:
        cut.write_bytes(whole.read(3_000_000))
    code, out, err = ask(local, tmp_path, "--model", str(cut))
    assert (code, out) == (2, "")
    assert re.search(r"^batchchat: the server for model .*cut\.gguf does not start: .*", err, re.MULTILINE)
    assert "Traceback" not in err


def test_a_proxy_in_the_environment_plays_no_part(local: Environment, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-sent")
    prompts(tmp_path, QUESTIONS[:1])
    code, _, err = ask(local, tmp_path)
    assert code == 0, err


def test_comparing_models_is_refused_before_anything_is_sent(local: Environment, tmp_path: Path) -> None:
    code = (
        "from batchchat.providers.base import ProviderContext\n"
        "from batchchat.providers.local import LocalConfig, LocalModel\n"
        "from batchchat.records import Prompt\n"
        "model = LocalModel(LocalConfig(), ProviderContext())\n"
        "prompt = Prompt(id=1, index=0, line_number=1, messages=[], variant={'model': 'a'}, model='a')\n"
        "try:\n    model.check_prompt(prompt)\nexcept Exception as error:\n    print(error)"
    )
    done = subprocess.run([local.python, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stdout.startswith("provider local runs one model, so a job cannot compare several"), done.stderr
