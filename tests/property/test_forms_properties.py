"""Forms of files: no line makes a reader or writer fail in another way than with its sentence."""

import copy
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchchat.csv_rows import iter_rows
from batchchat.errors import BatchchatError
from batchchat.forms import Conversion, convert, openai_results, result_rows
from batchchat.forms.anthropic import read_anthropic_line, write_anthropic_line
from batchchat.forms.asks import Asker, AskSettings
from batchchat.forms.bedrock import read_bedrock_line, write_bedrock_line, write_converse_line
from batchchat.forms.csv_table import CsvWriter
from batchchat.forms.losses import Losses
from batchchat.forms.openai_batch import read_batch_line, write_mistral_line, write_openai_line
from batchchat.forms.openai_results import read_openai_result, write_openai_result
from batchchat.forms.result_rows import result_to_row, row_to_result, tell_row_losses
from batchchat.forms.service_results import read_anthropic_result, read_bedrock_result
from batchchat.forms.shapes import Columns
from batchchat.jsonl import dump_line

MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}, {"type": "file", "file": {"filename": "f", "file_data": "data:application/pdf;base64,aaaa"}}]},
    {"role": "assistant", "content": "a", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "r"},
]  # fmt: skip
PARAMS = {"max_tokens": 1, "stop": ["x"], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": {"type": "function", "function": {"name": "f"}}}  # fmt: skip
CLAUDE = [
    {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}}, {"type": "image", "source": {"type": "url", "url": "u"}}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "r"}]}]},
]  # fmt: skip
ANSWER = {"role": "assistant", "model": "m", "content": [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "1", "name": "f", "input": {}}], "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 0}}  # fmt: skip
CONVERSE = [{"role": "user", "content": [{"text": "x"}, {"image": {"format": "png", "source": {"bytes": "aaaa"}}}]}]
CHAT = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "x", "tool_calls": [{}]}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}  # fmt: skip
FLAT = {"id": "a", "response": "x", "error": None, "finish_reason": "stop", "model": "m", "usage": {"input_tokens": 1, "output_tokens": 2}, "attempts": 1, "latency_s": 1.0, "first_delta_s": 0.5, "finished_at": "2026-01-01T00:00:00.000Z", "provider": "p", "index": 0, "fingerprint": "f", "input": {"prompt": "q"}}  # fmt: skip
FAILED = FLAT | {"response": None, "error": {"type": "server", "message": "m", "status": 500, "retryable": True, "partial": None}}  # fmt: skip


def quiet(what: str, fate: str) -> None:
    """Nobody listens."""


def write_services(line: dict[str, Any]) -> None:
    """A flat line to every service."""
    for form in ("openai-batch", "anthropic", "bedrock"):
        asked = Asker(AskSettings(), form, "lines", Losses()).asked(line)
        for write in (write_anthropic_line, write_bedrock_line, write_converse_line):
            try:
                dump_line(write(asked, None, quiet))
            except ValueError:
                pass
        dump_line(write_openai_line(asked))
        dump_line(write_mistral_line(asked, quiet))


