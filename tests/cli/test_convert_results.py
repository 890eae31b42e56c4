"""``batchchat convert`` of results: tables with one schema, the hosted batch form, errors files, other services' output."""

import csv
import json
from pathlib import Path
from typing import Any

import openai.types.chat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchchat.forms.result_rows import RESULT_COLUMNS
from batchchat.results import name_files, read_status
from tests.conversions import Converter, convert, read_objects, write_lines
from tests.runs import run, serving, write_prompts

__all__ = ["convert"]


def answer(line_id: Any, **changes: Any) -> dict[str, Any]:
    """A result line as a run writes it."""
    line = {
        "id": line_id, "response": "Because …", "error": None, "finish_reason": "stop", "model": "m",
        "usage": {"input_tokens": 9, "output_tokens": 80}, "attempts": 1, "latency_s": 3.21, "first_delta_s": 0.84,
        "finished_at": "2026-11-25T10:03:11.120Z", "provider": "openai", "index": 0, "fingerprint": "9f2c61d0a7b3e418",
        "input": {"prompt": "Why?", "topic": "physics"},
    }  # fmt: skip
    return line | changes


def failure(line_id: Any, **changes: Any) -> dict[str, Any]:
    """An error line as a run writes it."""
    error = {"type": "server", "message": 'bad "gateway",\nx', "status": 502, "retryable": True, "partial": "The"}
    nothing = dict.fromkeys(("response", "finish_reason", "model", "usage", "first_delta_s"))
    return answer(line_id, error=error, **nothing) | changes


def rich() -> dict[str, Any]:
    """A result line with every key there is, in its order."""
    line = answer("all")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    usage = {"input_tokens": 9, "output_tokens": 80, "cached_tokens": 3, "reasoning_tokens": 0, "estimated": True}
    order = ("id", "response", "responses", "tool_calls", "choices", "parsed", "value", "error", "finish_reason", "model", "usage",
             "attempts", "latency_s", "first_delta_s", "finished_at", "provider", "index", "fingerprint", "reused_from",
             "variant", "failed_attempts", "input")  # fmt: skip
    more = {"responses": ["a", None], "tool_calls": [call], "choices": ["Because …", "b"], "parsed": {"a": [1]}, "value": "v", "usage": usage,
            "reused_from": {"id": "other"}, "variant": {"model": "m"}, "failed_attempts": [{"attempt": 1, "type": "server"}]}  # fmt: skip
    return {name: (line | more)[name] for name in order}


LINES = [answer("a"), failure("b"), rich(), answer("d", response=None, tool_calls=rich()["tool_calls"])]
LINES[3] = {name: LINES[3][name] for name in rich() if name in LINES[3]}


