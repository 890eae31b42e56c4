"""``batchchat convert`` of prompts: every form there and back, what is lost, what is at fault."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batchchat.jsonl import dump_line
from batchchat.prompts import InputSettings, PromptReader
from batchchat.records import Prompt
from tests.conversions import Converter, convert, read_objects, write_lines
from tests.runs import BATCHCHAT, serving

__all__ = ["convert"]

PIXEL = "iVBORw0KGgo="
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
SERVICES = ["openai-batch", "mistral", "anthropic", "bedrock", "bedrock-converse"]
HUMAN_EVAL = next(Path(__file__).parents[3].glob("*/data/HumanEval.jsonl.gz"), None)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


# Canonical flat lines that every service's form holds whole.
CANONICAL = [
    {"id": "a", "prompt": "Hello", "params": {"max_tokens": 5}},
    {"id": "b-2_X", "prompt": "Zeilen\nund \u2028 \U0001f600 \"'\\", "system": "Be brief.", "params": {"max_tokens": 5}},
    {"id": "c", "messages": [user("Hi"), {"role": "assistant", "content": "Yes?"}, user("Go")], "params": {"max_tokens": 5}},
    {"id": "d", "messages": [user([{"type": "text", "text": "What?"}, IMAGE])], "params": {"max_tokens": 5, "temperature": 0.5, "top_p": 1, "stop": ["x"]}},
    {"id": "e", "messages": [{"role": "system", "content": "s"}, user("a"), {"role": "assistant", "content": "b"}, user("c")], "params": {"max_tokens": 2}},
]  # fmt: skip


@pytest.mark.parametrize("service", SERVICES)
def test_canonical_lines_come_back_byte_for_byte(convert: Converter, service: str) -> None:
    lines = [line if service.startswith("bedrock") else line | {} for line in CANONICAL]
    if not service.startswith("bedrock"):
        lines = [
            {**{k: v for k, v in line.items() if k != "params"}, "model": "m", "params": line["params"]}
            for line in lines
        ]
    write_lines(Path("in.jsonl"), *lines)
    assert convert.losses("in.jsonl", "service.jsonl", "--to", service) == []
    assert convert.losses("service.jsonl", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("in.jsonl").read_bytes()
    assert convert.losses("back.jsonl", "again.jsonl", "--to", service) == []
    assert Path("again.jsonl").read_bytes() == Path("service.jsonl").read_bytes()
    assert b'"batchchat"' not in Path("service.jsonl").read_bytes()


# Lines with what services have no place for.
RICH = [
    {"id": 7, "prompt": "p", "topic": {"deep": [None, 1.5, True]}, "n": 2**100, "empty": None},
    {"prompt": "without an id", "é\n": "\U0001f600"},
    {"prompt": "without an id"},
    {"prompt": "without an id"},
    {"topic": "first", "id": "x", "prompt": None, "messages": [user("one")], "model": None, "params": {}},
    {"custom_id": "y", "turns": ["only one"], "chat_id": "c"},
]


@pytest.mark.parametrize("service", SERVICES)
def test_kept_fields_bring_every_line_back_byte_for_byte(convert: Converter, service: str) -> None:
    write_lines(Path("in.jsonl"), *RICH)
    options = ["--keep-fields", "--model", "m", "--max-tokens", "9"]
    assert convert.losses("in.jsonl", "service.jsonl", "--to", service, *options) == []
    assert convert.losses("service.jsonl", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("in.jsonl").read_bytes()


def test_what_a_service_cannot_hold_is_told_once_with_count_and_first_line(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *RICH, {"id": "z", "prompt": "p", "model": "m", "topic": 1})
    told = convert.losses("in.jsonl", "out.jsonl", "--to", "bedrock", "--max-tokens", "9")
    assert told == [
        "bedrock: 1 line has an integer as id, which Bedrock batch lines hold as text (first: line 1)",
        "bedrock: 3 lines have 'topic', which Bedrock batch lines cannot hold (first: line 1)",
        "bedrock: 1 line has 'n', which Bedrock batch lines cannot hold (first: line 1)",
        "bedrock: 1 line has 'empty', which Bedrock batch lines cannot hold (first: line 1)",
        "bedrock: 1 line has 'é\\n', which Bedrock batch lines cannot hold (first: line 2)",
        "bedrock: 1 line has 'chat_id', which Bedrock batch lines cannot hold (first: line 6)",
        "bedrock: 1 line has 'model', which Bedrock batch lines cannot hold; the job names it (first: line 7)",
    ]
    objects = read_objects(Path("out.jsonl"))
    assert objects[0]["recordId"] == "7"
    assert len({obj["recordId"] for obj in objects}) == len(objects)


def test_strict_writes_nothing_where_something_would_be_lost(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"id": "a", "prompt": "p", "topic": 1})
    code, told = convert("in.jsonl", "out.jsonl", "--to", "mistral", "--strict", "-q")
    assert code == 3
    assert told == [
        "batchchat: mistral: 1 line has 'topic', which Mistral batch lines cannot hold (first: line 1)",
        "batchchat: in.jsonl: nothing was written, as --strict allows no loss",
    ]
    assert os.listdir() == ["in.jsonl"]
    assert convert("in.jsonl", "out.jsonl", "--to", "mistral", "--strict", "--keep-fields")[0] == 0


def test_lines_of_each_service_look_as_its_documentation_has_them(convert: Converter) -> None:
    line = {"id": "a", "prompt": "Hi", "system": "S", "model": "m", "params": {"max_tokens": 5, "stop": "x"}}
    write_lines(Path("in.jsonl"), line)
    for service in SERVICES:
        convert.losses("in.jsonl", f"{service}.out", "--to", service)
    messages = [{"role": "system", "content": "S"}, user("Hi")]
    body = {"model": "m", "messages": messages, "max_tokens": 5, "stop": "x"}
    assert read_objects(Path("openai-batch.out")) == [
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    ]
    assert read_objects(Path("mistral.out")) == [{"custom_id": "a", "body": body}]
    request = {"max_tokens": 5, "system": "S", "messages": [user("Hi")], "stop_sequences": ["x"]}
    assert read_objects(Path("anthropic.out")) == [{"custom_id": "a", "params": {"model": "m"} | request}]
    version = {"anthropic_version": "bedrock-2023-05-31"}
    assert read_objects(Path("bedrock.out")) == [{"recordId": "a", "modelInput": version | request}]
    converse = {
        "messages": [user([{"text": "Hi"}])],
        "system": [{"text": "S"}],
        "inferenceConfig": {"maxTokens": 5, "stopSequences": ["x"]},
    }
    assert read_objects(Path("bedrock-converse.out")) == [{"recordId": "a", "modelInput": converse}]


TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}


def test_tools_and_documents_go_to_anthropic_and_back(convert: Converter) -> None:
    pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}
    link = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    messages = [
        user([{"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}}, pdf, link]),
        {"role": "assistant", "content": "Calling", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "t1", "content": "42"},
    ]
    params = {"max_tokens": 1, "tools": TOOLS, "tool_choice": "required", "user": "u", "thinking": {"type": "disabled"}}
    write_lines(Path("in.jsonl"), {"id": "a", "messages": messages, "model": "m", "params": params})
    assert convert.losses("in.jsonl", "a.jsonl", "--to", "anthropic") == []
    (obj,) = read_objects(Path("a.jsonl"))
    first, second, third = obj["params"]["messages"]
    assert [part["type"] for part in first["content"]] == ["text", "document", "image"]
    assert second["content"][1] == {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}
    assert third == user([{"type": "tool_result", "tool_use_id": "t1", "content": "42"}])
    assert obj["params"]["tools"] == [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
    assert obj["params"]["tool_choice"] == {"type": "any"}
    assert convert.losses("a.jsonl", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("in.jsonl").read_bytes()


def test_parameters_that_anthropic_lacks_are_named(convert: Converter) -> None:
    params = {"max_completion_tokens": 7, "seed": 1, "response_format": {}, "n": 1}
    write_lines(Path("in.jsonl"), {"id": "a", "prompt": "p", "model": "m", "params": params})
    told = convert.losses("in.jsonl", "out.jsonl", "--to", "anthropic")
    assert [line.split(" has ")[1].split(",")[0] for line in told] == [
        f"'{name}' in 'params'" for name in ("seed", "response_format", "n")
    ]
    assert read_objects(Path("out.jsonl"))[0]["params"]["max_tokens"] == 7


def test_mistral_has_words_of_its_own(convert: Converter) -> None:
    params = {"seed": 5, "max_completion_tokens": 7, "user": "u", "logit_bias": {}, "temperature": 0}
    write_lines(Path("in.jsonl"), {"id": "a", "prompt": "p", "model": "m", "params": params})
    told = convert.losses("in.jsonl", "out.jsonl", "--to", "mistral")
    assert [line.split(" has ")[1] for line in told] == [
        f"'{name}' in 'params', which Mistral batch lines cannot hold (first: line 1)"
        for name in ("user", "logit_bias")
    ]
    body = {"model": "m", "messages": [user("p")], "random_seed": 5, "max_tokens": 7, "temperature": 0}
    assert read_objects(Path("out.jsonl")) == [{"custom_id": "a", "body": body}]
    convert.losses("out.jsonl", "back.jsonl")
    assert read_objects(Path("back.jsonl"))[0]["params"] == {"seed": 5, "max_tokens": 7, "temperature": 0}


def test_lines_as_services_publish_them_are_read(convert: Converter) -> None:
    """Examples after the services' documentation."""
    write_lines(
        Path("anthropic.jsonl"),
        {"custom_id": "r1", "params": {"model": "claude", "max_tokens": 1024, "messages": [user("Hello, world")]}},
        {"custom_id": "r2", "params": {"model": "claude", "max_tokens": 9, "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}], "messages": [user([{"type": "text", "text": "T"}])]}},
    )  # fmt: skip
    write_lines(
        Path("bedrock.jsonl"),
        {"recordId": "CALL0000001", "modelInput": {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1024, "messages": [user([{"type": "text", "text": "Summarize"}])]}},
        {"modelInput": {"schemaVersion": "messages-v1", "system": [{"text": "S"}], "messages": [user([{"text": "Hi"}])], "inferenceConfig": {"maxTokens": 3}}},
        {"recordId": "L", "modelInput": {"prompt": "Say", "max_gen_len": 4}},
        {"recordId": "O", "modelInput": {"messages": [user("Hi")], "max_tokens": 4}},
    )  # fmt: skip
    write_lines(Path("mistral.jsonl"), {"custom_id": "0", "body": {"max_tokens": 100, "messages": [user("Cheese?")]}})
    for name in ("anthropic", "bedrock", "mistral"):
        assert convert.losses(f"{name}.jsonl", f"{name}.flat") == []
    assert read_objects(Path("anthropic.flat")) == [
        {"id": "r1", "prompt": "Hello, world", "model": "claude", "params": {"max_tokens": 1024}},
        {"id": "r2", "messages": [{"role": "system", "content": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]}, user([{"type": "text", "text": "T"}])], "model": "claude", "params": {"max_tokens": 9}},
    ]  # fmt: skip
    assert read_objects(Path("bedrock.flat")) == [
        {
            "id": "CALL0000001",
            "messages": [user([{"type": "text", "text": "Summarize"}])],
            "params": {"max_tokens": 1024},
        },
        {"prompt": "Hi", "system": "S", "params": {"max_tokens": 3}},
        {"id": "L", "prompt": "Say", "params": {"max_gen_len": 4}},
        {"id": "O", "prompt": "Hi", "params": {"max_tokens": 4}},
    ]
    assert read_objects(Path("mistral.flat")) == [{"id": "0", "prompt": "Cheese?", "params": {"max_tokens": 100}}]


FAULTY = [
    ("openai-batch", {"id": 1}, "expected 'prompt', 'messages'"),
    ("openai-batch", {"id": 1, "prompt": " "}, "found an empty prompt"),
    ("openai-batch", {"id": 1, "turns": ["a", "b"]}, "found 2 turns, expected one question"),
    ("openai-batch", {"id": "", "prompt": "p"}, "found an empty id"),
    ("openai-batch", {"id": [1], "prompt": "p"}, "expected text or an integer in 'id'"),
    ("openai-batch", '{"id": NaN}', "found NaN"),
    ("openai-batch", "[1]", "expected a JSON object, found a list"),
    ("openai-batch", '{"id": 1, "prompt": "\\ud800"}', "half of a surrogate pair"),
    ("anthropic", {"id": "a", "prompt": "p", "model": "m"}, "found no 'max_tokens' in 'params', which Anthropic needs; --max-tokens N gives one"),
    ("anthropic", {"id": "a", "prompt": "p", "params": {"max_tokens": 1}}, "found no model, which Anthropic needs; --model NAME gives one"),
    ("anthropic", {"id": "a/b", "prompt": "p", "model": "m", "params": {"max_tokens": 1}}, "found the id 'a/b', expected 1 to 64 letters"),
    ("anthropic", {"id": "a", "messages": [user([{"type": "input_audio"}])], "model": "m"}, "found a part of the type 'input_audio'"),
    ("anthropic", {"id": "a", "messages": [user([{"type": "image_url", "image_url": {"url": "data:x"}}])], "model": "m"}, "expected data in Base64"),
    ("anthropic", {"id": "a", "messages": [user("x"), {"role": "critic", "content": "y"}], "model": "m"}, "found a message of the role 'critic'"),
    ("bedrock-converse", {"id": "a", "messages": [user([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}])]}, "without data"),
    ("mistral", {"id": "a", "messages": "no list"}, "expected a list of messages"),
]  # fmt: skip


