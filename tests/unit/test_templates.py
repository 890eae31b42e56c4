"""Templates over a line's fields."""

import pytest

from batchchat import templates
from batchchat.errors import ConfigError
from batchchat.templates import Template


def render(source: str, **fields: object) -> str:
    return Template(source, what="prompt template").render(fields)


def refusal(source: str, **fields: object) -> str:
    template = Template(source, what="prompt template")
    with pytest.raises(ValueError) as caught:
        template.render(fields)
    return str(caught.value)


def test_fields_are_put_in_as_they_are() -> None:
    assert render("Q: {{ question }}\n", question="<b> & 'ü' {{ x }}") == "Q: <b> & 'ü' {{ x }}\n"
    assert render("{% for c in choices %}{{ loop.index }}. {{ c }}\n{% endfor %}", choices=["a", "b"]) == "1. a\n2. b\n"
    assert render("{{ meta.topic }} {{ meta['topic'] }}", meta={"topic": "t"}) == "t t"


def test_a_key_beats_a_method_of_its_name() -> None:
    assert render("{{ meta.items }} {{ meta.get }}", meta={"items": 3, "get": 4}) == "3 4"


def test_names_that_are_no_identifiers_are_reached_through_fields() -> None:
    assert render("{{ fields['Question text'] }}", **{"Question text": "why"}) == "why"
    assert render("{{ fields }}", fields="own") == "own"


def test_tojson_writes_plain_json() -> None:
    value = {"b": "<é & '>", "a": [1, None, 2**70]}
    assert render("{{ v | tojson }}", v=value) == '{"b": "<é & \'>", "a": [1, null, 1180591620717411303424]}'
    assert render("{{ v | tojson(indent=1) }}", v=[1]) == "[\n 1\n]"


def test_undefined_field_is_named_with_those_that_are_there() -> None:
    assert refusal("{{ question }}", prompt="x", id="1") == (
        "prompt template: 'question' is undefined; the line has 'prompt', 'id'"
    )
    assert "'topic'" in refusal("{{ meta.topic }}", meta={})
    assert refusal("{{ x | tojson }}") == "prompt template: 'x' is undefined; the line has no fields"
    assert refusal("{{ lipsum }}").startswith("prompt template: 'lipsum' is undefined")


def test_only_the_first_of_many_fields_are_listed() -> None:
    message = refusal("{{ x }}", **{f"f{number}": 1 for number in range(100)})
    assert "'f19', …" in message
    assert "'f20'" not in message


def test_missing_field_may_have_a_default() -> None:
    assert render("{{ x | default('none') }}{% if y is defined %}y{% endif %}") == "none"


def test_syntax_error_names_the_line_of_the_template() -> None:
    with pytest.raises(ConfigError, match="the system template is no Jinja template: line 2: "):
        Template("ok\n{{ broken", what="system template")
    with pytest.raises(ConfigError, match="No filter named 'nope'"):
        Template("{{ x | nope }}", what="prompt template")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x.__init__.__globals__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ items.append(1) }}",
        "{{ fields.update(a=1) }}",
        "{{ fields.clear() }}",
    ],
)
def test_sandbox_holds(source: str) -> None:
    line = {"x": "text", "items": [1]}
    template = Template(source, what="prompt template")
    with pytest.raises(ValueError, match=r"^prompt template: "):
        template.render(line)
    assert line == {"x": "text", "items": [1]}


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ 10**9 * [1] }}",
        "{{ 10**(10**10) }}",
        "{{ 2**1000000 * 2**1000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 1 / 0 }}",
        "{{ x + 1 }}",
    ],
)
def test_what_would_never_end_or_fails_is_told(source: str) -> None:
    assert refusal(source, x="text").startswith("prompt template: ")


def test_output_is_bounded() -> None:
    big = "x" * (templates.MAX_RENDERED_CHARS // 64 + 1)
    assert "longer than 64 Mi characters" in refusal("{% for i in range(64) %}{{ big }}{% endfor %}", big=big)


@pytest.mark.parametrize("source", ["{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}"])
def test_other_templates_are_out_of_reach(source: str) -> None:
    assert refusal(source) == "prompt template: it loads another template, which is not possible here"


def test_one_line_leaves_nothing_for_the_next() -> None:
    template = Template("{% set seen = x | default('fresh') %}{{ seen }}", what="prompt template")
    assert template.render({"x": "first"}) == "first"
    assert template.render({}) == "fresh"
