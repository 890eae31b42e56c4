"""The JSON in an answer: where it is found, what does not fit, and which schemas cannot be used."""

import asyncio
import json

import msgspec
import pytest

from batchchat.answer_schema import load_schema
from batchchat.answers import AnswerRule, UnfitAnswerError, complaint, make_rule, read_aside
from batchchat.errors import ConfigError
from batchchat.json_finder import find_json

INTEGER = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}


def first(text: str):
    return next(find_json(text), "nothing")


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": 7}',
        ' \n\t{"answer": 7}\r\n',
        '\ufeff{"answer": 7}',
        '```json\n{"answer": 7}\n```',
        'Here you are:\n\n```JSON\n{\n  "answer": 7\n}\n```\nAnything else?',
        '~~~\n{"answer": 7}\n~~~',
        '````json\n{"answer": 7}\n````',
        '  ```json\n  {"answer": 7}\n  ```',
        '```json\n{"answer": 7}',
        '```json {"answer": 7}```',
        'The result is {"answer": 7}, as asked.',
        'I was told [to be brief], so: {"answer": 7}',
        '<think>maybe {"answer": 1}?</think>\n{"answer": 7}',
        '```python\nprint("hi")\n```\n```json\n{"answer": 7}\n```',
        '{"answer": "x"} no, rather {"answer": 7}',
        'Use {braces} like {this: one} or {"answer": 7}',
    ],
)
def test_json_is_found_where_models_put_it(text: str):
    assert AnswerRule(INTEGER, None, retries=0).read(text).parsed == {"answer": 7}


@pytest.mark.parametrize(
    "text", ["", "no", "{", "[[[[", "{'answer': 7}", '{"answer": NaN}', '{"answer": 1e999}', "```\n```"]
)
def test_what_is_no_json_is_told_with_the_text(text: str):
    with pytest.raises(UnfitAnswerError, match="expected JSON"):
        AnswerRule(None, "answer", retries=0).read(text)


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "text", [], {}, [1, {"a": None}], 2**70, "🙂\u2028"])
def test_a_whole_text_of_any_json_value_is_that_value(value):
    assert first(json.dumps(value)) == value
    assert first(json.dumps(value, ensure_ascii=False)) == value


def test_depth_and_brackets_by_the_thousand_end_quickly():
    assert first("[" * 100_000) == "nothing"
    assert first('{"a":' * 600 + "1" + "}" * 600) == "nothing"
    assert first("{ " * 50_000 + '{"answer": 7}') == "nothing"


def test_the_first_candidate_is_the_one_that_is_complained_of():
    with pytest.raises(UnfitAnswerError, match=r"at \$\.answer: 'x' is not of type 'integer'"):
        AnswerRule(INTEGER, None, retries=0).read('{"answer": "x"} or {"answer": null}')


def test_a_long_instance_is_not_repeated_whole():
    with pytest.raises(UnfitAnswerError) as caught:
        AnswerRule(INTEGER, None, retries=0).read(json.dumps({"answer": "x" * 100_000}))
    assert len(str(caught.value)) < 1000


def test_value_is_what_the_expression_finds():
    rule = AnswerRule(None, "items[?n > `1`].name | [0]", retries=0)
    assert rule.read('{"items": [{"n": 1, "name": "a"}, {"n": 2, "name": "b"}]}').value == "b"
    assert rule.read('{"items": []}').value is None
    assert AnswerRule(INTEGER, None, retries=0).read('{"answer": 1}').value is msgspec.UNSET


def test_an_expression_that_fails_on_an_answer_makes_it_unfit():
    with pytest.raises(UnfitAnswerError, match="--extract"):
        AnswerRule(None, "length(answer)", retries=0).read('{"answer": 7}')


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "int"}, "no JSON Schema"),
        ({"properties": []}, "no JSON Schema"),
        ({"$schema": "https://example.org/other"}, "unknown \\$schema"),
        ({"$ref": "https://example.org/s.json"}, "inside the schema"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "inside the schema"),
        ({"$ref": "#/$defs/missing"}, "leads nowhere"),
        ({"$ref": "#missing"}, "leads nowhere"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_before_anything_is_sent(schema, words: str):
    with pytest.raises(ConfigError, match=words):
        AnswerRule(schema, None, retries=0)


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a/b~": {"type": "integer"}}, "$ref": "#/$defs/a~1b~0"},
        {"$defs": {"x": {"$anchor": "here", "type": "integer"}}, "$ref": "#here"},
        {"$id": "https://example.org/s", "$defs": {"x": {"type": "integer"}}, "$ref": "#/$defs/x"},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"x": {"type": "integer"}},
            "$ref": "#/definitions/x",
        },
        {"const": {"$ref": "nowhere"}, "not": {}} | {"const": 7, "not": False},
    ],
)
def test_references_inside_the_schema_are_followed(schema):
    assert AnswerRule(schema, None, retries=0).read("7").parsed == 7