@pytest.mark.parametrize(("service", "line", "reason"), FAULTY, ids=[reason for _, _, reason in FAULTY])
def test_a_line_that_asks_for_nothing_possible_is_told_and_nothing_written(convert, service, line, reason) -> None:
    good = {"id": "good", "prompt": "p", "model": "m", "params": {"max_tokens": 1}}
    write_lines(Path("in.jsonl"), good, "", line, good | {"id": "good-2"})
    (told,) = convert.faults("in.jsonl", "out.jsonl", "--to", service)
    assert told.startswith("in.jsonl:3: ")
    assert reason in told


BAD_SERVICE_LINES = [
    {"custom_id": "a", "params": {"messages": "text"}},
    {"custom_id": "a", "params": {"messages": [user([{"type": "server_tool_use"}])]}},
    {"custom_id": "a", "params": {"messages": [{"role": "system", "content": "x"}]}},
    {"custom_id": "a", "params": {"messages": [1]}},
    {"custom_id": "a", "params": {"messages": []}},
    {"custom_id": "a", "params": {"messages": [user(None)]}},
    {"custom_id": "a", "params": {"messages": [user("x")], "system": 5}},
    {"custom_id": {}, "params": {"messages": [user("x")]}},
    {"custom_id": "a", "params": []},
    {"custom_id": "a", "params": {"messages": [user("x")], "model": 5}},
]


