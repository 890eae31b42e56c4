"""Several prompts of one input line: templates, matrix, samples, and how their ids are kept apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.errors import ConfigError
from batchchat.expansion import MOST_VARIANTS, Expansion
from batchchat.job_setup import fault_outcome
from batchchat.prompts import InputSettings, PromptReader
from batchchat.records import InputFault, Prompt
from batchchat.results import outcome_to_batch_object, outcome_to_object
from tests.unit.test_prompts import fault, read, reader, user, write

TWO = {"short": "{{ q }}?", "long": "Why is {{ q }}?"}


def ids(items: list[Prompt | InputFault]) -> list[Any]:
    return [item.id for item in items]


class TestIds:
    def test_each_template_makes_a_prompt(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": "a", "q": "sky"}, {"id": 2, "q": "sea"}, templates=TWO)
        assert ids(items) == ["a/short", "a/long", "2/short", "2/long"]
        assert [item.messages for item in items][:2] == [[user("sky?")], [user("Why is sky?")]]
        assert [item.index for item in items] == [0, 1, 2, 3]
        assert [item.variant for item in items][1:3] == [
            {"id": "a", "template": "long"},
            {"id": 2, "template": "short"},
        ]
        assert items[2].line == {"q": "sea"}

    def test_one_named_template_names_its_prompts_as_well(self, tmp_path: Path) -> None:
        assert ids(read(tmp_path, {"id": "a", "q": "x"}, templates={"only": "{{ q }}"})) == ["a/only"]

    def test_matrix_is_the_product_of_its_values(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": "a", "prompt": "x"}, matrix={"temperature": [0, 0.7], "model": ["m/1", "m-2"]})
        assert ids(items) == [
            "a@m/1,temperature=0",
            "a@m-2,temperature=0",
            "a@m/1,temperature=0.7",
            "a@m-2,temperature=0.7",
        ]
        assert (items[2].model, items[2].params) == ("m/1", {"temperature": 0.7})
        assert items[2].variant == {"id": "a", "model": "m/1", "params": {"temperature": 0.7}}

    def test_keys_may_change_places_without_new_ids(self, tmp_path: Path) -> None:
        one, other = {"top_p": [1, 0.5], "stop": ["a"]}, {"stop": ["a"], "top_p": [1, 0.5]}
        line = {"id": "a", "prompt": "x"}
        assert ids(read(tmp_path, line, matrix=one)) == ids(read(tmp_path, line, matrix=other))

    def test_samples_are_numbered_from_one(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": "a", "prompt": "x"}, samples=3)
        assert ids(items) == ["a#1", "a#2", "a#3"]
        assert items[2].variant == {"id": "a", "sample": 3}
        assert ids(read(tmp_path, {"id": "a", "prompt": "x"}, samples=1)) == ["a"]

    def test_all_together_in_one_order(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": "r", "q": "x"}, templates=TWO, matrix={"model": ["m", "n"]}, samples=2)
        assert ids(items) == [
            "r/short@m#1",
            "r/short@m#2",
            "r/short@n#1",
            "r/short@n#2",
            "r/long@m#1",
            "r/long@m#2",
            "r/long@n#1",
            "r/long@n#2",
        ]
        assert items[-1].variant == {"id": "r", "template": "long", "model": "n", "sample": 2}

    def test_ids_that_lines_do_not_bring_are_those_of_the_line(self, tmp_path: Path) -> None:
        lines = ({"prompt": "x"}, {"prompt": "y"}, {"prompt": "x"})
        plain = ids(read(tmp_path, *lines))
        assert ids(read(tmp_path, *lines, samples=2)) == [f"{id}#{n}" for id in plain for n in (1, 2)]
        named = ids(read(tmp_path, {"q": "x"}, {"q": "y"}, {"q": "x"}, templates=TWO))
        assert named == ids(
            read(tmp_path, {"q": "x"}, {"q": "y"}, {"q": "x"}, templates=dict.fromkeys(TWO, "{{ q }}!"))
        )
        assert named[4:] == [f"{named[0].removesuffix('/short')}-2/short", f"{named[0].removesuffix('/short')}-2/long"]

    @pytest.mark.parametrize("settings", [{}, {"id_field": "key"}])
    def test_batch_lines_and_conversations_have_variants_too(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        lines = [
            {
                "custom_id": "b",
                "key": "b",
                "body": {"model": "own", "messages": [user("x")], "temperature": 1, "top_k": 3},
            },
            {"id": "m", "key": "m", "messages": [user("x")], "params": {"temperature": 1}},
            {"id": "t", "key": "t", "turns": ["x", "y"]},
        ]
        items = read(tmp_path, *lines, matrix={"model": ["a"], "temperature": [0]}, samples=2, **settings)
        assert ids(items)[::2] == [f"{id}@a,temperature=0#1" for id in "bmt"]
        assert [item.model for item in items] == ["a"] * 6
        assert [item.params for item in items][::2] == [
            {"temperature": 0, "top_k": 3},
            {"temperature": 0},
            {"temperature": 0},
        ]
        assert items[4].turns == ("x", "y")


class TestSeeds:
    @pytest.mark.parametrize(
        ("line", "settings", "seeds"),
        [
            ({}, {"seed_param": 7}, [7, 8, 9]),
            ({"params": {"seed": 1}}, {"seed_param": 7}, [1, 2, 3]),
            ({"params": {"seed": 2**63}}, {}, [2**63, 2**63 + 1, 2**63 + 2]),
            ({}, {"matrix": {"seed": [10]}}, [10, 11, 12]),
            ({}, {}, [None, None, None]),
            ({"params": {"seed": "x"}}, {"seed_param": 7}, ["x", "x", "x"]),
            ({"params": {"seed": None}}, {"seed_param": 7}, [None, None, None]),
            ({}, {"seed_param": True}, [None, None, None]),
        ],
    )
    def test_samples_count_on_from_a_seed(self, tmp_path: Path, line: Any, settings: Any, seeds: list[Any]) -> None:
        items = read(tmp_path, {"id": "a", "prompt": "x", **line}, samples=3, **settings)
        told = [item.params.get("seed", settings.get("seed_param") if not line else None) for item in items]
        assert [seed if seed is not True else None for seed in told] == seeds


class TestRows:
    def test_limit_and_sample_count_lines_with_all_their_prompts(self, tmp_path: Path) -> None:
        lines = [{"id": f"r{n}", "prompt": "x"} for n in range(10)]
        assert ids(read(tmp_path, *lines, samples=2, limit=2)) == ["r0#1", "r0#2", "r1#1", "r1#2"]
        drawn = read(tmp_path, *lines, samples=2, sample=3, seed=4)
        plain = read(tmp_path, *lines, sample=3, seed=4)
        assert ids(drawn) == [f"{item.id}#{n}" for item in plain for n in (1, 2)]

    def test_a_faulty_line_is_one_fault(self, tmp_path: Path) -> None:
        items = read(tmp_path, "{", {"id": "a", "nope": 1}, {"id": "b", "q": "x"}, templates=TWO)
        assert [item.index for item in items] == [0, 1, 2, 3]
        assert [type(item) for item in items] == [InputFault, InputFault, Prompt, Prompt]
        assert items[1].reason == "prompt template 'short': 'q' is undefined; the line has 'id', 'nope'"
        assert items[1].line == {"id": "a", "nope": 1}

    def test_one_faulty_template_faults_the_whole_line(self, tmp_path: Path) -> None:
        reason = fault(tmp_path, {"id": "a", "q": "x"}, templates={"ok": "{{ q }}", "bad": "{{ r }}"})
        assert reason.startswith("prompt template 'bad': 'r' is undefined")

    @pytest.mark.parametrize(
        ("how", "expected"),
        [("first", ["a#1", "a#2", "b#1", "b#2"]), ("suffix", ["a#1", "a#2", "a-2#1", "a-2#2", "b#1", "b#2"])],
    )
    def test_on_duplicate_is_about_the_ids_of_lines(self, tmp_path: Path, how: Any, expected: list[str]) -> None:
        lines = [{"id": id, "prompt": "x"} for id in ("a", "a", "b")]
        assert ids(read(tmp_path, *lines, samples=2, on_duplicate=how)) == expected

    def test_a_duplicate_is_one_fault(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}, samples=2)
        assert ids(items) == ["a#1", "a#2", "line-2"]
        assert "duplicate id 'a' (first at " in items[2].reason

    def test_text_and_number_of_the_same_digits_cannot_both_make_prompts(self, tmp_path: Path) -> None:
        items = read(tmp_path, {"id": 1, "prompt": "x"}, {"id": "1", "prompt": "y"}, samples=2)
        assert ids(items) == ["1#1", "1#2", "line-2"]
        assert items[0].variant["id"] == 1


def failed(prompt: Prompt, form: str = "flat", **error: Any) -> dict[str, Any]:
    """The errors file's line of a prompt."""
    from batchchat.records import Failure, Outcome

    outcome = Outcome(
        id=prompt.id,
        index=prompt.index,
        error=Failure(**{"type": "server", "message": "x", **error}),
        line=prompt.line,
        variant=prompt.variant,
        fingerprint="0" * 16,
    )
    return outcome_to_object(outcome) if form == "flat" else outcome_to_batch_object(outcome)


