"""Batch lines of the Responses API as chat completions that ask for the same."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batchchat.input_lines import read_ask
from tests.runs import BATCHCHAT, read_lines, serving


def ask(body: Any, url: str = "/v1/responses") -> Any:
    return read_ask({"custom_id": "a", "method": "POST", "url": url, "body": body}, None, None)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_text_and_instructions_become_messages() -> None:
    found = ask({"model": "m", "input": "Hi", "instructions": "Be brief.", "max_output_tokens": 5, "temperature": 0})
    assert found.messages == [{"role": "system", "content": "Be brief."}, user("Hi")]
    assert (found.model, found.params) == ("m", {"temperature": 0, "max_completion_tokens": 5})


def test_every_part_that_chat_completions_know_is_translated() -> None:
    items = [
        {"role": "developer", "content": "S"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"}, {"type": "input_file", "filename": "a.pdf", "file_data": "data:…"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "So"}]},
        user("Go on"),
    ]  # fmt: skip
    found = ask({"model": "m", "input": items}, url="https://api.example.org/openai/v1/responses?api-version=1")
    assert found.messages == [
        {"role": "developer", "content": "S"},
        user([{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}, {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:…"}}]),
        {"role": "assistant", "content": None, "tool_calls": [{"id": i, "type": "function", "function": {"name": n, "arguments": "{}"}} for i, n in (("c1", "f"), ("c2", "g"))]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "content": [{"type": "text", "text": "So"}]},
        user("Go on"),
    ]  # fmt: skip


def test_parameters_are_those_of_chat_completions() -> None:
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    body = {
        "model": "m",
        "input": "x",
        "text": {"format": {"type": "json_schema"} | schema, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "tool_choice": {"type": "function", "name": "f"},
        "top_logprobs": 2,
        "metadata": {"a": "b"},
        "stream": True,
        "background": False,
        "include": [],
        "truncation": "auto",
        "previous_response_id": None,
    }
    assert ask(body).params == {
        "metadata": {"a": "b"},
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "verbosity": "low",
        "reasoning_effort": "low",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }
    assert ask({"input": "x", "text": {"format": {"type": "text"}}, "tool_choice": "auto"}).params == {
        "tool_choice": "auto"
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "expected text or a list in 'body.input', found null"),
        ({"input": 5}, "expected text or a list in 'body.input', found an integer"),
        ({"input": []}, "expected a user message that is not empty in 'body.input', found an empty list"),
        ({"input": " "}, "expected a user message that is not empty in 'body.input', found none"),
        ({"input": ["x"]}, "expected a message in 'body.input[0]', found text"),
        ({"input": [{"type": "item_reference"}]}, "expected a message in 'body.input[0]', found the type 'item_reference'"),
        ({"input": [{"content": "x"}]}, "expected a role (text) in 'body.input[0].role'"),
        ({"input": [user([{"type": "input_image", "file_id": "f"}])]}, "found the type 'input_image'"),
        ({"input": [user([5])]}, "found an integer"),
        ({"input": "x", "previous_response_id": "r"}, "found 'previous_response_id' in 'body'"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "expected tools of the type 'function'"),
        ({"input": "x", "model": 5}, "expected text in 'body.model'"),
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_has_no_form_there_is_a_fault(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        ask(body)
    assert reason in str(caught.value)


@pytest.mark.process
@pytest.mark.parametrize("provider", ["ai-engine", "openai"])
def test_batch_lines_of_both_kinds_run_with_every_provider(tmp_path: Path, provider: str) -> None:
    chat = {
        "custom_id": "c",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [user("one")]},
    }
    responses = {
        "custom_id": "r",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"model": "m", "input": "two", "max_output_tokens": 50},
    }
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (chat, responses)))
    with serving(tmp_path) as server:
        command = [
            *BATCHCHAT,
            "run",
            "in.jsonl",
            "-o",
            "r.jsonl",
            "--provider",
            provider,
            "--base-url",
            server.base_url,
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"OPENAI_API_KEY": "x"}, capture_output=True, text=True, timeout=50
        )
    assert done.returncode == 0, done.stderr
    assert {line["id"]: line["response"] for line in read_lines(tmp_path / "r.jsonl")} == {
        "c": "Echo: one",
        "r": "Echo: two",
    }