@pytest.mark.parametrize("line", BAD_SERVICE_LINES, ids=json.dumps)
def test_a_line_that_is_none_of_its_form_is_told(convert: Converter, line: dict[str, Any]) -> None:
    good = {"custom_id": "g", "params": {"model": "m", "max_tokens": 1, "messages": [user("x")]}}
    write_lines(Path("in.jsonl"), good, line)
    (told,) = convert.faults("in.jsonl", "out.jsonl")
    assert told.startswith("in.jsonl:2: ")
    body = line["params"] if isinstance(line["params"], dict) else {}
    bedrock = {"recordId": line["custom_id"], "modelInput": {"anthropic_version": "x"} | body}
    write_lines(Path("bedrock.jsonl"), {"recordId": "g", "modelInput": {"prompt": "x"}}, bedrock)
    (told,) = convert.faults("bedrock.jsonl", "out.jsonl")
    assert told.startswith("bedrock.jsonl:2: ")


def test_ids_of_a_batch_are_unique_as_text(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"id": 1, "prompt": "a"}, {"id": "1", "prompt": "b"})
    assert convert.faults("in.jsonl", "out.jsonl", "--to", "mistral") == [
        "in.jsonl:2: duplicate id '1' (first at line 1), expected each id once"
    ]


def test_ids_are_those_that_a_run_would_give(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *RICH[1:4])
    convert.losses("in.jsonl", "out.jsonl", "--to", "openai-batch")
    prompts = [item for item in PromptReader(InputSettings(paths=("in.jsonl",))) if isinstance(item, Prompt)]
    assert [obj["custom_id"] for obj in read_objects(Path("out.jsonl"))] == [prompt.id for prompt in prompts]


