"""Provider ``openai`` against servers that no one here wrote: llama.cpp's, and LiteLLM's proxy in front of it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real_servers import Llama, litellm_environment, litellm_proxy, llama_server, local_environment
from tests.runs import BATCHCHAT, finish, read_lines, wait_until
from tests.runs import start_command as start

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(300)]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    with llama_server(local_environment(), tmp_path_factory.mktemp("llama") / "log") as server:
        yield server


# It takes a minute to install and to start, once for each worker of the tests.
SLOW_TO_COME = pytest.mark.slow


@pytest.fixture(scope="module", params=["llama.cpp", pytest.param("litellm", marks=SLOW_TO_COME)])
def service(request: Any, llama: Llama) -> Llama:
    """Both services, by one address and key."""
    served: Llama = llama if request.param == "llama.cpp" else request.getfixturevalue("litellm")
    return served


def ask(service: Llama, folder: Path, lines: list[dict[str, Any]], *more: str, **keys: str) -> tuple[int, str]:
    """Exit code and messages of a run over the lines."""
    return finish(begin(service, folder, lines, *more, **keys))[::2]


def begin(service: Llama, folder: Path, lines: list[dict[str, Any]], *more: str, **keys: str) -> Any:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"q-{number}"} | line) + "\n" for number, line in enumerate(lines)))
    model = () if "--model" in more else ("--model", "smollm2")
    command = [*BATCHCHAT, "run", str(path), "-o", str(folder / "answers.jsonl"), "--provider", "openai"]
    command += ["--base-url", service.base_url, "--param", "temperature=0", *model, *more]
    return start(command, env={**os.environ, "OPENAI_API_KEY": service.key} | keys)


def answers(folder: Path) -> list[dict[str, Any]]:
    return sorted(read_lines(folder / "answers.jsonl"), key=lambda line: line["index"])


def job(folder: Path, text: str) -> str:
    (folder / "job.yaml").write_text(f"version: 1\nprovider: {{{text}}}\n")
    return str(folder / "job.yaml")


def test_a_streamed_and_a_whole_answer_are_the_same(service: Llama, tmp_path: Path) -> None:
    found = []
    for stream in ("true", "false"):
        folder = tmp_path / stream
        folder.mkdir()
        code, err = ask(
            service,
            folder,
            [{"prompt": "What is the capital of France? Answer in one sentence."}],
            "-j",
            job(folder, f"stream: {stream}"),
        )
        assert code == 0, err
        (line,) = answers(folder)
        assert "Paris" in line["response"]
        assert line["finish_reason"] == "stop"
        assert line["usage"]["input_tokens"] > 30
        found.append((line["response"], line["usage"]["output_tokens"], line["fingerprint"]))
    assert found[0] == found[1]


def test_an_answer_cut_by_max_tokens_says_so(service: Llama, tmp_path: Path) -> None:
    assert ask(service, tmp_path, [{"prompt": "Tell me a long story."}], "--param", "max_tokens=5")[0] == 0
    (line,) = answers(tmp_path)
    assert (line["finish_reason"], line["usage"]["output_tokens"]) == ("length", 5)


def test_system_prompts_and_earlier_messages_reach_the_model(service: Llama, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "My name is Zoltan."}, {"role": "assistant", "content": "Hello Zoltan!"}]
    lines = [
        {"prompt": "Hi"},
        {"prompt": "Hi", "system": "You are a pirate and say nothing but: Arr!"},
        {"messages": [*said, {"role": "user", "content": "What is my name?"}]},
    ]
    code, err = ask(service, tmp_path, lines, "--param", "max_tokens=20")
    assert code == 0, err
    plain, pirate, named = answers(tmp_path)
    assert plain["response"] != pirate["response"]
    assert "Zoltan" in named["response"]


def test_an_answer_keeps_to_a_json_schema(service: Llama, tmp_path: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}
    lines = [{"prompt": "Make up a person.", "params": {"response_format": form, "max_tokens": 60}}]
    code, err = ask(service, tmp_path, lines)
    assert code == 0, err
    assert json.loads(answers(tmp_path)[0]["response"]).keys() == {"name", "age"}


def test_text_of_every_kind_comes_through(service: Llama, tmp_path: Path) -> None:
    lines = [
        {"prompt": text} for text in ("Grüße aus 東京 🙂 \u2028 \u0085", 'Say "quotes" \\ and\ttabs', "a\n\nb\r\n")
    ]
    code, err = ask(service, tmp_path, lines, "--param", "max_tokens=10")
    assert code == 0, err
    assert all(line["response"] for line in answers(tmp_path))


def test_a_wrong_key_stops_the_run(service: Llama, tmp_path: Path) -> None:
    lines = [{"prompt": f"question {number}"} for number in range(12)]
    code, err = ask(service, tmp_path, lines, "--concurrency", "2", OPENAI_API_KEY="sk-wrong-in-every-way")
    assert code == 4, err
    assert "sk-wrong" not in err
    failed = read_lines(tmp_path / "answers.errors.jsonl")
    assert {line["error"]["type"] for line in failed} == {"auth"}
    assert len(failed) < 12


def test_a_prompt_longer_than_the_context_fails_alone(service: Llama, tmp_path: Path) -> None:
    code, err = ask(service, tmp_path, [{"prompt": "Hi"}, {"prompt": "word " * 2000}], "--param", "max_tokens=5")
    assert code == 1, err
    (failed,) = read_lines(tmp_path / "answers.errors.jsonl")
    assert (failed["id"], failed["error"]["type"]) == ("q-1", "invalid_request")
    assert "context" in failed["error"]["message"]


def test_a_parameter_of_the_wrong_type_is_the_prompts_fault(service: Llama, tmp_path: Path) -> None:
    code, err = ask(service, tmp_path, [{"prompt": "Hi", "params": {"messages": []}}, {"prompt": "Hi", "params": {"max_tokens": "many"}}], "--retries", "0")  # fmt: skip
    assert code == 1, err
    (failed,) = read_lines(tmp_path / "answers.errors.jsonl")
    assert failed["error"]["type"] in ("invalid_request", "server")


def test_connections_closed_after_a_stream_cost_no_attempt(llama: Llama, tmp_path: Path) -> None:
    """llama.cpp's server announces keep-alive and closes all the same."""
    lines = [{"prompt": f"question {number}"} for number in range(40)]
    code, err = ask(llama, tmp_path, lines, "--param", "max_tokens=2", "--retries", "0", "--concurrency", "4")
    assert code == 0, err
    assert len(answers(tmp_path)) == 40


