"""Few-shot examples: which files are some, and where their messages go."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.errors import PromptFileError
from batchchat.examples import MOST_EXAMPLES
from batchchat.input_settings import ExamplesFile
from batchchat.prompts import InputSettings, PromptReader
from tests.unit.test_prompts import one, read, user, write

SHOTS = [{"q": "1+1", "a": "2"}, {"q": "2+2", "a": "4"}]


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def shots(tmp_path: Path, *lines: Any, **settings: Any) -> ExamplesFile:
    return ExamplesFile(path=str(write(tmp_path / "shots.jsonl", *lines)), **settings)


def refusal(examples: ExamplesFile, **settings: Any) -> str:
    with pytest.raises(PromptFileError) as caught:
        PromptReader(InputSettings(paths=("x",), examples=examples, **settings))
    assert caught.value.exit_code == 3
    return str(caught.value)


class TestMessages:
    def test_examples_are_made_by_the_prompts_template(self, tmp_path: Path) -> None:
        prompt = one(
            tmp_path,
            {"id": "x", "q": "3+3"},
            prompt_template="{{ q }}=",
            system_template="Count.",
            examples=shots(tmp_path, *SHOTS, answer="a"),
        )
        assert prompt.messages == [user("1+1="), answer("2"), user("2+2="), answer("4"), user("3+3=")]
        assert prompt.system == "Count."

    def test_each_template_makes_its_own(self, tmp_path: Path) -> None:
        short, long = read(
            tmp_path,
            {"id": "x", "q": "3+3"},
            templates={"short": "{{ q }}", "long": "What is {{ q }}?"},
            examples=shots(tmp_path, SHOTS[0], answer="a"),
        )
        assert short.messages == [user("1+1"), answer("2"), user("3+3")]
        assert long.messages == [user("What is 1+1?"), answer("2"), user("What is 3+3?")]

    def test_without_a_template_the_examples_form_counts(self, tmp_path: Path) -> None:
        history = [user("a"), answer("b"), user("c")]
        examples = shots(tmp_path, {"prompt": "p", "response": "r"}, {"messages": history, "response": "d"})
        prompt = one(tmp_path, {"prompt": "x"}, examples=examples)
        assert prompt.messages == [user("p"), answer("r"), *history, answer("d"), user("x")]

    def test_they_stand_behind_system_messages_and_before_turns(self, tmp_path: Path) -> None:
        examples = shots(tmp_path, {"prompt": "p", "response": "r"})
        system = [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}]
        chat, turns, batch = read(
            tmp_path,
            {"id": 1, "messages": [*system, user("a"), answer("b"), user("c")]},
            {"id": 2, "turns": ["t", "u"]},
            {"custom_id": "3", "body": {"messages": [*system, user("a")]}},
            examples=examples,
        )
        assert chat.messages == [*system, user("p"), answer("r"), user("a"), answer("b"), user("c")]
        assert (turns.messages, turns.turns) == ([user("p"), answer("r")], ("t", "u"))
        assert batch.messages == [*system, user("p"), answer("r"), user("a")]

    def test_a_results_file_is_one_of_examples(self, tmp_path: Path) -> None:
        result = {"id": "a", "response": "r", "error": None, "attempts": 1, "input": {"prompt": "p", "label": 3}}
        prompt = one(tmp_path, {"prompt": "x"}, examples=shots(tmp_path, result))
        assert prompt.messages == [user("p"), answer("r"), user("x")]
        prompt = one(tmp_path, {"prompt": "x"}, examples=shots(tmp_path, result, answer="label"))
        assert prompt.messages[1] == answer("3")

    @pytest.mark.parametrize(
        ("value", "text"),
        [("é\n", "é\n"), (0, "0"), (2**70, str(2**70)), (1.5, "1.5"), (False, "false"), ({"a": ["ü"]}, '{"a": ["ü"]}'), ([], "[]")],
    )  # fmt: skip
    def test_answers_are_texts_or_told_as_json(self, tmp_path: Path, value: Any, text: str) -> None:
        prompt = one(tmp_path, {"prompt": "x"}, examples=shots(tmp_path, {"prompt": "p", "response": value}))
        assert prompt.messages[1] == answer(text)

    def test_csv_and_compressed_files_and_a_limit_work(self, tmp_path: Path) -> None:
        (tmp_path / "s.csv").write_text("q,a\n1,2\n3,4\n")
        (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(b'{"q": 1, "a": "2"}\n\n{"q": 3, "a": "4"}\n'))
        for name in ("s.csv", "s.jsonl.gz"):
            examples = ExamplesFile(path=str(tmp_path / name), answer="a", limit=1)
            prompt = one(tmp_path, {"q": 5}, prompt_template="{{ q }}", examples=examples)
            assert prompt.messages == [user("1"), answer("2"), user("5")]

    def test_ids_of_lines_without_one_do_not_hang_on_examples(self, tmp_path: Path) -> None:
        line = {"prompt": "x"}
        examples = shots(tmp_path, {"prompt": "p", "response": "r"})
        assert one(tmp_path, line).id == one(tmp_path, line, examples=examples).id


class TestFaults:
    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ({"prompt": "p"}, "expected the answer in 'response', found only 'prompt'"),
            ({"prompt": "p", "response": None}, "expected the answer in 'response', found null"),
            ({"prompt": "p", "response": " "}, "expected the answer in 'response', found an empty text"),
            ({"response": "r"}, "expected 'prompt', 'messages'"),
            ({"turns": ["a"], "response": "r"}, "found 'turns', expected an example with one question"),
            ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}], "response": "r"},
             "found a system message"),
            ({"id": "a", "response": None, "error": {"type": "server"}, "attempts": 1, "input": {"prompt": "x"}},
             "found a result that is a failure"),
            ("[1]", "expected a JSON object"),
            ("{", ""),
            ('{"a": NaN}', ""),
        ],
    )  # fmt: skip
    def test_a_line_that_is_no_example_is_told_with_its_place(self, tmp_path: Path, line: Any, told: str) -> None:
        examples = shots(tmp_path, {"prompt": "p", "response": "r"}, "", line)
        assert refusal(examples).startswith(f"{examples.path}:3: {told}")

    def test_a_template_that_does_not_fit_the_examples_is_told(self, tmp_path: Path) -> None:
        examples = shots(tmp_path, {"text": "p", "response": "r"})
        told = refusal(examples, templates={"good": "{{ text }}", "bad": "{{ q }}"})
        assert told == f"{examples.path}:1: prompt template 'bad': 'q' is undefined; the line has 'text', 'response'"

    def test_files_that_hold_none_or_too_many_are_told(self, tmp_path: Path) -> None:
        assert refusal(shots(tmp_path)).endswith("shots.jsonl: holds no example, expected answered prompts")
        lines = [{"prompt": "p", "response": "r"}] * (MOST_EXAMPLES + 1)
        assert "more than 1000 examples; set a limit" in refusal(shots(tmp_path, *lines))
        PromptReader(InputSettings(paths=("x",), examples=shots(tmp_path, *lines, limit=MOST_EXAMPLES)))
        assert "no such file" in refusal(ExamplesFile(path=str(tmp_path / "none.jsonl"))).lower()
        (tmp_path / "short.csv").write_text("prompt,response\na\n")
        assert refusal(ExamplesFile(path=str(tmp_path / "short.csv"))).startswith(
            f"{tmp_path}/short.csv:2: expected 2 cells"
        )


def test_the_example_in_json_of_a_job_is_read(tmp_path: Path) -> None:
    """With variables in the place of text and numbers."""
    from batchchat.config import load_job

    write(tmp_path / "s.jsonl", *SHOTS)
    job = tmp_path / "job.yaml"
    job.write_text(
        f"input: x\nprompt: {{template: '{{{{ q }}}}', examples: {{path: {json.dumps(str(tmp_path / 's.jsonl'))}, answer: a, limit: '${{N}}'}}}}\n"
    )
    settings = load_job(str(job), environ={"N": "1"}).input_settings()
    assert settings.examples == ExamplesFile(path=str(tmp_path / "s.jsonl"), answer="a", limit=1)
    PromptReader(settings)