class TestErrorsFiles:
    @pytest.mark.parametrize("form", ["flat", "openai-batch"])
    @pytest.mark.parametrize("line", [{"id": "a", "q": "x"}, {"id": 7, "q": "x"}, {"q": "x"}])
    def test_exactly_the_failed_prompts_are_asked_under_their_ids(self, tmp_path: Path, line: Any, form: str) -> None:
        settings = {"templates": TWO, "matrix": {"model": ["m", "n"], "temperature": [0, 0.5]}, "samples": 2}
        prompts = read(tmp_path, line, {"id": "b", "q": "y"}, **settings)
        chosen = [prompts[3], prompts[8], prompts[20]]
        again = read(tmp_path, *(failed(prompt, form) for prompt in chosen), **settings)
        assert [(item.id, item.messages, item.model, item.params, item.variant, item.line) for item in again] == [
            (item.id, item.messages, item.model, item.params, item.variant, item.line) for item in chosen
        ]
        assert [item.index for item in again] == [0, 1, 2]

    def test_renamed_and_repeated_lines_come_back_under_their_ids(self, tmp_path: Path) -> None:
        lines = [{"id": "a", "prompt": "x"}] * 2 + [{"prompt": "y"}] * 2
        prompts = read(tmp_path, *lines, samples=2, on_duplicate="suffix")
        again = read(tmp_path, *map(failed, prompts), samples=2, on_duplicate="suffix")
        assert ids(again) == ids(prompts)

    def test_a_prompt_that_failed_for_its_attachment_comes_back(self, tmp_path: Path) -> None:
        (first, _) = read(tmp_path, {"id": "a", "prompt": "x"}, samples=2)
        assert ids(read(tmp_path, failed(first, type="input"), samples=2)) == ["a#1"]

    def test_a_variant_that_the_job_does_not_have_is_a_fault(self, tmp_path: Path) -> None:
        (first, _) = read(tmp_path, {"id": "a", "prompt": "x"}, samples=2)
        for settings in ({}, {"matrix": {"model": ["m"]}}, {"templates": {"t": "x"}}):
            reason = fault(tmp_path, failed(first), **settings)
            assert reason.startswith('found an earlier run\'s failure of the variant {"sample": 1}, which this job')

    def test_no_prompt_is_asked_twice_where_input_and_errors_file_are_given(self, tmp_path: Path) -> None:
        line = {"id": "a", "prompt": "x"}
        first, second = read(tmp_path, line, samples=2)
        for lines, expected in (
            ((line, failed(first)), ["a#1", "a#2", "line-2"]),
            ((failed(first), line), ["a#1", "line-2"]),
            ((failed(first), failed(first)), ["a#1", "line-2"]),
            ((failed(second), failed(first)), ["a#2", "a#1"]),
        ):
            items = read(tmp_path, *lines, samples=2)
            assert ids(items) == expected
        assert "duplicate id 'a#1'" in fault_of(read(tmp_path, failed(first), failed(first), samples=2))

    def test_the_id_of_a_line_without_one_is_not_given_twice(self, tmp_path: Path) -> None:
        first, _ = read(tmp_path, {"prompt": "x"}, samples=2)
        again = read(tmp_path, failed(first), {"prompt": "x"}, samples=2)
        assert ids(again) == [first.id, first.id.replace("#1", "-2#1"), first.id.replace("#1", "-2#2")]

    @pytest.mark.parametrize("form", ["flat", "openai-batch"])
    def test_a_line_that_was_faulty_for_other_settings_still_knows_its_prompt(self, tmp_path: Path, form: str) -> None:
        to_object = outcome_to_object if form == "flat" else outcome_to_batch_object
        prompts = read(tmp_path, {"id": "a", "prompt": "x"}, samples=3)
        given = lines = [failed(prompt, form) for prompt in prompts[1:]]
        for _ in range(2):
            faults = read(tmp_path, *lines)
            assert all(isinstance(item, InputFault) for item in faults)
            assert [item.line for item in faults] == given
            lines = [to_object(fault_outcome(item)) for item in faults]
        assert ids(read(tmp_path, *lines, samples=3)) == ["a#2", "a#3"]

    def test_true_and_one_are_told_apart(self, tmp_path: Path) -> None:
        matrix = {"x": [1, True]}
        prompts = read(tmp_path, {"id": "a", "prompt": "x"}, matrix=matrix)
        assert ids(read(tmp_path, *map(failed, prompts), matrix=matrix)) == ["a@x=1", "a@x=true"]

    def test_a_field_named_variant_means_nothing(self, tmp_path: Path) -> None:
        assert ids(read(tmp_path, {"id": "a", "prompt": "x", "variant": {"id": "b", "sample": 9}})) == ["a"]