def test_a_server_that_dies_is_waited_for_and_no_answer_is_lost(tmp_path: Path) -> None:
    environment = local_environment()
    lines = [{"prompt": f"Count from {number} on."} for number in range(8)]
    more = ("--param", "max_tokens=40", "--concurrency", "2", "--retries", "9")
    with llama_server(environment, tmp_path / "log") as first:
        process = begin(first, tmp_path, lines, *more)
        wait_until(lambda: (tmp_path / "answers.jsonl").exists() and (tmp_path / "answers.jsonl").stat().st_size)
        first.process.kill()
        first.process.wait(10)
    port = int(first.base_url.rpartition(":")[2])
    with llama_server(environment, tmp_path / "log", port=port, key=first.key):
        code, _, err = finish(process)
    assert code == 0, err
    assert len(answers(tmp_path)) == 8
    assert max(line["attempts"] for line in answers(tmp_path)) > 1


def test_a_run_against_a_dead_server_is_resumed_against_a_new_one(tmp_path: Path) -> None:
    environment = local_environment()
    lines = [{"prompt": f"Count from {number} on."} for number in range(6)]
    more = ("--param", "max_tokens=20", "--concurrency", "1", "--retries", "0")
    with llama_server(environment, tmp_path / "log") as first:
        process = begin(first, tmp_path, lines, *more)
        wait_until(lambda: (tmp_path / "answers.jsonl").exists() and (tmp_path / "answers.jsonl").stat().st_size)
        first.process.kill()
        code, _, err = finish(process)
    assert code == 1, err
    done = answers(tmp_path)
    failed = read_lines(tmp_path / "answers.errors.jsonl")
    assert len(done) + len(failed) == 6
    assert {line["error"]["type"] for line in failed} <= {"network", "incomplete"}
    with llama_server(environment, tmp_path / "log") as second:
        code, err = ask(second, tmp_path, lines, *more)
    assert code == 0, err
    assert len(answers(tmp_path)) == 6
    assert [line for line in answers(tmp_path) if line in done] == done


@pytest.fixture(scope="module")
def litellm(llama: Llama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    with litellm_proxy(litellm_environment(), tmp_path_factory.mktemp("litellm"), llama) as server:
        yield server


@SLOW_TO_COME
def test_a_model_that_litellm_does_not_have_stops_the_run(litellm: Llama, tmp_path: Path) -> None:
    lines = [{"prompt": f"question {number}"} for number in range(12)]
    code, err = ask(litellm, tmp_path, lines, "--model", "no-such-model", "--concurrency", "2")
    assert code == 4, err
    failed = read_lines(tmp_path / "answers.errors.jsonl")
    assert {line["error"]["type"] for line in failed} == {"invalid_request"}
    assert "no-such-model" in failed[0]["error"]["message"]


@SLOW_TO_COME
def test_a_service_behind_litellm_that_is_away_is_asked_again(litellm: Llama, tmp_path: Path) -> None:
    code, err = ask(litellm, tmp_path, [{"prompt": "Hi"}], "--model", "away", "--retries", "1")
    assert code == 1, err
    (failed,) = read_lines(tmp_path / "answers.errors.jsonl")
    assert (failed["error"]["retryable"], failed["attempts"]) == (True, 2), failed["error"]


@SLOW_TO_COME
def test_a_rate_limit_of_litellm_is_one(litellm: Llama, tmp_path: Path) -> None:
    code, err = ask(litellm, tmp_path, [{"prompt": "Hi"}], "--model", "limited", "--retries", "0")
    assert code == 1, err
    (failed,) = read_lines(tmp_path / "answers.errors.jsonl")
    assert failed["error"]["type"] == "rate_limit", failed["error"]