def test_a_schema_that_goes_in_circles_fails_the_answer_and_not_the_run():
    rule = AnswerRule({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, None, retries=0)
    with pytest.raises(UnfitAnswerError, match="circles"):
        rule.read("7")


@pytest.mark.parametrize(
    "expression",
    ["a[", "a b", "", "[?a", "nope(@)", "a[?nope(b)].c", "length(a, b)", "not_null()", "&a", "[&a, b]", "sort_by(a)"],
)
def test_an_expression_that_cannot_work_on_any_answer_is_told(expression: str):
    with pytest.raises(ConfigError, match="JMESPath"):
        AnswerRule(None, expression, retries=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "found a list"),
        (b'"x"', "found text"),
        (b"\xff", "no JSON"),
        (b'{"const":NaN}', "no JSON"),
    ],
)
def test_faults_of_the_schema_file_name_the_file(tmp_path, content: bytes, words: str):
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_schema(str(path))
    assert str(caught.value).startswith(str(path))


def test_a_missing_schema_file_is_told_and_a_byte_order_mark_is_fine(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        make_rule(str(tmp_path / "none.json"), None, retries=0, source=None)
    path = tmp_path / "schema.json"
    path.write_text('\ufeff{"type": "integer"}')
    assert make_rule(str(path), None, retries=0, source=None).read("7").parsed == 7


def test_no_rule_without_schema_and_expression():
    assert make_rule(None, None, retries=3, source=None) is None


def test_the_complaint_carries_the_reason_and_the_schema():
    text = complaint(UnfitAnswerError("at $: no"), INTEGER)
    assert "at $: no" in text
    assert json.loads(text.partition("Schema:\n")[2]) == INTEGER


@pytest.mark.parametrize(
    "expression", ["sort_by(a, &b)[0]", "not_null(a, b, c, d)", "merge({a: `1`}, @)", "map(&length(@), a)", "a[::2]"]
)
def test_expressions_with_calls_are_taken(expression: str):
    AnswerRule(None, expression, retries=0)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"answer": 1}, "c": "long te',
        '{"items": [{"answer": 1}, {"ans',
        '[{"answer": 1}, {"answer": 2',
        '{"a": {"answer": 1}, "b": tr',
        '{"a": {"answer": 1}, "b": -1.',
        '{"a": {"answer": 1}, "b": "\\u12',
        '{"a": {"answer": 1}, "b": "\\',
        '{"a": {"answer": 1},',
        '```json\n{"a": {"answer": 1}, "c": "lo',
        'Sure: {"a": {"answer": 1},\n',
        '{"items": [{"answer": 1}], }',
        '{"a": 1, // why\n"b": {"answer": 1}}',
        "{'a': {\"answer\": 1}}",
        '{"a": NaN, "b": {"answer": 1}}',
        '[{"answer": 1}, ...]',
        '<think>maybe {"answer": 1}',
    ],
)
def test_a_part_of_broken_or_cut_json_is_no_answer(text: str):
    with pytest.raises(UnfitAnswerError, match="expected JSON"):
        AnswerRule(INTEGER, None, retries=0).read(text)


@pytest.mark.parametrize(
    "text",
    [
        'For x in [0, 1) it is {"answer": 7}',
        'First try: {"answer": oops}. Now: {"answer": 7}',
        '{"a": "}", } and then {"answer": 7}',
        'It\'s [1, two, three]: {"answer": 7}',
        r'\boxed{{"answer": 7}}',
        '{"answer": 7, "note": "of </think> and more"}',
    ],
)
def test_a_whole_answer_behind_broken_brackets_is_found(text: str):
    assert AnswerRule(INTEGER, None, retries=0).read(text).parsed["answer"] == 7