def test_templates_make_requests_of_any_rows(convert: Converter) -> None:
    Path("in.csv").write_text("key,question\nk1,Why?\nk2,How?\n")
    options = ["--prompt", "Q: {{ question }}", "--system", "Be brief.", "--id-field", "key", "--model", "m"]
    convert.losses("in.csv", "out.jsonl", "--to", "openai-batch", *options)
    assert [(obj["custom_id"], obj["body"]["messages"]) for obj in read_objects(Path("out.jsonl"))] == [
        (key, [{"role": "system", "content": "Be brief."}, user(f"Q: {question}")])
        for key, question in (("k1", "Why?"), ("k2", "How?"))
    ]
    (told,) = convert.faults(
        "in.csv", "x.jsonl", "--to", "openai-batch", "--prompt", "{{ question[9] }}", "--id-field", "nope"
    )[:1]
    assert told.startswith("in.csv:2: ")
    assert "template" in convert.refusal("in.csv", "x.jsonl", "--to", "openai-batch", "--prompt", "{{")


def test_what_openai_adds_to_a_request_is_told_or_kept(convert: Converter) -> None:
    body = {"model": "m", "messages": [user("p")], "stream": True, "temperature": 0}
    write_lines(
        Path("in.jsonl"), {"custom_id": "a", "method": "POST", "url": "/chat/completions", "body": body, "note": 1}
    )
    told = convert.losses("in.jsonl", "out.jsonl")
    assert [line.split(" has ")[1].split(",")[0] for line in told] == [
        "'stream' in 'body'",
        "the url '/chat/completions'",
    ]
    assert read_objects(Path("out.jsonl")) == [
        {"id": "a", "prompt": "p", "model": "m", "params": {"temperature": 0}, "note": 1}
    ]