@pytest.mark.parametrize("table", ["parquet", "csv", "tsv"])
def test_results_come_back_from_a_table_byte_for_byte(convert: Converter, table: str) -> None:
    write_lines(Path("r.jsonl"), *LINES)
    assert convert.losses("r.jsonl", f"r.{table}") == []
    assert convert.losses(f"r.{table}", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("r.jsonl").read_bytes()


def test_results_come_back_from_the_hosted_form_byte_for_byte(convert: Converter) -> None:
    odd = answer(17, finish_reason="eos", usage={"input_tokens": None, "output_tokens": 5})
    write_lines(Path("r.jsonl"), *LINES, odd, answer("n", finish_reason=None, usage=None, model=None, input=None))
    assert convert.losses("r.jsonl", "b.jsonl", "--to", "openai-batch") == []
    assert convert.losses("b.jsonl", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("r.jsonl").read_bytes()


def test_the_official_package_accepts_every_answer(convert: Converter) -> None:
    odd = answer(17, finish_reason="eos", usage={"input_tokens": None, "output_tokens": 5})
    write_lines(Path("r.jsonl"), *LINES, odd, answer("n", finish_reason=None, usage=None, model=None))
    convert.losses("r.jsonl", "b.jsonl", "--to", "openai-batch")
    bodies = [obj["response"]["body"] for obj in read_objects(Path("b.jsonl")) if obj["response"]]
    assert len(bodies) == 5
    for body in bodies:
        completion = openai.types.chat.ChatCompletion.model_validate(body, strict=True)
        assert completion.choices[0].message.role == "assistant"
    assert openai.types.chat.ChatCompletion.model_validate(bodies[0]).usage.total_tokens == 89


def read_hosted(path: Path) -> dict[str, tuple[str | None, int, str | None]]:
    """A reader as people write it for the hosted service."""
    found = {}
    for line in path.read_text().splitlines():
        obj = json.loads(line)
        if obj["error"] is not None or obj["response"]["status_code"] != 200:
            found[obj["custom_id"]] = (None, 0, obj["error"]["message"])
            continue
        body = obj["response"]["body"]
        found[obj["custom_id"]] = (body["choices"][0]["message"]["content"], body["usage"]["total_tokens"], None)
    return found


def test_a_plain_reader_of_the_hosted_form_reads_ours(convert: Converter) -> None:
    write_lines(Path("r.jsonl"), *LINES[:2])
    convert.losses("r.jsonl", "b.jsonl", "--to", "openai-batch")
    assert read_hosted(Path("b.jsonl")) == {"a": ("Because …", 89, None), "b": (None, 0, 'bad "gateway",\nx')}


def test_output_of_the_hosted_service_becomes_flat_results(convert: Converter) -> None:
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1764150000, "model": "gpt", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}}  # fmt: skip
    refused = {"error": {"message": "max_tokens is too large", "type": "invalid_request_error"}}
    write_lines(
        Path("b.jsonl"),
        {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200, "request_id": "r", "body": body}, "error": None},
        {"id": "batch_req_2", "custom_id": "b", "response": {"status_code": 400, "request_id": "r", "body": refused}, "error": None},
        {"id": "batch_req_3", "custom_id": "c", "response": None, "error": {"code": "batch_expired", "message": "too late"}},
    )  # fmt: skip
    assert convert.losses("b.jsonl", "r.jsonl") == []
    good, bad, late = read_objects(Path("r.jsonl"))
    assert (good["id"], good["response"], good["finished_at"]) == ("a", "Hi", "2025-11-26T09:40:00.000Z")
    assert good["usage"] == {"input_tokens": 3, "output_tokens": 4, "cached_tokens": 1}
    assert (good["attempts"], good["index"], good["provider"], good["input"]) == (None, None, None, None)
    assert bad["error"] == {"type": "invalid_request", "message": "max_tokens is too large", "status": 400, "retryable": False, "partial": None}  # fmt: skip
    assert (late["error"]["type"], late["error"]["retryable"]) == ("timeout", True)
    assert list(good) == list(answer("a"))
    convert.losses("r.jsonl", "r.csv")
    convert.losses("r.jsonl", "r.parquet")