def to_table(line: dict[str, Any]) -> None:
    """A result to the cells of a row, and back."""
    row = result_to_row(line)
    columns = Columns(row)
    columns.add(row)
    columns.close()
    writer = CsvWriter(columns.names, ",", Losses())
    list(iter_rows(io.BytesIO(writer.header() + writer.row(row)), "x"))
    dump_line(row_to_result(row))


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "services": (write_services, {"id": "a", "messages": MESSAGES, "model": "m", "params": PARAMS}),
    "turns": (write_services, {"id": "a", "turns": ["x"], "system": "s", "chat_id": "c"}),
    "openai": (lambda obj: read_batch_line(obj, quiet), {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": MESSAGES} | PARAMS}),
    "responses": (lambda obj: read_batch_line(obj, quiet), {"custom_id": "a", "url": "/v1/responses", "body": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}, {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}], "text": {"format": {"type": "json_schema"}}, "reasoning": {"effort": "low"}, "tools": [{"type": "function"}], "tool_choice": {"type": "function"}}}),
    "anthropic": (lambda obj: read_anthropic_line(obj, quiet), {"custom_id": "a", "params": {"model": "m", "max_tokens": 1, "system": [{"type": "text", "text": "s"}], "messages": CLAUDE, "metadata": {"user_id": "u"}, "tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool", "name": "f"}}, "batchchat": {"line": {"id": 1}}}),
    "bedrock": (lambda obj: read_bedrock_line(obj, quiet), {"recordId": "a", "modelInput": {"anthropic_version": "v", "max_tokens": 1, "messages": CLAUDE}}),
    "converse": (lambda obj: read_bedrock_line(obj, quiet), {"recordId": "a", "modelInput": {"messages": CONVERSE, "system": [{"text": "s"}], "inferenceConfig": {"maxTokens": 1}}}),
    "anthropic results": (lambda obj: read_anthropic_result(obj, quiet), {"custom_id": "a", "result": {"type": "succeeded", "message": ANSWER, "error": {"type": "error", "error": {"type": "x", "message": "y"}}}}),
    "bedrock results": (lambda obj: read_bedrock_result(obj, quiet), {"recordId": "a", "modelInput": {"prompt": "x"}, "modelOutput": ANSWER}),
    "nova results": (lambda obj: read_bedrock_result(obj, quiet), {"recordId": "a", "modelOutput": {"output": {"message": CONVERSE[0]}, "usage": {"inputTokens": 1}, "stopReason": "x"}, "error": {"errorCode": 400, "errorMessage": "x"}}),
    "openai results": (read_openai_result, {"id": "b", "custom_id": "a", "response": {"status_code": 200, "body": CHAT}, "error": None}),
    "openai failures": (read_openai_result, {"id": "b", "custom_id": "a", "response": {"status_code": 400, "body": {"error": {"message": "m"}}}, "error": {"code": "c", "message": "m"}}),
    "flat results": (lambda obj: write_openai_result(obj, quiet), FLAT),
    "flat failures": (lambda obj: write_openai_result(obj, quiet), FAILED),
    "table": (to_table, FLAT),
    "table of failures": (to_table, FAILED),
}  # fmt: skip

TEXT = st.text(max_size=3) | st.sampled_from(
    ("'", '"', "a,b", "a;b", "a\tb", "\r\n", "=1", "5", "null", "[]", "\ufeff", "\0", " x ")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside of a JSON value."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_anything_in_any_place_is_read_or_told(case: str, data: st.DataObject) -> None:
    change, line = CASES[case]
    line = copy.deepcopy(line)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(line))))
        holder: Any = line
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[path[-1]] = data.draw(JSON)
        else:
            del holder[path[-1]]
        if not line:
            break
    try:
        change(json.loads(json.dumps(line)))
    except ValueError as error:
        assert str(error)
        assert "\n" not in str(error)


LINE = st.fixed_dictionaries(
    {"id": st.integers() | TEXT.filter(str.strip), "prompt": TEXT.filter(str.strip)},
    optional={"system": TEXT, "model": st.just("m"), "params": st.dictionaries(TEXT, JSON, max_size=2), "a": JSON, "b;": JSON},
)  # fmt: skip
RESULT = st.builds(
    lambda error, changes, given, value: {**(FAILED if error else FLAT), **changes, **value, "input": given},
    st.booleans(),
    st.fixed_dictionaries({"id": st.integers() | TEXT.filter(str.strip), "model": st.none() | TEXT}),
    st.none() | LINE,
    st.fixed_dictionaries({}, optional={"parsed": JSON, "value": JSON, "variant": st.just({"id": 1, "sample": 2}), "failed_attempts": st.just([{"attempt": 1, "status": 502}])}),
)  # fmt: skip