TABLES = ["csv", "tsv", "parquet"]


@pytest.mark.parametrize("table", TABLES)
def test_texts_survive_a_table_whatever_they_hold(convert: Converter, table: str) -> None:
    texts = [
        "",
        " ",
        "a,b\tc",
        'say "x"',
        "two\nlines\r\nand\rmore",
        "\ufeffmark",
        "'=1+1",
        "\x00",
        "\U0001f600\u2028",
        "0012",
        "null",
    ]
    rows = [{"key": f"k{n}", "text": text, '\ufeffodd, "name"\n': text} for n, text in enumerate(texts)]
    write_lines(Path("in.jsonl"), *rows)
    assert convert.losses("in.jsonl", f"t.{table}") == []
    assert convert.losses(f"t.{table}", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("in.jsonl").read_bytes()


PARQUET_FAMILIES = {
    "types": [{"i": 1, "f": 0.5, "b": True, "s": "x", "n": None, "l": [1, 2], "o": {"a": {"b": [None, "c"]}}}],
    "mixed types": [{"x": 1}, {"x": "1"}, {"x": None}, {"x": [1, "a"]}, {"x": {"k": 2**70}}, {"x": True}],
    "integers": [{"x": 2**63 - 1, "y": 2**64 - 1, "z": -(2**70)}, {"x": -(2**63), "y": 0, "z": 5}],
    "whole numbers as doubles": [{"x": 1.0}, {"x": -0.0}, {"x": 1e300}],
    "big and fractions": [{"x": 2**60 + 1}, {"x": 0.5}],
    "missing fields": [{"a": 1}, {"b": 2}, {"a": 3, "b": 4}, {}],
    "null fields": [{"a": None, "b": None}, {"a": 1, "b": None}],
    "objects of different keys": [{"p": {"t": 1}}, {"p": {"u": 1}}, {"p": {}}, {"p": {"t": None}}],
    "key order inside": [{"p": {"a": 1, "b": 2}}, {"p": {"b": 1, "a": 2}}],
    "empty lists": [{"x": []}, {"x": [[]]}, {"x": [[], [None]]}],
    "deep": [{"x": json.loads("[" * 100 + "]" * 100)}],
    "empty name": [{"": 1, " ": 2}],
    "unicode": [{"\U0001f600": "\u2028\ud7ff\x00"}],
    "prompts": CANONICAL,
    "nulls inside of prompts": [{"messages": [{"role": "user", "content": "x", "name": None}], "params": {"stop": None}}],
    "nothing": [],
}  # fmt: skip


@pytest.mark.parametrize("family", PARQUET_FAMILIES)
def test_parquet_gives_every_line_back_byte_for_byte(convert: Converter, family: str) -> None:
    write_lines(Path("in.jsonl"), *PARQUET_FAMILIES[family])
    assert convert.losses("in.jsonl", "t.parquet") == []
    assert convert.losses("t.parquet", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("in.jsonl").read_bytes()


def test_what_parquet_cannot_hold_is_told(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"a": None, "x": 1}, {"x": 1.5}, {"x": 0.5, "a": 1})
    assert convert.losses("in.jsonl", "t.parquet") == [
        "parquet: 1 line has null in 'a', which reads back as a field that is not there (first: line 1)",
        "parquet: 1 line has a whole number in 'x', which reads back with a fraction of .0 (first: line 1)",
        "parquet: 1 line has fields in another order than the lines before, which a table cannot hold (first: line 3)",
    ]


def test_what_csv_cannot_hold_is_told(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"id": 1, "a": None}, {"id": 2, "a": [1]}, {"id": "x"})
    assert convert.losses("in.jsonl", "t.csv") == [
        "csv: 2 lines have an integer in 'id', which reads back as text (first: line 1)",
        "csv: 1 line has null in 'a', which reads back as empty text (first: line 1)",
        "csv: 1 line has a list in 'a', which reads back as text (first: line 2)",
        "csv: 1 line has no 'a', which reads back as empty text (first: line 3)",
    ]
    assert Path("t.csv").read_text() == "id,a\n1,\n2,[1]\nx,\n"


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_prompts_asks_for_the_same_as_its_lines(convert: Converter, table: str) -> None:
    turns = {"id": "t", "turns": ["one", "two"]}
    write_lines(Path("in.jsonl"), *CANONICAL, turns)
    convert.losses("in.jsonl", f"t.{table}")
    asked = [
        [(p.id, p.messages, p.turns, p.system, p.params) for p in PromptReader(InputSettings(paths=(name,)))]
        for name in ("in.jsonl", f"t.{table}")
    ]
    assert asked[0] == asked[1]