def fault_of(items: list[Prompt | InputFault]) -> str:
    (found,) = (item for item in items if isinstance(item, InputFault))
    return found.reason


class TestSettings:
    @pytest.mark.parametrize(
        ("matrix", "told"),
        [
            ({"model": []}, "matrix.model: expected at least one value, found an empty list"),
            ({"model": ["a", "a"]}, 'matrix.model: found the value "a" twice'),
            ({"t": [0, 0.0]}, "matrix.t: found the value 0.0 twice"),
            ({"t": [1, "1"]}, 'found the value "1" twice'),
            ({"t": [None]}, "matrix.t: expected texts, numbers, true or false, found null"),
            ({"t": [[1]]}, "found [1]"),
            ({"t": [{"a": 1}]}, 'found {"a": 1}'),
            ({"t": [" "]}, 'found " "'),
            ({"model": [4]}, "matrix.model: expected names of models, found 4; put it in quotes"),
            ({"messages": ["a"]}, "found 'messages'"),
            ({" ": ["a"]}, "found ' '"),
            ({"stop": ["a", "\udcff"]}, "matrix.stop: found '\\udcff', which is not UTF-8"),
            ({"\udcff": [1]}, "which is not UTF-8"),
            ({"model": ["a,b=1"], "b": [1]}, None),
            ({"model": ["a", "a,b=1"], "b": [1]}, None),
            ({"model": ["b", "x@b"]}, "makes ids that another value may make as well"),
        ],
    )
    def test_values_that_make_no_sense_are_told(self, matrix: dict[str, Any], told: str | None) -> None:
        if told is None:
            assert Expansion((), matrix, 1)
            return
        with pytest.raises(ConfigError) as caught:
            Expansion((), matrix, 1)
        assert told in str(caught.value)

    def test_true_and_one_are_two_values(self) -> None:
        assert [variant.suffix for variant in Expansion((), {"x": [True, 1, "a b"]}, 1).variants] == [
            "@x=true",
            "@x=1",
            "@x=a b",
        ]

    def test_there_is_a_most(self) -> None:
        assert len(Expansion((), {"a": list(range(100)), "b": list(range(100))}, 1).variants) == MOST_VARIANTS
        with pytest.raises(ConfigError, match="make 10,100 prompts of each line, expected at most 10,000"):
            Expansion((), {"a": list(range(101)), "b": list(range(100))}, 1)
        with pytest.raises(ConfigError, match="expected at most"):
            Expansion((), {str(n): list(range(10)) for n in range(400)}, 10_000)

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "a#1", "a@b"])
    def test_a_template_needs_a_name_that_fits_into_an_id(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r"prompt.templates: expected a name of letters"):
            PromptReader(InputSettings(paths=("x",), templates={name: "x"}))

    def test_a_faulty_template_is_named(self) -> None:
        with pytest.raises(ConfigError, match="the prompt template 'bad' is no Jinja template"):
            PromptReader(InputSettings(paths=("x",), templates={"good": "x", "bad": "{{"}))

    def test_the_job_file_says_it_all(self, tmp_path: Path) -> None:
        (tmp_path / "prompts").mkdir()
        (tmp_path / "prompts" / "long.j2").write_text("{% include 'prompts/head.j2' %}{{ q }}")
        (tmp_path / "prompts" / "head.j2").write_text("Q: ")
        write(tmp_path / "in.jsonl", {"id": "a", "q": "x"})
        job = tmp_path / "job.yaml"
        job.write_text(
            f"input: {json.dumps(str(tmp_path / 'in.jsonl'))}\n"
            "prompt: {templates: {short: '{{ q }}', long: {file: prompts/long.j2}}, n: 2, system: {file: prompts/head.j2}}\n"
            "matrix: {model: [m, '${MODEL}'], seed: [1, 5]}\n"
        )
        items = list(PromptReader(load_job(str(job), environ={"MODEL": "n"}).input_settings()))
        assert (len(items), items[-1].id, items[-1].params) == (16, "a/long@n,seed=5#2", {"seed": 6})
        assert (items[-1].messages, items[-1].system) == ([user("Q: x")], "Q: ")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("prompt: {template: x, templates: {a: y}}", "prompt: the job has prompt.template and prompt.templates"),
            ("prompt: {templates: {a: {path: y}}}", "job.yaml:1: prompt.templates.a: expected a template, or {file: PATH}"),
            ("prompt: {template: {file: ''}}", "job.yaml:1: prompt.template: expected a template, or {file: PATH}"),
            ("prompt: {template: 3}", "job.yaml:1: prompt.template: expected a template"),
            ("prompt: {n: 0}", "job.yaml:1: prompt.n: "),
            ("prompt: {n: 10001}", "job.yaml:1: prompt.n: "),
            ("prompt: {n: true}", "job.yaml:1: prompt.n: "),
            ("matrix: {model: m}", "job.yaml:1: matrix.model: expected a list"),
            ("matrix: [m]", "job.yaml:1: matrix: "),
            ("matrix: {t: [.nan]}", "job.yaml:1: matrix.t[0]: expected a finite number"),
            ("prompt: {examples: {answer: x}}", "job.yaml:1: prompt.examples: expected the path"),
            ("prompt: {examples: {path: x, anser: x}}", "job.yaml:1: prompt.examples: expected the keys path, answer and limit"),
            ("prompt: {examples: {path: x, limit: 0}}", "job.yaml:1: prompt.examples: expected a limit of at least 1"),
            ("prompt: {examples: '-'}", "job.yaml:1: prompt.examples: expected the path"),
            ("prompt: {images: [1]}", "job.yaml:1: prompt.images[0]: expected the name of a field"),
            ("prompt: {image_detail: hi}", "job.yaml:1: prompt.image_detail: "),
        ],
    )  # fmt: skip
    def test_wrong_settings_are_told_with_their_place(self, tmp_path: Path, text: str, told: str) -> None:
        job = tmp_path / "job.yaml"
        job.write_text(text + "\ninput: x\n")
        with pytest.raises(ConfigError) as caught:
            PromptReader(load_job(str(job), environ={}).input_settings())
        assert told in str(caught.value)

    def test_reader_tells_how_many_prompts_a_line_makes(self) -> None:
        assert reader("x").variants == 1
        assert reader("x", samples=3, matrix={"model": ["a", "b"]}).variants == 6
