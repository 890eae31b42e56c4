"""Answers that must be JSON: asked again with the reason, kept when they fit, told with their text when they never do."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError, ResultsMismatchError
from batchchat.streaming import stream
from tests.integration.test_run_job import Listener, run
from tests.runs import read_lines, write_prompts

SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
GOOD = '{"answer": 7}'


async def ask(server: DevServer, tmp_path: Path, count: int = 1, **settings: Any):
    prompts = tmp_path / "prompts.jsonl"
    if not prompts.exists():
        write_prompts(prompts, count)
    settings = {"provider__name": "openai", "answer__schema": SCHEMA} | settings
    if settings["provider__name"] == "openai":
        settings["provider__model"] = "m"
    report = await run(server, prompts, tmp_path / "results.jsonl", **settings)
    return report, read_lines(tmp_path / "results.jsonl"), read_lines(tmp_path / "results.errors.jsonl")


@pytest.mark.parametrize("provider", ["openai", "ai-engine"])
async def test_an_unfit_answer_is_asked_again_with_the_reason_in_the_same_conversation(tmp_path, provider: str):
    async with DevServer(Scenario(replies=("no idea", '{"answer": "x"}', GOOD))) as server:
        report, answers, errors = await ask(server, tmp_path, 3, provider__name=provider)
    assert report.exit_code == 0
    assert errors == []
    assert {(line["attempts"], line["response"], line["parsed"]["answer"]) for line in answers} == {(3, GOOD, 7)}
    assert report.attempts == {"answered": 3, "invalid_response": 6}
    asked = [request.prompt for request in server.chats if request.prompt.startswith("That answer")]
    assert sum("expected JSON, found 'no idea'" in text for text in asked) == 3
    assert sum("'x' is not of type 'integer'" in text for text in asked) == 3


async def test_what_never_fits_becomes_an_error_with_the_last_text(tmp_path):
    listener = Listener()
    async with DevServer(Scenario(replies=("first", "second", "third", "fourth"))) as server:
        report, answers, errors = await ask(server, tmp_path, answer__schema_retries=1, listener=listener)
        assert len(server.chats) == 2
    assert report.exit_code == 1
    assert answers == []
    (error,) = errors
    assert error["error"]["type"] == "invalid_response"
    assert error["error"]["partial"] == "second"
    assert error["error"]["retryable"] is False
    assert error["attempts"] == 2
    assert error["usage"]["output_tokens"] == 2
    assert [failed[2] for failed in listener.failed_attempts] == ["invalid_response"] * 2


async def test_usage_is_that_of_all_requests(tmp_path):
    async with DevServer(Scenario(replies=("one two three", GOOD))) as server:
        _, (line,), _ = await ask(server, tmp_path)
    assert line["usage"]["output_tokens"] == 3 + 2


async def test_failures_of_attempts_are_retried_inside_a_re_ask(tmp_path):
    async with DevServer(Scenario(replies=("no", GOOD), fail_first=1)) as server:
        report, (line,), _ = await ask(server, tmp_path)
    assert report.exit_code == 0
    assert line["parsed"] == {"answer": 7}
    assert report.attempts["server"] >= 1


async def test_a_tool_call_is_an_answer_without_json(tmp_path):
    async with DevServer(Scenario(tool_call=1.0)) as server:
        report, (line,), _ = await ask(server, tmp_path)
    assert report.exit_code == 0
    assert line["response"] is None
    assert "parsed" not in line


async def test_only_the_last_turn_must_fit(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"id": 1, "turns": ["one", "two"]}\n')
    async with DevServer(Scenario(replies=("free text", "no", GOOD))) as server:
        _, (line,), _ = await ask(server, tmp_path)
    assert line["responses"] == ["free text", GOOD]
    assert line["parsed"] == {"answer": 7}


async def test_extract_alone_wants_json_and_puts_its_value_beside(tmp_path):
    async with DevServer(Scenario(replies=("none", '{"a": {"b": [1, 2]}}'))) as server:
        _, (line,), _ = await ask(server, tmp_path, answer__schema=None, answer__extract="a.b[1]")
    assert line["value"] == 2
    assert line["parsed"] == {"a": {"b": [1, 2]}}


async def test_the_batch_form_holds_both_in_its_own_key(tmp_path):
    async with DevServer(Scenario(replies=(GOOD,))) as server:
        _, (line,), _ = await ask(server, tmp_path, output__format="openai-batch", answer__extract="answer")
    assert line["response"]["body"]["choices"][0]["message"]["content"] == GOOD
    assert line["batchchat"]["parsed"] == {"answer": 7}
    assert line["batchchat"]["value"] == 7


async def test_half_a_surrogate_pair_in_the_answer_does_not_break_its_line(tmp_path):
    async with DevServer(Scenario(replies=('{"answer": "\\ud83d"}',))) as server:
        report, (line,), _ = await ask(server, tmp_path, answer__schema={"type": "object"})
    assert report.exit_code == 0
    assert line["parsed"] == {"answer": "\ufffd"}


async def test_another_schema_is_another_question_and_another_expression_is_not(tmp_path):
    async with DevServer(Scenario(replies=(GOOD,))) as server:
        await ask(server, tmp_path, answer__extract="answer")
        report, _, _ = await ask(server, tmp_path, answer__extract="other")
        assert report.answered_before == 1
        with pytest.raises(ResultsMismatchError):
            await ask(server, tmp_path, answer__schema={"type": "object"})


async def test_a_schema_from_a_file_and_its_faults(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    async with DevServer(Scenario(replies=(GOOD,))) as server:
        _, (line,), _ = await ask(server, tmp_path, answer__schema=str(path))
        assert line["parsed"] == {"answer": 7}
        path.write_text('{"type": "int"}')
        with pytest.raises(ConfigError, match=r"schema\.json: this is no JSON Schema"):
            await ask(server, tmp_path, answer__schema=str(path))
        with pytest.raises(ConfigError, match="is an input"):
            await ask(server, tmp_path, answer__schema=str(path), errors=str(path))
        assert json.loads(path.read_text()) == {"type": "int"}
        assert len(server.chats) == 1


async def test_a_long_answer_fits_like_a_short_one(tmp_path):
    long = json.dumps({"answer": 7, "items": ["x" * 10] * 20_000})
    async with DevServer(Scenario(replies=(json.dumps({"answer": "y" * 50_000}), long))) as server:
        report, (line,), _ = await ask(server, tmp_path)
    assert report.exit_code == 0
    assert len(line["parsed"]["items"]) == 20_000
    assert report.attempts == {"answered": 1, "invalid_response": 1}


async def test_the_last_text_is_kept_where_the_service_refuses_to_be_asked_again(tmp_path):
    async with DevServer(Scenario(replies=("no idea",), text_input_max_length=100)) as server:
        report, answers, (error,) = await ask(server, tmp_path, provider__name="ai-engine")
    assert report.exit_code == 1
    assert answers == []
    assert error["error"]["type"] != "invalid_response"
    assert error["error"]["partial"] == "no idea"
    assert "found 'no idea'" in error["error"]["message"]


@pytest.mark.parametrize("retries", [0, 3])
async def test_no_unfit_answer_counts_as_answered_attempt(tmp_path, retries: int):
    async with DevServer(Scenario(replies=("no",))) as server:
        report, _, (error,) = await ask(server, tmp_path, answer__schema_retries=retries)
    assert report.attempts == {"invalid_response": retries + 1}
    assert error["attempts"] == retries + 1


async def test_the_errors_of_unfit_answers_are_input_for_another_try(tmp_path):
    async with DevServer(Scenario(replies=("no",))) as server:
        await ask(server, tmp_path, 3)
        server.scenario = Scenario(replies=(GOOD,))
        errors, results = tmp_path / "results.errors.jsonl", tmp_path / "results.jsonl"
        settings = {"provider__name": "openai", "provider__model": "m", "answer__schema": SCHEMA}
        report = await run(server, errors, results, **settings)
    assert report.exit_code == 0
    assert sorted(line["id"] for line in read_lines(results)) == ["q-0", "q-1", "q-2"]


async def test_a_deadline_of_the_prompt_ends_asking_again(tmp_path):
    async with DevServer(Scenario(replies=("no",), latency_ms=200)) as server:
        _, _, (error,) = await ask(server, tmp_path, answer__schema_retries=1000, timeout__prompt=0.7)
    assert error["error"]["type"] == "timeout"
    assert "the answer does not fit" in error["error"]["message"]


async def test_a_stop_between_two_askings_leaves_the_prompt_to_be_asked(tmp_path):
    async with DevServer(Scenario(replies=("no",), latency_ms=20)) as server:
        report, answers, errors = await ask(server, tmp_path, answer__schema_retries=10_000, timeout__run=0.5)
    assert report.exit_code == 5
    assert (report.pending, answers, errors) == (1, [], [])


async def test_stream_takes_a_schema_and_an_expression(tmp_path):
    async with DevServer(Scenario(replies=("no", GOOD))) as server:
        provider = {"name": "openai", "model": "m", "base_url": server.base_url}
        outcomes = [
            outcome async for outcome in stream(["a", "b"], provider=provider, answer_schema=SCHEMA, extract="answer")
        ]
    assert [(outcome.parsed, outcome.value) for outcome in outcomes] == [({"answer": 7}, 7)] * 2