@pytest.mark.parametrize("name", ["a;b", "a\tb", 'a;"b', "a", "a,b"])
@pytest.mark.parametrize("table", ["csv", "tsv"])
def test_a_lone_column_stays_one_whatever_its_name(convert: Converter, table: str, name: str) -> None:
    write_lines(Path("in.jsonl"), {name: "x;y"}, {name: "z"})
    assert convert.losses("in.jsonl", f"t.{table}") == []
    assert convert.losses(f"t.{table}", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("in.jsonl").read_bytes()


@pytest.mark.parametrize("names", [["a;b", "c"], ["a\tb", "c"], ["a", "b;"]])
@pytest.mark.parametrize("table", ["csv", "tsv"])
def test_columns_stay_what_they_are_whatever_their_names(convert: Converter, table: str, names: list[str]) -> None:
    write_lines(Path("in.jsonl"), dict.fromkeys(names, "x"))
    assert convert.losses("in.jsonl", f"t.{table}") == []
    assert convert.losses(f"t.{table}", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("in.jsonl").read_bytes()


def test_formulas_are_escaped_only_when_asked(convert: Converter) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "fine", "a=b"]
    write_lines(Path("in.jsonl"), *({"x": text} for text in texts), {"x": -5})
    convert.losses("in.jsonl", "plain.csv")
    convert.losses("in.jsonl", "safe.csv", "--escape-formulas")
    convert.losses("plain.csv", "plain.jsonl")
    convert.losses("safe.csv", "safe.jsonl")
    assert [row["x"] for row in read_objects(Path("plain.jsonl"))] == [*texts, "-5"]
    assert [row["x"] for row in read_objects(Path("safe.jsonl"))] == [f"'{t}" for t in texts[:6]] + texts[6:] + ["-5"]


@pytest.mark.parametrize("table", ["t.csv", "t.tsv", "t.csv.gz"])
@pytest.mark.parametrize(
    "text", ["=1+1", "=", "+1+1", "-cmd|'/C x'!A0", "@SUM(A1)", "\t=1", "\r=1", "- a list", "-5 + 3", "+49-30"]
)
def test_text_that_a_spreadsheet_runs_is_told_once(convert: Converter, table: str, text: str) -> None:
    write_lines(
        Path("in.jsonl"), {"x": "fine", "y": 1}, {"x": text, "y": text}, {"x": "a=b", "y": 2}, {"x": text, "y": 3}
    )
    told = convert.losses("in.jsonl", table)
    assert told[-1] == (
        f"{table}: 2 lines have text that a spreadsheet runs as a formula (first: line 2); "
        "--escape-formulas puts ' before it"
    )
    assert sum("spreadsheet" in line for line in told) == 1
    assert convert("in.jsonl", f"q.{table}", "--quiet") == (0, [])
    assert not any("spreadsheet" in line for line in convert.losses("in.jsonl", f"s.{table}", "--escape-formulas"))


@pytest.mark.parametrize("value", [-5, -5.5, -1e300, "-5", "+5", "-5.25", "-1e-3", "a=b", " =1", "'=1", "", None])
def test_what_a_spreadsheet_takes_as_it_stands_is_not_told(convert: Converter, value: Any) -> None:
    write_lines(Path("in.jsonl"), {"x": value})
    convert("in.jsonl", "t.csv")
    assert not any("spreadsheet" in line for line in convert.losses("in.jsonl", "u.csv"))


def test_other_forms_know_no_formulas(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"prompt": "=1"})
    for arguments in (["o.jsonl"], ["o.parquet"], ["o.batch.jsonl", "--to", "openai-batch", "--model", "m"]):
        assert not any("spreadsheet" in line for line in convert.losses("in.jsonl", *arguments))