def test_output_of_anthropic_and_bedrock_becomes_flat_results(convert: Converter) -> None:
    message = {"role": "assistant", "model": "claude", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}}  # fmt: skip
    tool = message | {"content": [{"type": "thinking", "thinking": "…"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}], "stop_reason": "tool_use"}  # fmt: skip
    write_lines(
        Path("a.jsonl"),
        {"custom_id": "a", "result": {"type": "succeeded", "message": message}},
        {"custom_id": "b", "result": {"type": "errored", "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}}},
        {"custom_id": "c", "result": {"type": "expired"}},
        {"custom_id": "d", "result": {"type": "succeeded", "message": tool}},
    )  # fmt: skip
    assert convert.losses("a.jsonl", "r.jsonl") == [
        "anthropic: 1 line has a part of the type 'thinking' in the answer, which flat results do not hold (first: line 4)"
    ]
    good, bad, late, called = read_objects(Path("r.jsonl"))
    assert (good["response"], good["finish_reason"], good["model"]) == ("Hi", "stop", "claude")
    assert good["usage"] == {"input_tokens": 5, "output_tokens": 4, "cached_tokens": 2}
    assert (bad["error"]["type"], bad["error"]["message"]) == ("invalid_request", "no")
    assert late["error"]["type"] == "timeout"
    assert called["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x":1}'}
    given = {"anthropic_version": "x", "max_tokens": 1, "messages": [{"role": "user", "content": "q"}]}
    nova = {"output": {"message": {"role": "assistant", "content": [{"text": "Ja"}]}}, "stopReason": "end_turn", "usage": {"inputTokens": 1, "outputTokens": 2}}  # fmt: skip
    write_lines(
        Path("b.jsonl"),
        {"recordId": "A", "modelInput": given, "modelOutput": message},
        {"recordId": "B", "modelInput": given, "error": {"errorCode": 429, "errorMessage": "slow down"}},
        {
            "recordId": "C",
            "modelInput": {"messages": [{"role": "user", "content": [{"text": "q"}]}]},
            "modelOutput": nova,
        },
    )
    assert convert.losses("b.jsonl", "rb.jsonl") == []
    good, bad, third = read_objects(Path("rb.jsonl"))
    assert (good["response"], good["input"]) == ("Hi", {"prompt": "q", "params": {"max_tokens": 1}})
    assert (bad["error"]["type"], bad["error"]["status"]) == ("rate_limit", 429)
    assert (third["response"], third["usage"]["output_tokens"]) == ("Ja", 2)


def test_a_table_has_one_schema_whatever_was_answered(convert: Converter) -> None:
    sets = {"good": [answer("a")], "bad": [failure("b")], "both": [answer("a"), failure("b")], "none": []}
    schemas, headers = set(), set()
    for name, lines in sets.items():
        write_lines(Path(f"{name}.errors.jsonl"), *lines)
        convert.losses(f"{name}.errors.jsonl", f"{name}.parquet")
        convert.losses(f"{name}.errors.jsonl", f"{name}.csv")
        schema = pq.read_schema(f"{name}.parquet").remove_metadata()
        schemas.add(tuple((f.name, str(f.type)) for f in schema if not f.name.startswith("input.")))
        with open(f"{name}.csv", newline="") as file:
            header = next(csv.reader(file))
        headers.add(tuple(column for column in header if not column.startswith("input.")))
    assert len(schemas) == len(headers) == 1
    assert headers == {tuple(RESULT_COLUMNS)}


def test_types_of_a_parquet_table_are_those_of_its_values(convert: Converter) -> None:
    lines = [answer(1, input={"n": 1, "tags": ["x"], "meta": {"a": 1}, "odd": 1}), failure(2, input={"odd": "1"})]
    write_lines(Path("r.jsonl"), *lines)
    convert.losses("r.jsonl", "r.parquet")
    schema = pq.read_schema("r.parquet")
    types = {
        name: schema.field(name).type for name in ("id", "latency_s", "input_tokens", "error_retryable", "response")
    }
    assert types == {"id": pa.int64(), "latency_s": pa.float64(), "input_tokens": pa.int64(), "error_retryable": pa.bool_(), "response": pa.string()}  # fmt: skip
    assert [str(schema.field(f"input.{name}").type) for name in ("n", "tags", "meta", "odd")] == [
        "int64",
        "list<element: string>",
        "struct<a: int64>",
        "string",
    ]
    table = pq.read_table("r.parquet").to_pylist()
    assert [row["input.odd"] for row in table] == ["1", '"1"']
    assert [row["error_message"] for row in table] == [None, 'bad "gateway",\nx']


def test_an_errors_file_becomes_requests_for_any_service(convert: Converter) -> None:
    write_lines(
        Path("r.errors.jsonl"),
        failure("b", input={"prompt": "Why?", "params": {"max_tokens": 3}}),
        failure("c", input={"prompt": "How?"}),
    )
    assert convert.losses("r.errors.jsonl", "a.jsonl", "--to", "anthropic", "--model", "m", "--max-tokens", "9") == []
    assert [(obj["custom_id"], obj["params"]["max_tokens"]) for obj in read_objects(Path("a.jsonl"))] == [
        ("b", 3),
        ("c", 9),
    ]
    assert convert.losses("r.errors.jsonl", "p.jsonl", "--to", "prompts") == []
    assert read_objects(Path("p.jsonl"))[0] == {"id": "b", "prompt": "Why?", "params": {"max_tokens": 3}}
    write_lines(Path("r.jsonl"), answer("a"), failure("b"))
    (told,) = convert.faults("r.jsonl", "x.jsonl", "--to", "mistral")
    assert told == "r.jsonl:1: found an answered result, expected a prompt; --to prompts gives the inputs of results"
    write_lines(Path("n.jsonl"), answer("a", input=None))
    (told,) = convert.faults("n.jsonl", "x.jsonl", "--to", "prompts")
    assert "--carry all" in told


BAD_RESULTS = [
    {"prompt": "no result"},
    {"id": "a", "response": "x", "error": None, "usage": []},
    {"id": "a", "response": "x", "error": "text"},
    {"id": "a", "response": "x", "error": None, "input": 5},
    {"id": "a", "response": "x", "error": None, "error_type": 1},
    {"id": "a", "response": "x", "error": None, "input.x": 1},
]


@pytest.mark.parametrize("line", BAD_RESULTS, ids=json.dumps)
@pytest.mark.parametrize("table", ["csv", "parquet"])
def test_a_line_that_is_no_row_of_results_is_told(convert: Converter, line: dict[str, Any], table: str) -> None:
    write_lines(Path("r.jsonl"), answer("a"), line)
    (told,) = convert.faults("r.jsonl", f"r.{table}")
    assert told.startswith("r.jsonl:2: ")


def test_a_cell_that_is_not_what_its_column_holds_is_told(convert: Converter) -> None:
    write_lines(Path("r.jsonl"), answer("a"))
    convert.losses("r.jsonl", "r.csv")
    Path("r.csv").write_text(Path("r.csv").read_text().replace(",80,", ",eighty,"))
    assert convert.faults("r.csv", "back.jsonl") == [
        "r.csv:2: expected a value of type int in column 'output_tokens', found 'eighty'"
    ]


@pytest.mark.process
def test_results_of_a_real_run_go_through_every_form_and_can_be_resumed_from(convert: Converter) -> None:
    write_prompts(Path("in.jsonl"), 20)
    with serving(convert.folder) as server:
        assert run(server, "in.jsonl", "r.jsonl")[0] == 0
        for form in ("openai-batch", "csv", "parquet"):
            name = f"t.{form}" if form != "openai-batch" else "t.jsonl"
            assert convert.losses("r.jsonl", name, "--to", form) == []
            assert convert.losses(name, f"{form}.back.jsonl") == []
            assert Path(f"{form}.back.jsonl").read_bytes() == Path("r.jsonl").read_bytes()
        before = len(server.chats())
        assert run(server, "in.jsonl", "parquet.back.jsonl")[0] == 0
        assert len(server.chats()) == before
    assert read_status(name_files("csv.back.jsonl")).completed == 20


@pytest.mark.parametrize("table", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"value": None}, "null in 'value'"),
        ({"parsed": None}, "null in 'parsed'"),
        ({"input": {}}, "an empty object in 'input'"),
        ({"usage": {"input_tokens": 1, "output_tokens": 2, "more": 3}}, "an unusual object in 'usage'"),
    ],
)
def test_what_the_columns_of_results_cannot_hold_is_told(
    convert: Converter, table: str, changes: Any, told: str
) -> None:
    write_lines(Path("r.jsonl"), answer("a", **changes))
    (loss,) = convert.losses("r.jsonl", f"r.{table}")
    assert told in loss


