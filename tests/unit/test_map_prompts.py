"""A stage without a cluster: what a worker makes of tables, and what cannot be had."""

import sys
from pathlib import Path
from typing import Any

import pytest

from batchchat.errors import ConfigError
from batchchat.ray import map_prompts
from batchchat.ray.table_prompts import RowSettings, TablePrompts, check_columns

pa = pytest.importorskip("pyarrow")


def prompts_of(table: Any, **settings: Any) -> list[Any]:
    from batchchat.config import load_job

    job = load_job(None, {"input": ["rows"], **settings.pop("job", {})})
    rows = RowSettings(**{"prompt": None, "id": None, "place": "/row", **settings})
    items = TablePrompts(job.input_settings(), rows).read(table, lambda prompt: "f", lambda prompt: None)
    return [item[0] if isinstance(item, tuple) else item for item in items]


def test_without_ray_a_sentence_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"map_prompts needs Ray Data.*pip install 'batchchat\[ray\]'"):
        map_prompts([])  # type: ignore[arg-type]


def test_column_of_the_prompt_is_all_that_is_asked() -> None:
    """Columns that an input line gives a meaning have none there."""
    table = pa.table({"q": ["one", None], "model": ["a car", "a car"], "messages": [None, None], "params": [1, 2]})
    good, bad = prompts_of(table, prompt="q")
    assert (good.messages, good.model, good.params) == ([{"role": "user", "content": "one"}], None, {})
    assert bad.reason == "expected a prompt in 'q', found null"


def test_messages_in_a_column_are_sent_as_they_are() -> None:
    messages = [{"role": "user", "content": "hello"}]
    (found,) = prompts_of(pa.table({"q": [messages]}), prompt="q")
    assert found.messages == messages


def test_row_is_an_input_line_where_no_column_is_named() -> None:
    table = pa.table({"id": [5, 6], "prompt": ["one", "two"], "model": ["m", None], "note": [float("nan"), 1.0]})
    bad, good = prompts_of(table)
    assert bad.reason == "found NaN, expected a number; JSON has no such value (column 'note')"
    assert (good.id, good.index, good.model) == (6, 1, None)


def test_template_takes_the_columns() -> None:
    (found,) = prompts_of(pa.table({"a": [1], "b": ["x"]}), job={"prompt.template": "{{ a }} and {{ b }}"})
    assert found.messages[0]["content"] == "1 and x"


def test_every_row_of_a_long_table_is_read_in_its_order() -> None:
    table = pa.table({"q": [f"question {n}" for n in range(2500)]})
    found = prompts_of(table, prompt="q")
    assert [prompt.index for prompt in found] == list(range(2500))
    assert found[-1].messages[0]["content"] == "question 2499"


@pytest.mark.parametrize("missing", ["prompt", "id"])
def test_column_that_is_not_there_is_told(missing: str) -> None:
    rows = RowSettings(**{"prompt": None, "id": None, "place": "", missing: "nope"})
    with pytest.raises(ConfigError, match="the rows have no column 'nope', expected one of these: a, b"):
        check_columns(["a", "b"], rows, [], [])


@pytest.mark.parametrize("kind", ["null", "huge", "surrogate", "json"])
def test_answers_of_any_kind_fit_one_schema(kind: str, tmp_path: Path) -> None:
    from batchchat.ray.answer_columns import ANSWER_COLUMNS, with_answers
    from batchchat.records import Completion, Failure, Outcome, Usage

    failed = Outcome(id="a", index=0, error=Failure(type="server", message="no", status=500))
    other = {
        "null": Completion(text=None),
        "huge": Completion(text="x", usage=Usage(input_tokens=1 << 70, output_tokens=3)),
        "surrogate": Completion(text="\ud83d"),
        "json": Completion(text="x", tool_calls=[{"id": "c"}]),
    }[kind]
    table = pa.table({"n": [1, 2]})
    found = with_answers(table, [failed, Outcome(id="b", index=1, completion=other)], "")
    assert found.column_names == ["n", *ANSWER_COLUMNS]
    assert found.schema == with_answers(table.slice(0, 1), [failed], "").schema
    first = found.to_pylist()[0]
    assert (first["error_type"], first["error_status"], first["response"]) == ("server", 500, None)