def test_formula_in_an_answer_or_a_columns_name_is_told_and_is_no_loss(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"=x": "fine"})
    code, told = convert("in.jsonl", "t.csv", "--strict")
    assert code == 0
    assert told[0] == (
        "batchchat: t.csv: a column's name is text that a spreadsheet runs as a formula; --escape-formulas puts ' before it"
    )


def test_a_header_that_csv_cannot_have_is_told(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"": 1})
    code, told = convert("in.jsonl", "t.csv")
    assert code == 3
    assert "empty name" in told[-1]
    assert os.listdir() == ["in.jsonl"]


@pytest.mark.parametrize("row", ['1,"a"b', "1,2,3", "1"])
def test_a_row_that_does_not_fit_is_told(convert: Converter, row: str) -> None:
    Path("in.csv").write_text(f"id,prompt\n1,fine\n{row}\n")
    (told,) = convert.faults("in.csv", "out.jsonl")
    assert told.startswith("in.csv:3: ")


@pytest.mark.skipif(HUMAN_EVAL is None, reason="the data set is not here")
@pytest.mark.parametrize("service", SERVICES)
def test_a_real_benchmark_comes_back_from_every_service(convert: Converter, service: str) -> None:
    convert.losses(str(HUMAN_EVAL), "flat.jsonl")
    assert (
        convert.losses(
            "flat.jsonl", "s.jsonl.gz", "--to", service, "--keep-fields", "--model", "m", "--max-tokens", "9"
        )
        == []
    )
    assert convert.losses("s.jsonl.gz", "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == Path("flat.jsonl").read_bytes()
    assert read_objects(Path("flat.jsonl"))[0]["task_id"] == "HumanEval/0"
    assert (
        dump_line(read_objects(Path("flat.jsonl"))[163])
        == Path("back.jsonl").read_bytes().splitlines(keepends=True)[163]
    )


@pytest.mark.process
def test_a_converted_file_asks_for_what_its_results_hold_already(convert: Converter) -> None:
    """The fingerprints are the same: a run goes on with another form of its input and sends nothing again."""
    lines = [
        {"id": "a", "prompt": "Hello", "params": {"max_tokens": 5}},
        {"id": "b", "prompt": "Hi", "model": "other", "params": {"stop": ["x"]}},
        {"id": "c", "messages": [user("Hi"), {"role": "assistant", "content": "Yes?"}, user("Go")]},
        {"id": "d", "messages": [user([{"type": "text", "text": "What?"}, IMAGE])]},
    ]
    write_lines(Path("in.jsonl"), *lines)
    names = {"openai-batch": "o.jsonl", "mistral": "m.jsonl", "csv": "t.csv", "tsv": "t.tsv", "parquet": "t.parquet"}
    for form, name in names.items():
        assert convert("in.jsonl", name, "--to", form)[0] == 0
    with serving(convert.folder) as server:
        for name in ("in.jsonl", *names.values()):
            command = [*BATCHCHAT, "run", name, "-o", "r.jsonl", "--provider", "openai", "--model", "m", "--base-url", server.base_url]  # fmt: skip
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=50, env=os.environ | {"OPENAI_API_KEY": "x"}
            )
            assert done.returncode == 0, done.stderr
            assert len(server.chats()) == 4, name
