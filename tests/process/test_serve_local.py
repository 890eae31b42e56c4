"""``batchchat serve --backend local``: a real model's text in both protocols, with every fault of the scenarios."""

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real_servers import Environment, local_environment
from tests.runs import BATCHCHAT, finish, read_lines, start_command

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(300)]
QUESTION = "What is the capital of France? Answer in one sentence."


@pytest.fixture(scope="module")
def local() -> Environment:
    return local_environment()


@contextlib.contextmanager
def serving(local: Environment, *more: str) -> Iterator[str]:
    child = subprocess.Popen(
        [local.python, "-m", "batchchat", "serve", "--port", "0", "--backend", "local", *more],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield json.loads(child.stdout.readline())["base_url"]
    finally:
        child.terminate()
        assert child.wait(20) == 0
        child.stdout.close()


@pytest.fixture(scope="module")
def server(local: Environment) -> Iterator[str]:
    with serving(local) as base_url:
        yield base_url


def ask(base_url: str, folder: Path, provider: str, *more: str, prompt: str = QUESTION) -> tuple[int, str]:
    (folder / "in.jsonl").write_text(json.dumps({"id": 1, "prompt": prompt}) + "\n")
    model = ("--model", "any") if provider == "openai" else ()
    command = [*BATCHCHAT, "run", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"), "--provider", provider]
    return finish(start_command([*command, "--base-url", base_url, *model, *more]))[::2]


def post(base_url: str, path: str, body: dict[str, Any], **headers: str) -> bytes:
    request = urllib.request.Request(
        base_url + path, json.dumps(body).encode(), {"Content-Type": "application/json"} | headers
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def chat(base_url: str, **more: Any) -> bytes:
    body = {"model": "any", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0} | more
    return post(base_url, "/v1/chat/completions", body)


def events(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: {")]


@pytest.mark.parametrize("provider", ["openai", "ai-engine"])
def test_a_run_gets_the_models_text_and_tokens(server: str, tmp_path: Path, provider: str) -> None:
    code, err = ask(server, tmp_path, provider)
    assert code == 0, err
    (line,) = read_lines(tmp_path / "out.jsonl")
    assert not line["response"].startswith("Echo")
    assert line["usage"]["input_tokens"] > 30
    assert line["usage"]["output_tokens"] > 3


def test_a_streamed_and_a_whole_answer_are_the_same(server: str) -> None:
    whole = json.loads(chat(server))
    told = events(chat(server, stream=True, stream_options={"include_usage": True}))
    pieces = [event["choices"][0]["delta"].get("content", "") for event in told if event["choices"]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert len([piece for piece in pieces if piece]) > 3
    assert told[0]["choices"][0]["delta"]["role"] == "assistant"
    assert told[-2]["choices"][0]["finish_reason"] == "stop"
    assert told[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] > 3


def test_a_limit_that_is_asked_for_holds_and_is_told(server: str) -> None:
    whole = json.loads(chat(server, max_tokens=3))
    assert (whole["choices"][0]["finish_reason"], whole["usage"]["completion_tokens"]) == ("length", 3)


def test_live_events_of_ai_engine_join_to_the_reply_of_the_end(server: str) -> None:
    nonce = json.loads(post(server, "/wp-json/mwai/v1/start_session", {}))["restNonce"]
    body = {"botId": "default", "newMessage": QUESTION, "stream": True, "temperature": 0}
    told = events(post(server, "/wp-json/mwai-ui/v1/chats/submit", body, **{"X-WP-Nonce": nonce}))
    assert [event["type"] for event in told] == ["live"] * (len(told) - 1) + ["end"]
    assert len(told) > 4
    end = json.loads(told[-1]["data"])
    assert "".join(event["data"] for event in told[:-1]).strip() == end["reply"]


def test_the_first_piece_comes_before_the_answer_is_whole(server: str) -> None:
    """The model is at work for as long as hundreds of tokens take; the first event is there before their last."""
    body = {"model": "any", "messages": [{"role": "user", "content": "Count to 500."}], "stream": True}
    request = urllib.request.Request(
        server + "/v1/chat/completions",
        json.dumps(body | {"temperature": 0, "max_tokens": 200}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        sizes = []
        while chunk := answer.read1(1 << 16):
            sizes.append(len(chunk))
    assert len(sizes) > 20


def test_orders_to_the_echo_and_the_list_of_models_are_as_ever(server: str, tmp_path: Path) -> None:
    code, err = ask(server, tmp_path, "ai-engine", prompt="/long 50")
    assert code == 0, err
    assert len(read_lines(tmp_path / "out.jsonl")[0]["response"]) == 50


@pytest.mark.parametrize("provider", ["openai", "ai-engine"])
def test_a_prompt_longer_than_the_context_fails_alone(server: str, tmp_path: Path, provider: str) -> None:
    code, err = ask(server, tmp_path, provider, "--retries", "0", prompt="word " * 4000)
    assert code == 1, err
    assert "Traceback" not in err


@pytest.mark.parametrize("fault", ["error_500", "cut_mid_event", "cut_mid_character", "error_event"])
def test_faults_hold_and_the_answer_comes_when_they_are_over(local: Environment, tmp_path: Path, fault: str) -> None:
    with serving(local, "--set", "fail_first=1", "--set", f"fail_with={fault}") as base_url:
        for provider, prompt in (("openai", QUESTION), ("ai-engine", f"{QUESTION} Please.")):
            (tmp_path / provider).mkdir()
            code, err = ask(base_url, tmp_path / provider, provider, prompt=prompt)
            assert code == 0, err
            (line,) = read_lines(tmp_path / provider / "out.jsonl")
            assert line["attempts"] == 2
            assert line["usage"]["input_tokens"] > 30


def test_dialects_hold(local: Environment, tmp_path: Path) -> None:
    dialect = [f"--set={name}=true" for name in ("crlf", "comments", "multi_line_data", "bom", "no_last_newline")]
    with serving(local, *dialect) as base_url:
        code, err = ask(base_url, tmp_path, "openai")
        assert b"\r\n: keep-alive" in chat(base_url, stream=True)
    assert code == 0, err
    assert read_lines(tmp_path / "out.jsonl")[0]["usage"]["input_tokens"] > 30


def test_a_command_gets_the_models_answers(local: Environment, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": 1, "prompt": QUESTION}) + "\n")
    command = [local.python, "-m", "batchchat", "serve", "--port", "0", "--backend", "local", "--", *BATCHCHAT]
    command += ["run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--provider", "ai-engine"]
    code, out, err = finish(start_command(command))
    assert (code, out) == (0, ""), err
    assert read_lines(tmp_path / "out.jsonl")[0]["usage"]["input_tokens"] > 30


def test_the_responses_api_gets_the_models_text_too(server: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "version: 1\nprovider: {name: openai, model: any, api: responses}\n"
        "prompt: {system: 'Answer in one sentence.', params: {max_tokens: 4}}\n"
    )
    code, err = ask(server, tmp_path, "openai", "-j", str(tmp_path / "job.yaml"))
    assert code == 0, err
    (line,) = read_lines(tmp_path / "out.jsonl")
    assert not line["response"].startswith("Echo")
    assert (line["usage"]["output_tokens"], line["finish_reason"]) == (4, "length")