def test_empty_text_of_a_result_is_told_in_csv_alone(convert: Converter) -> None:
    write_lines(Path("r.jsonl"), answer("a", response=""))
    assert convert.losses("r.jsonl", "r.csv") == [
        "csv: 1 line has empty text in 'response', which reads back as null (first: line 1)"
    ]
    assert convert.losses("r.jsonl", "r.parquet") == []


def varied(number: int, **variant: Any) -> dict[str, Any]:
    """The failure of one of several prompts of the line ``7``."""
    return failure(f"7#{number}", variant={"id": 7, **variant, "sample": number}, input={"prompt": "Why?"})


def test_a_failed_variant_is_asked_as_it_was(convert: Converter) -> None:
    lines = [varied(1, model="m", params={"seed": 5}), varied(2, model="m", params={"seed": 5})]
    write_lines(Path("r.errors.jsonl"), *lines)
    assert convert.losses("r.errors.jsonl", "b.jsonl", "--to", "mistral") == []
    messages = [{"role": "user", "content": "Why?"}]
    assert read_objects(Path("b.jsonl")) == [
        {"custom_id": "7#1", "body": {"model": "m", "messages": messages, "random_seed": 5}},
        {"custom_id": "7#2", "body": {"model": "m", "messages": messages, "random_seed": 6}},
    ]


def test_a_failed_variant_of_a_template_needs_its_job(convert: Converter) -> None:
    write_lines(Path("r.errors.jsonl"), varied(1, template="short"))
    (told,) = convert.faults("r.errors.jsonl", "b.jsonl", "--to", "mistral")
    assert "found the failure of the template 'short', expected one without" in told


@pytest.mark.parametrize("form", ["csv", "parquet", "openai-batch"])
def test_failed_variants_come_back(convert: Converter, form: str) -> None:
    write_lines(Path("r.errors.jsonl"), varied(1, model="m"), varied(2, params={"temperature": 0.5}))
    convert.losses("r.errors.jsonl", "there", "--to", form)
    convert.losses("there", "back.jsonl", *(["--from", form] if form != "openai-batch" else []))
    assert read_objects(Path("back.jsonl")) == read_objects(Path("r.errors.jsonl"))


def test_the_prompt_of_several_variants_is_given_once(convert: Converter) -> None:
    """Under the line's own id, as its job makes the variants."""
    write_lines(Path("r.errors.jsonl"), varied(1), varied(2))
    assert convert.losses("r.errors.jsonl", "p.jsonl", "--to", "prompts") == []
    assert read_objects(Path("p.jsonl")) == [{"id": 7, "prompt": "Why?"}]