@pytest.mark.parametrize("table", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("lines", [st.lists(LINE, min_size=1, max_size=3), st.lists(RESULT, min_size=1, max_size=3)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_table_gives_back_what_it_got_or_tells_the_loss(table: str, lines: Any, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told: list[Any] = []
        there, back = f"{folder}/t.{table}", f"{folder}/back.jsonl"
        source = Path(folder, "in.jsonl")
        source.write_bytes(b"".join(map(dump_line, data.draw(lines))))
        try:
            convert(Conversion(source=str(source), target=there), lambda *fault: None, told.append)
        except BatchchatError:
            return
        convert(Conversion(source=there, target=back), lambda *fault: told.append(fault), told.append)
        # Nested keys in an order of their own are the same to every reader.
        before, after = ([json.loads(line) for line in Path(name).read_bytes().splitlines()] for name in (source, back))
        assert before == after or told


@pytest.mark.parametrize("case", CASES)
def test_each_place_with_each_type_is_read_or_told(case: str) -> None:
    change, example = CASES[case]
    change(copy.deepcopy(example))
    for path in places(example):
        for value in (None, True, 5, 0.5, "", "x", [], [5], [None], {}, {"x": 5}, [{}], [[]]):
            line = copy.deepcopy(example)
            holder: Any = line
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            try:
                change(line)
            except ValueError as error:
                assert "expected" in str(error) or "found" in str(error), (path, value, str(error))


FULL = {"id": "a", "response": "x", "responses": ["x"], "tool_calls": [{}], "choices": ["x"], "parsed": {}, "value": "v", "error": None, "finish_reason": "stop", "model": "m", "usage": {"input_tokens": 1, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 1, "estimated": True}, "attempts": 1, "latency_s": 1, "first_delta_s": None, "finished_at": "2026-01-01T00:00:00.000Z", "provider": "p", "index": 0, "fingerprint": "f", "reused_from": {"id": 1}, "variant": {"sample": 1}, "failed_attempts": [{"attempt": 1}], "input": {"prompt": "q"}}  # fmt: skip


def changed_lines() -> Iterator[dict[str, Any]]:
    """Results with each place left out, moved to the end, or holding each type, and with one key more."""
    for example in (FLAT, FAILED, FULL, FLAT | {"extra": 1}):
        yield copy.deepcopy(example)
        for path in places(example):
            for value in (..., "moved", None, True, 5, 0.5, "", "x", [], [None], {}, {"x": 5}):
                line = copy.deepcopy(example)
                holder: Any = line
                for key in path[:-1]:
                    holder = holder[key]
                kept = holder[path[-1]]
                if value is ... or (value == "moved" and isinstance(holder, dict)):
                    del holder[path[-1]]
                if value is not ...:
                    holder[path[-1]] = kept if value == "moved" else value
                yield line


def changed_batch_lines() -> Iterator[dict[str, Any]]:
    """Answers in the batch form, ours and the hosted service's, each place left out or of each type."""
    ours = write_openai_result(FLAT, quiet)
    hosted = {"id": "b", "custom_id": "a", "response": {"status_code": 200, "body": CHAT}, "error": None}
    plain = copy.deepcopy(hosted)
    del plain["response"]["body"]["choices"][0]["message"]["tool_calls"]
    plain["response"]["body"]["usage"] |= {"prompt_tokens_details": {"cached_tokens": 1}}
    for example in (ours, hosted, plain):
        yield copy.deepcopy(example)
        for path in places(example):
            for value in (..., None, True, 5, 0.5, "", "x", [], [None], {}, {"x": 5}, FLAT["finished_at"]):
                line = copy.deepcopy(example)
                holder: Any = line
                for key in path[:-1]:
                    holder = holder[key]
                if value is ...:
                    del holder[path[-1]]
                else:
                    holder[path[-1]] = value
                yield line


def changed_times() -> Iterator[dict[str, Any]]:
    """Answers that ended at times which are written in other ways than a run's, or at none."""
    for text in (
        "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.0000Z", "2026-01-01T00:00:60.000Z", "2026-02-29T00:00:00.000Z",
        "2026-W48-3T10:03:11.120Z", "2026-01-01 00:00:00.000Z", "2026-01-01T00:00:00,000Z", "2026-01-01T00:00:00.٠٠٠Z",
        "1969-12-31T23:59:59.500Z", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", "2026-01-01T24:00:00.000Z",
        "2026-01-01T00:00:00.000z", "2026-01-01T00:00:٠٠.000Z", "2026-12-31T23:59:59.999Z",
    ):  # fmt: skip
        yield FLAT | {"finished_at": text}


def outcomes() -> list[Any]:
    """What becomes of each changed line in both directions: what is written and told, or the fault."""
    found: list[Any] = []

    def tell(what: str, fate: str) -> None:
        found.append((what, fate))

    for line in changed_batch_lines():
        try:
            found.append(dump_line(read_openai_result(line)))
        except ValueError as error:
            found.append(str(error))
    for line in (*changed_lines(), *changed_times()):
        try:
            tell_row_losses(line, result_to_row(line), tell)
        except ValueError as error:
            found.append(str(error))
        try:
            found.append(dump_line(write_openai_result(line, tell)))
        except ValueError as error:
            found.append(str(error))
    return found


def test_looking_at_a_lines_shape_tells_what_reading_it_back_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = outcomes()
    monkeypatch.setattr(result_rows, "_is_ordinary", lambda line: False)
    monkeypatch.setattr(openai_results, "is_whole_as_batch", lambda outcome: False)
    monkeypatch.setattr(openai_results, "plain_to_batch", lambda line: None)
    monkeypatch.setattr(openai_results, "plain_from_batch", lambda line: None)
    assert quick == outcomes()