def test_texts_made_to_be_slow_are_not():
    for text in (
        '{"a" ' * 200_000,
        "[1, x " * 200_000,
        '"' + '\\"' * 200_000,
        '{"a": "' + '\\"{' * 200_000,
        "```\n" * 200_000,
    ):
        assert first(text) == "nothing"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"multipleOf": 0.5}, "1" + "0" * 400),
        ({"additionalProperties": {"type": "integer"}}, json.dumps({"k" * 100_000: "x"})),
        ({"items": {"type": "integer"}}, json.dumps(["x"] * 1000)),
    ],
)
def test_whatever_is_in_an_answer_it_is_unfit_in_few_words(schema, text: str):
    with pytest.raises(UnfitAnswerError) as caught:
        AnswerRule(schema, None, retries=0).read(text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("expression", ["abs(a)", "avg(b)", "sum(a)"])
def test_whatever_an_expression_meets_makes_the_answer_unfit_in_few_words(expression: str):
    text = json.dumps({"a": ["x" * 100_000]})[:-1] + ', "b": [1' + "0" * 400 + "]}"
    with pytest.raises(UnfitAnswerError, match="--extract") as caught:
        AnswerRule(None, expression, retries=0).read(text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ("[1, 1.0]", False),
        ("[1, true, 0, false, null, [], {}, [1], [true]]", True),
        ('[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]', False),
        ('["true", true, "list", ["list"], [["list"]]]', True),
        ("[]", True),
        (json.dumps([{"n": n} for n in range(20_000)]), True),
    ],
)
def test_unique_items_are_told_by_the_values_of_json(items: str, unique: bool):
    rule = AnswerRule({"uniqueItems": True}, None, retries=0)
    if unique:
        rule.read(items)
    else:
        with pytest.raises(UnfitAnswerError, match="non-unique"):
            rule.read(items)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$id": "https://e.org/s", "$defs": {"x": {"$id": "https://e.org/x"}}, "$ref": "https://e.org/z"}, "inside"),
        ({"$id": "http://[bad", "$ref": "#/$defs/x", "$defs": {"x": {}}}, r"\$id"),
        ({"$dynamicRef": "#n"}, "leads nowhere"),
        ({"pattern": "["}, "no JSON Schema"),
        ({"patternProperties": {"(": {}}}, "no JSON Schema"),
    ],
)
def test_what_only_an_answer_would_show_of_a_schema_is_told_before(schema, words: str):
    with pytest.raises(ConfigError, match=words):
        AnswerRule(schema, None, retries=0)


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": "http://json-schema.org/draft-04/schema#", "definitions": {"x": {"id": "#x"}}, "$ref": "#x"},
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "definitions": {"x": {"id": "x.json"}},
            "$ref": "x.json",
        },
        {"$schema": "http://json-schema.org/draft-06/schema#", "definitions": {"x": {"$id": "#x"}}, "$ref": "#x"},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "items": {"$recursiveRef": "#"}},
        {"$id": "https://e.org/s", "$ref": "https://e.org/s#/$defs/x", "$defs": {"x": {"type": "integer"}}},
        {"$defs": {"x": {"$id": "x.json", "type": "integer"}}, "$ref": "x.json"},
        {"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}},
        {"properties": {"$ref": {"const": "x"}, "$id": {"type": "string"}}},
    ],
)
def test_references_of_every_draft_are_followed(schema):
    assert AnswerRule(schema, None, retries=0).read("7").parsed == 7


async def test_a_long_text_is_read_beside_the_loop_and_to_its_end_though_the_task_is_to_end():
    text = json.dumps([{"n": n} for n in range(50_000)])
    rule = AnswerRule({"items": {"properties": {"n": {"type": "integer"}}}}, None, retries=0)
    reading = asyncio.create_task(read_aside(rule, text))
    await asyncio.sleep(0)
    assert not reading.done()
    reading.cancel()
    assert len((await reading).parsed) == 50_000
    assert reading.cancelling() == 1


def test_what_the_expression_does_not_work_on_is_passed_over():
    rule = AnswerRule(None, "sum(scores)", retries=0)
    assert rule.read('As said in [1]: {"scores": [2, 3]}').value == 5
