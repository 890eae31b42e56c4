"""The input as prompts and faults: forms, ids, duplicates, picking, CSV, streaming."""

import gzip
import itertools
import json
import os
import re
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from batchchat.errors import ConfigError, PromptFileError
from batchchat.prompts import InputSettings, PromptReader, draw
from batchchat.records import InputFault, Prompt


def reader(*paths: Path | str, **settings: Any) -> PromptReader:
    return PromptReader(InputSettings(paths=tuple(map(str, paths)), **settings))


def write(path: Path, *lines: Any) -> Path:
    """A JSON Lines file; text stands as it is, anything else becomes JSON."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8")
    return path


def read(tmp_path: Path, *lines: Any, **settings: Any) -> list[Prompt | InputFault]:
    return list(reader(write(tmp_path / "in.jsonl", *lines), **settings))


def one(tmp_path: Path, line: Any, **settings: Any) -> Prompt:
    (item,) = read(tmp_path, line, **settings)
    assert isinstance(item, Prompt), item
    return item


def fault(tmp_path: Path, line: Any, **settings: Any) -> str:
    (item,) = read(tmp_path, line, **settings)
    assert isinstance(item, InputFault), item
    return item.reason


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


class TestForms:
    def test_prompt(self, tmp_path: Path) -> None:
        prompt = one(tmp_path, {"id": "a", "prompt": "Hello", "topic": {"n": [1]}})
        assert prompt == Prompt(
            id="a", index=0, line_number=1, messages=[user("Hello")], line={"prompt": "Hello", "topic": {"n": [1]}}
        )

    def test_messages_are_sent_as_given(self, tmp_path: Path) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "42", "tool_call_id": "1"},
            {"role": "assistant", "content": "So"},
        ]
        prompt = one(tmp_path, {"id": 1, "messages": messages})
        assert prompt.messages == messages
        assert prompt.system is None

    def test_turns(self, tmp_path: Path) -> None:
        prompt = one(tmp_path, {"id": 1, "turns": ["One", "Two"], "category": "c"})
        assert (prompt.turns, prompt.messages) == (("One", "Two"), [])
        assert prompt.line == {"turns": ["One", "Two"], "category": "c"}

    def test_batch_line(self, tmp_path: Path) -> None:
        body = {"model": "m", "messages": [user("Hi")], "temperature": 0, "stream": True, "stream_options": {}}
        line = {"custom_id": "c-1", "method": "POST", "url": "/v1/chat/completions", "body": body}
        prompt = one(tmp_path, line)
        assert (prompt.id, prompt.messages, prompt.model) == ("c-1", [user("Hi")], "m")
        assert prompt.params == {"temperature": 0}
        assert prompt.line == {"method": "POST", "url": "/v1/chat/completions", "body": body}

    def test_what_stands_on_the_batch_line_itself_beats_its_body(self, tmp_path: Path) -> None:
        line = {
            "custom_id": "c",
            "body": {"model": "m", "messages": [user("Hi")], "top_p": 1, "seed": 2},
            "model": "n",
            "params": {"seed": 3},
        }
        prompt = one(tmp_path, line)
        assert (prompt.model, prompt.params) == ("n", {"top_p": 1, "seed": 3})

    def test_order_of_forms(self, tmp_path: Path) -> None:
        line: dict[str, Any] = {"id": 1, "turns": ["t"]}
        assert one(tmp_path, line).turns == ("t",)
        assert one(tmp_path, line := line | {"prompt": "p"}).messages == [user("p")]
        assert one(tmp_path, line := line | {"messages": [user("m")]}).messages == [user("m")]
        assert one(tmp_path, line | {"body": {"messages": [user("b")]}}).messages == [user("b")]

    def test_null_counts_as_absent(self, tmp_path: Path) -> None:
        names = ("messages", "prompt", "system", "model", "params", "chat_id")
        prompt = one(tmp_path, {"id": 1, "turns": ["t"]} | dict.fromkeys(names))
        assert prompt.turns == ("t",)
        assert (prompt.system, prompt.model, prompt.params, prompt.chat_id) == (None, None, {}, None)

    def test_settings_of_a_line(self, tmp_path: Path) -> None:
        line = {"id": 1, "prompt": "p", "system": "s", "model": "m", "params": {"temperature": 0}, "chat_id": "c"}
        prompt = one(tmp_path, line)
        assert (prompt.system, prompt.model, prompt.params, prompt.chat_id) == ("s", "m", {"temperature": 0}, "c")

    def test_a_field_called_body_alone_makes_no_batch_line(self, tmp_path: Path) -> None:
        assert one(tmp_path, {"prompt": "p", "body": "text"}).messages == [user("p")]

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ({"prompt": ""}, "found an empty prompt in 'prompt', expected text"),
            ({"prompt": " \n"}, "found an empty prompt in 'prompt', expected text"),
            ({"prompt": ["x"]}, "expected text in 'prompt', found a list"),
            ({"prompt": None}, "expected a prompt in 'prompt', found null"),
            ({"turns": []}, "expected a list of texts in 'turns', found an empty list"),
            ({"turns": "x"}, "expected a list of texts in 'turns', found text"),
            ({"turns": ["a", " "]}, "found an empty prompt in 'turns[1]', expected text"),
            ({"turns": ["a", 1]}, "expected text in 'turns[1]', found an integer"),
            ({"messages": {}}, "expected a list of messages in 'messages', found an object"),
            ({"messages": []}, "expected a user message that is not empty in 'messages', found an empty list"),
            (
                {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": " "}]},
                "expected a user message that is not empty in 'messages', found none",
            ),
            (
                {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
                "expected a user message that is not empty in 'messages', found none",
            ),
            ({"messages": ["x"]}, "expected an object in 'messages[0]', found text"),
            ({"messages": [{"content": "x"}]}, "expected a role (text) in 'messages[0].role', found none"),
            ({"messages": [{"role": 1}]}, "expected a role (text) in 'messages[0].role', found an integer"),
            ({"messages": [{"role": ""}]}, "expected a role (text) in 'messages[0].role', found empty text"),
            (
                {"messages": [user("x"), {"role": "user", "content": 1}]},
                "expected text, null or a list of parts in 'messages[1].content', found an integer",
            ),
            (
                {"messages": [{"role": "user", "content": ["x"]}]},
                "expected an object in 'messages[0].content[0]', found text",
            ),
            ({"prompt": "p", "system": 1}, "expected text in 'system', found an integer"),
            ({"prompt": "p", "model": ["m"]}, "expected text in 'model', found a list"),
            ({"prompt": "p", "params": "x"}, "expected an object in 'params', found text"),
            ({"prompt": "p", "chat_id": 5}, "expected text in 'chat_id', found an integer"),
            ({"custom_id": "c", "body": "x"}, "expected an object in 'body', found text"),
            ({"custom_id": "c", "body": {"input": "x"}}, "expected 'messages' in 'body', found only 'input'"),
            (
                {"custom_id": "c", "body": {"messages": [user("x")], "model": 1}},
                "expected text in 'body.model', found an integer",
            ),
            (
                {"custom_id": "c", "method": "GET", "body": {"messages": [user("x")]}},
                "expected POST in 'method', found 'GET'",
            ),
            (
                {"custom_id": "c", "url": "/v1/embeddings", "body": {"messages": [user("x")]}},
                "expected the url of chat completions or responses in 'url' (/v1/chat/completions, /v1/responses), "
                "found '/v1/embeddings'",
            ),
            (
                {"question": "x", "n": 1},
                "expected 'prompt', 'messages', 'turns' or a batch line's 'body' (or a prompt template), "
                "found only 'question', 'n'",
            ),
            (
                {},
                "expected 'prompt', 'messages', 'turns' or a batch line's 'body' (or a prompt template), "
                "found no fields",
            ),
            ("[1]", "expected a JSON object, found a list"),
        ],
    )
    def test_faults_name_what_was_found_and_expected(self, tmp_path: Path, line: Any, reason: str) -> None:
        assert fault(tmp_path, line) == reason


class TestTemplates:
    def test_template_makes_the_message_and_forms_do_not_count(self, tmp_path: Path) -> None:
        line = {"id": 1, "question": "Why?", "prompt": "", "messages": 3, "turns": [], "body": {"messages": []}}
        prompt = one(tmp_path, line, prompt_template="Q{{ id }}: {{ question }}")
        assert prompt.messages == [user("Q1: Why?")]
        assert prompt.turns == ()

    def test_line_beats_the_system_template(self, tmp_path: Path) -> None:
        template = "You know {{ topic }}."
        line = {"prompt": "p", "topic": "maths"}
        assert one(tmp_path, line, system_template=template).system == "You know maths."
        assert one(tmp_path, line | {"system": "s"}, system_template=template).system == "s"
        assert one(tmp_path, line | {"system": ""}, system_template=template).system is None

    def test_undefined_field_and_empty_text_are_faults_of_the_line(self, tmp_path: Path) -> None:
        assert fault(tmp_path, {"a": 1}, prompt_template="{{ b }}") == (
            "prompt template: 'b' is undefined; the line has 'a'"
        )
        assert fault(tmp_path, {"a": " "}, prompt_template="{{ a }}\n") == (
            "the prompt template gives an empty prompt for this line, expected text"
        )
        assert "system template: 'b' is undefined" in fault(tmp_path, {"prompt": "p"}, system_template="{{ b }}")

    def test_broken_template_is_told_before_any_line(self) -> None:
        with pytest.raises(ConfigError, match="prompt template"):
            reader("-", prompt_template="{{")


class TestIds:
    @pytest.mark.parametrize("id", ["a", "HumanEval/0", 0, -7, 2**70, "1", " x "])
    def test_id_comes_back_in_its_type_and_leaves_the_line(self, tmp_path: Path, id: str | int) -> None:
        for name in ("id", "custom_id"):
            prompt = one(tmp_path, {name: id, "prompt": "p"})
            assert prompt.id == id
            assert type(prompt.id) is type(id)
            assert prompt.line == {"prompt": "p"}

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"id": ""}, "found an empty id in 'id', expected text or an integer"),
            ({"custom_id": " "}, "found an empty id in 'custom_id', expected text or an integer"),
            ({"id": True}, "expected text or an integer in 'id', found true"),
            ({"id": 1.0}, "expected text or an integer in 'id', found a number"),
            ({"id": None}, "expected text or an integer in 'id', found null"),
            ({"id": 1, "custom_id": "1"}, "found two ids, 'id' 1 and 'custom_id' '1'; expected one, or the same twice"),
        ],
    )
    def test_what_is_no_id(self, tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
        assert fault(tmp_path, {"prompt": "p"} | fields) == reason

    def test_same_id_under_both_names_is_one(self, tmp_path: Path) -> None:
        prompt = one(tmp_path, {"id": "x", "custom_id": "x", "prompt": "p"})
        assert (prompt.id, prompt.line) == ("x", {"prompt": "p"})

    def test_id_field(self, tmp_path: Path) -> None:
        prompt = one(tmp_path, {"key": 7, "id": "other", "prompt": "p"}, id_field="key")
        assert (prompt.id, prompt.line) == (7, {"id": "other", "prompt": "p"})
        assert fault(tmp_path, {"id": 1, "prompt": "p"}, id_field="key") == (
            "expected the id in 'key', found only 'id', 'prompt'"
        )

    def test_made_ids_depend_on_what_is_asked_alone(self, tmp_path: Path) -> None:
        asked = {"prompt": "p", "system": "s", "params": {"a": 1, "b": 2}}
        first = one(tmp_path, asked | {"note": 1, "chat_id": "c"}).id
        assert isinstance(first, str)
        assert re.fullmatch(r"p-[0-9a-f]{16}", first)
        assert one(tmp_path, {"note": 2, "params": {"b": 2, "a": 1}, "system": "s", "prompt": "p"}).id == first
        assert one(tmp_path, {"messages": [user("p")]} | {k: asked[k] for k in ("system", "params")}).id == first
        others = [{"prompt": "q"}, {"system": "t"}, {"params": {"a": 1, "b": 2**70}}, {"model": "m"}]
        assert len({first, *(one(tmp_path, asked | other).id for other in others)}) == 5

    def test_made_ids_are_the_same_in_every_version(self, tmp_path: Path) -> None:
        """Resuming finds answers by them, so they must never change."""
        assert one(tmp_path, {"prompt": "Hello"}).id == "p-7d0c24b5b034fc9c"
        assert one(tmp_path, {"turns": ["Hello", "Bye"], "model": "m"}).id == "p-a4bd214fbebb5a89"

    def test_repetitions_are_counted(self, tmp_path: Path) -> None:
        items = read(tmp_path, *[{"prompt": text} for text in "abaab"])
        base = {text: items[position].id for text, position in (("a", 0), ("b", 1))}
        assert [item.id for item in items] == [
            base["a"],
            base["b"],
            f"{base['a']}-2",
            f"{base['a']}-3",
            f"{base['b']}-2",
        ]

    def test_made_id_gives_way_to_a_given_one(self, tmp_path: Path) -> None:
        base = one(tmp_path, {"prompt": "a"}).id
        items = read(tmp_path, {"id": f"{base}-2", "prompt": "x"}, {"prompt": "a"}, {"prompt": "a"})
        assert [item.id for item in items] == [f"{base}-2", base, f"{base}-3"]


class TestDuplicates:
    LINES = ({"id": "a", "prompt": "1"}, {"id": "a", "prompt": "2"}, {"id": "b", "prompt": "3"})

    def test_error_names_the_first_place(self, tmp_path: Path) -> None:
        first = write(tmp_path / "1.jsonl", "", self.LINES[0])
        second = write(tmp_path / "2.jsonl", *self.LINES[1:])
        items = list(reader(first, second))
        assert isinstance(items[1], InputFault)
        assert items[1].reason.startswith(f"duplicate id 'a' (first at {first}:2), expected each id once")
        assert (items[1].path, items[1].line_number, items[1].index) == (str(second), 1, 1)
        assert items[1].line == {"id": "a", "prompt": "2"}

    def test_first_passes_over_later_ones(self, tmp_path: Path) -> None:
        items = read(tmp_path, *self.LINES, on_duplicate="first")
        assert [(item.id, item.index) for item in items] == [("a", 0), ("b", 2)]

    def test_suffix_takes_the_next_free_one(self, tmp_path: Path) -> None:
        lines = [{"id": id, "prompt": "p"} for id in ("a-2", "a", "a", "a", 5, 5, "5", "5")]
        items = read(tmp_path, *lines, on_duplicate="suffix")
        assert [item.id for item in items] == ["a-2", "a", "a-3", "a-4", 5, "5-2", "5", "5-3"]

    def test_number_and_text_are_two_ids(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": 1, "prompt": "p"}, {"id": "1", "prompt": "p"})
        assert all(isinstance(item, Prompt) for item in items)

    def test_each_reading_begins_anew(self, tmp_path: Path) -> None:
        prompts = reader(write(tmp_path / "in.jsonl", *self.LINES))
        assert list(prompts) == list(prompts)


class TestErrorsFile:
    def failed(self, **fields: Any) -> dict[str, Any]:
        line = {"id": "a", "response": None, "error": {"type": "server", "message": "x"}, "attempts": 6}
        return line | {"input": {"question": "Why?"}} | fields

    def test_failed_prompt_is_read_from_its_error_line(self, tmp_path: Path) -> None:
        line = self.failed(id=7, input={"prompt": "p", "n": 1})
        prompt = one(tmp_path, line)
        assert (prompt.id, prompt.messages, prompt.line) == (7, [user("p")], {"prompt": "p", "n": 1})

    def test_id_stands_where_the_template_looks_for_it(self, tmp_path: Path) -> None:
        prompt = one(tmp_path, self.failed(), id_field="key", prompt_template="{{ key }}: {{ question }}")
        assert (prompt.id, prompt.messages, prompt.line) == ("a", [user("a: Why?")], {"question": "Why?"})

    def test_batch_line_is_read_from_its_error_line(self, tmp_path: Path) -> None:
        given = {"method": "POST", "url": "/v1/chat/completions", "body": {"messages": [user("x")]}}
        assert one(tmp_path, self.failed(id="c", input=given)).messages == [user("x")]

    @pytest.mark.parametrize("response", [None, {"status_code": 500, "body": {}}])
    def test_batch_form_of_an_error_line(self, tmp_path: Path, response: Any) -> None:
        error = {"code": "server", "message": "x"} if response is None else None
        ours = {"id": 5, "input": {"prompt": "p"}}
        line = {"id": "r-1", "custom_id": "5", "response": response, "error": error, "batchchat": ours}
        prompt = one(tmp_path, line)
        assert (prompt.id, prompt.messages, prompt.line) == (5, [user("p")], {"prompt": "p"})
        del ours["id"]
        assert one(tmp_path, line).id == "5"

    def test_input_fault_comes_back_as_the_line_it_was(self, tmp_path: Path) -> None:
        error = {"type": "input", "message": "x"}
        prompt = one(tmp_path, self.failed(id="line-3", error=error, input={"id": "own", "prompt": "mended"}))
        assert prompt.id == "own"
        assert fault(tmp_path, self.failed(id="line-3", error=error, input=None)).startswith(
            "found an earlier run's input fault without its input"
        )

    def test_fields_of_such_names_are_otherwise_left_alone(self, tmp_path: Path) -> None:
        line = {"prompt": "p", "error": "e", "input": {"prompt": "other"}, "response": "r"}
        assert one(tmp_path, line).messages == [user("p")]


class TestFaults:
    def test_a_fault_carries_its_place_and_the_lines_around_it_are_read(self, tmp_path: Path) -> None:
        items = read(
            tmp_path, {"id": 1, "prompt": "a"}, "", "{broken", {"id": 2, "prompt": ""}, {"id": 3, "prompt": "c"}
        )
        assert [(type(item), item.index, item.line_number) for item in items] == [
            (Prompt, 0, 1),
            (InputFault, 1, 3),
            (InputFault, 2, 4),
            (Prompt, 3, 5),
        ]
        assert [items[1].id, items[1].line] == ["line-3", None]
        assert [items[2].id, items[2].line] == ["line-4", {"id": 2, "prompt": ""}]

    def test_id_of_a_faulty_line_is_free(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": 1, "prompt": ""}, {"id": 1, "prompt": "a"})
        assert isinstance(items[1], Prompt)

    def test_bytes_that_are_no_text_fault_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "in.jsonl"
        path.write_bytes(b'{"id":1,"prompt":"\xff"}\n{"id":2,"prompt":"\\ud83d"}\n{"id":3,"prompt":"ok"}')
        items = list(reader(path))
        assert [type(item) for item in items] == [InputFault, InputFault, Prompt]

    def test_trouble_of_a_whole_file_comes_after_what_precedes_it(self, tmp_path: Path) -> None:
        good = write(tmp_path / "good.jsonl", {"prompt": "a"})
        cut = tmp_path / "cut.jsonl.gz"
        cut.write_bytes(gzip.compress(b'{"prompt":"b"}\n')[:-4])
        items = iter(reader(good, cut))
        assert next(items).index == 0
        assert next(items).index == 1
        with pytest.raises(PromptFileError, match="cut short"):
            next(items)
        with pytest.raises(PromptFileError, match="no such file"):
            list(reader(tmp_path / "none.jsonl"))
        with pytest.raises(PromptFileError, match="this is a folder"):
            list(reader(tmp_path))

    def test_integers_of_any_size_are_carried(self, tmp_path: Path) -> None:
        assert one(tmp_path, {"prompt": "p", "n": 2**100}).line["n"] == 2**100


class TestPicking:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write(tmp_path / "in.jsonl", *[{"id": n, "prompt": "p"} if n % 10 else "{" for n in range(100)])

    def test_limit_counts_prompts_and_faults(self, path: Path) -> None:
        assert [item.index for item in reader(path, limit=3)] == [0, 1, 2]
        assert list(reader(path, limit=0)) == []
        assert len(list(reader(path, limit=1000))) == 100

    def test_limit_reads_no_further(self, tmp_path: Path, path: Path) -> None:
        items = list(reader(path, tmp_path / "none.jsonl", limit=100))
        assert len(items) == 100

    def test_sample_is_fixed_by_its_seed_and_in_order(self, path: Path) -> None:
        drawn = [item.index for item in reader(path, sample=10, seed=4)]
        assert len(set(drawn)) == 10
        assert drawn == sorted(drawn)
        prompts = reader(path, sample=10, seed=4)
        assert [item.index for item in prompts] == [item.index for item in prompts] == drawn
        assert [item.index for item in reader(path, sample=10, seed=5)] != drawn

    def test_sample_of_more_than_there_is_is_all(self, path: Path) -> None:
        assert list(reader(path, sample=500)) == list(reader(path))
        assert list(reader(path, sample=0)) == []

    def test_sample_is_drawn_from_within_the_limit(self, path: Path) -> None:
        assert all(item.index < 20 for item in reader(path, sample=10, limit=20))

    def test_a_pipe_gives_the_sample_that_a_file_gives(self, path: Path) -> None:
        reading, writing = os.pipe()
        writer = threading.Thread(target=lambda: (os.write(writing, path.read_bytes()), os.close(writing)))
        writer.start()
        drawn = [item.index for item in reader(f"/dev/fd/{reading}", sample=10, seed=4)]
        writer.join()
        os.close(reading)
        assert drawn == [item.index for item in reader(path, sample=10, seed=4)]

    def test_every_item_has_the_same_chance(self) -> None:
        counts = [0] * 10
        for seed in range(3000):
            for item in draw(range(10), 3, seed):
                counts[item] += 1
        assert all(780 < count < 1020 for count in counts)


class TestCsv:
    def rows(
        self, tmp_path: Path, text: str | bytes, name: str = "in.csv", **settings: Any
    ) -> list[Prompt | InputFault]:
        path = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return list(reader(path, **settings))

    @pytest.mark.parametrize("mark", [";", "\t"])
    def test_a_header_tells_what_separates_cells(self, tmp_path: Path, mark: str) -> None:
        text = f'\ufeff\r\nid{mark}prompt\r\n1{mark}a, b\r\n2{mark}"c{mark}d"\r\n'
        prompts = self.rows(tmp_path, text)
        assert [(p.id, p.messages, p.line_number) for p in prompts] == [
            ("1", [user("a, b")], 3),
            ("2", [user(f"c{mark}d")], 4),
        ]
        (first, _) = self.rows(tmp_path, f"prompt,a{mark}b\nx,y\nx\n")
        assert first.line == {"prompt": "x", f"a{mark}b": "y"}

    def test_tabs_separate_cells_of_tsv(self, tmp_path: Path) -> None:
        prompts = self.rows(tmp_path, 'id\tprompt\n1\t"a, b\tc"\n2\td, e\n', name="in.tsv")
        assert [(p.id, p.messages) for p in prompts] == [("1", [user("a, b\tc")]), ("2", [user("d, e")])]
        (fault,) = self.rows(tmp_path, 'id\tprompt\n1\t"a"b\n', name="in.TSV")
        assert fault.reason.endswith('expected cells with tabs between, quoted by "')

    @pytest.mark.parametrize("name", ["in.csv", "IN.CSV", "in.csv.gz"])
    def test_rows_are_objects_of_texts(self, tmp_path: Path, name: str) -> None:
        text = '\ufeffid,prompt,n\r\n1,"a, ""b""\r\nc",2\r\n\r\nx,plain\u2028,\r\n'
        first, second = self.rows(tmp_path, text, name)
        assert isinstance(first, Prompt)
        assert (first.id, first.line_number, first.index) == ("1", 2, 0)
        assert first.line == {"prompt": 'a, "b"\r\nc', "n": "2"}
        assert isinstance(second, Prompt)
        assert (second.id, second.line_number, second.index) == ("x", 5, 1)
        assert second.line == {"prompt": "plain\u2028", "n": ""}

    def test_template_over_columns(self, tmp_path: Path) -> None:
        (prompt,) = self.rows(tmp_path, "Question text\nwhy\n", prompt_template="{{ fields['Question text'] }}?")
        assert isinstance(prompt, Prompt)
        assert prompt.messages == [user("why?")]

    def test_rows_that_do_not_fit_are_faults_of_their_line(self, tmp_path: Path) -> None:
        data = b'id,prompt\n1,a\n2\n3,c,d\n4,"e"f\n5,\xff\n6,ok\n7,"open\nto the end'
        items = self.rows(tmp_path, data)
        assert [(item.line_number, isinstance(item, Prompt)) for item in items] == [
            (2, True),
            (3, False),
            (4, False),
            (5, False),
            (6, False),
            (7, True),
            (8, False),
        ]
        reasons = [item.reason for item in items if isinstance(item, InputFault)]
        assert reasons[0] == "expected 2 cells (id, prompt), found 1"
        assert reasons[1] == "expected 2 cells (id, prompt), found 3"
        assert reasons[2].startswith("found a row that is no CSV")
        assert reasons[3] == "found bytes that are not UTF-8, expected UTF-8 text"
        assert reasons[4].startswith("found a row that is no CSV")

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ("id,prompt,id", "in.csv:1: found 'id' twice in the header, expected names that differ"),
            ("id,,prompt", "in.csv:1: expected a name for column 2 in the header, found none"),
            ("\nid,prompt, ", "in.csv:2: expected a name for column 3 in the header, found none"),
        ],
    )
    def test_header_must_name_every_column_once(self, tmp_path: Path, header: str, reason: str) -> None:
        with pytest.raises(PromptFileError) as caught:
            self.rows(tmp_path, header + "\n1,2,3\n")
        assert str(caught.value).endswith(reason)

    def test_header_that_is_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(PromptFileError, match="header line: found bytes that are not UTF-8"):
            self.rows(tmp_path, b"id,\xff\n1,2\n")

    def test_huge_cells_are_read(self, tmp_path: Path) -> None:
        (prompt,) = self.rows(tmp_path, f'prompt\n"{"x" * 1_000_000}"\n')
        assert isinstance(prompt, Prompt)
        assert len(prompt.line["prompt"]) == 1_000_000

    @pytest.mark.parametrize("text", ["", "\n\n", "id,prompt\n"])
    def test_no_rows_no_prompts(self, tmp_path: Path, text: str) -> None:
        assert self.rows(tmp_path, text) == []

    def test_one_column_may_hold_an_empty_prompt(self, tmp_path: Path) -> None:
        items = self.rows(tmp_path, 'prompt\n""\n   \nx\n')
        assert [type(item) for item in items] == [InputFault, Prompt]


class TestStreaming:
    def test_whether_input_can_be_read_again(self, tmp_path: Path) -> None:
        path = write(tmp_path / "in.jsonl")
        os.mkfifo(tmp_path / "pipe")
        assert reader(path, tmp_path / "none.jsonl").reiterable
        assert not reader(path, "-").reiterable
        assert not reader(tmp_path / "pipe").reiterable

    def test_prompt_comes_out_while_the_pipe_is_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, writing = os.pipe()
        with open(reading, encoding="utf-8") as standard_input:
            monkeypatch.setattr(sys, "stdin", standard_input)
            os.write(writing, b'{"id":1,"prompt":"a"}\n')
            items = iter(reader("-"))
            assert next(items).id == 1
            os.close(writing)
            assert list(items) == []
            assert not standard_input.buffer.closed

    def test_memory_does_not_grow_with_the_input(self, tmp_path: Path) -> None:
        """30,000 lines through a pipe, 60 MB in all; what stays is the table of ids and a buffer."""
        reading, writing = os.pipe()

        def feed() -> None:
            with open(writing, "wb") as stream:
                stream.writelines(b'{"id":%d,"prompt":"%s"}\n' % (number, b"x" * 2000) for number in range(30_000))

        writer = threading.Thread(target=feed)
        prompts = reader(f"/dev/fd/{reading}")
        tracemalloc.start()
        try:
            writer.start()
            count = sum(1 for _ in prompts)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            writer.join()
            os.close(reading)
        assert count == 30_000
        assert peak < 5_000_000

    def test_first_prompts_are_there_before_a_long_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "in.jsonl"
        path.write_bytes(b'{"prompt":"a"}\n' * 100_000)
        with open(path, "ab") as stream:
            stream.truncate(8 << 30)  # a hole of 8 GiB, which no test has the time to read
        items = list(itertools.islice(reader(path), 1000))
        assert len(items) == 1000


def test_plain_lines_are_read_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way for them must find what the long one finds, in lines that are nearly plain as well."""
    values: dict[str, list[Any]] = {
        "id": ["a", "", " ", " a ", 7, None, "\u2003", True],
        "prompt": ["x", "", "\n\t", " x", None, 3, ["x"]],
        "messages": [[{"role": "user", "content": "m"}], None],
        "turns": [["t"], None],
        "system": ["s", None, ""],
        "model": ["m", None, 1],
        "params": [{"n": 1}, None, []],
        "chat_id": ["c", None, ""],
        "custom_id": ["a", "b", None],
        "body": [{"messages": []}, None],
        "error": [None, {"type": "server"}],
        "url": [None, "x"],
        "topic": ["carried", None],
    }
    extra = [(name, value) for name, found in values.items() for value in found]
    lines: list[dict[str, Any]] = [{"id": id, "prompt": prompt} for id in values["id"] for prompt in values["prompt"]]
    for (name, value), (other, second) in itertools.product(extra, extra):
        lines.append({"id": f"{len(lines)}", "prompt": "p", name: value, other: second})
    for mode in ("error", "first", "suffix"):
        path = write(tmp_path / "in.jsonl", *lines)
        short = list(reader(path, on_duplicate=mode))
        with monkeypatch.context() as patched:
            patched.setattr("batchchat.prompts.is_plain", lambda fields: False)
            long = list(reader(path, on_duplicate=mode))
        assert short == long
        assert sum(isinstance(item, Prompt) for item in short) > 100
