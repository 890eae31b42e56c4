"""The JSON in an answer: where it is found, what does not fit, and which schemas cannot be used."""

import json

import msgspec
import pytest

from batchchat.answers import AnswerRule, UnfitAnswerError, complaint, find_json, load_schema, make_rule
from batchchat.errors import ConfigError

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


@pytest.mark.parametrize("expression", ["a[", "a b", "", "nope(@)", "[?a"])
def test_an_expression_that_is_none_is_told(expression: str):
    if expression == "nope(@)":  # functions are looked up when they are called
        with pytest.raises(UnfitAnswerError, match="nope"):
            AnswerRule(None, expression, retries=0).read("{}")
        return
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
