"""Templates over a line's fields."""

import os
from pathlib import Path

import pytest

from batchchat import templates
from batchchat.errors import ConfigError
from batchchat.template_files import MAX_TEMPLATE_BYTES
from batchchat.templates import Template, TemplateLibrary


def compiled(source: str, folder: Path | None = None) -> Template:
    return TemplateLibrary(None if folder is None else str(folder)).compile(source, what="prompt template")


def render(source: str, **fields: object) -> str:
    return compiled(source).render(fields)


def refusal(source: str, **fields: object) -> str:
    template = compiled(source)
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
        TemplateLibrary().compile("ok\n{{ broken", what="system template")
    with pytest.raises(ConfigError, match="No filter named 'nope'"):
        compiled("{{ x | nope }}")


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
    template = compiled(source)
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
def test_without_a_job_file_no_other_template_is_in_reach(source: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^the prompt template: 'x' cannot be loaded, .* job file's folder; give -j$"
    ):
        compiled(source)
    assert "cannot be loaded" in refusal("{% include name %}", name="x")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ meta.title }}", "expected a value to put in, found the method or macro 'title'"),
        ("{{ items.count }}", "found the method or macro 'count'"),
        ("{% macro m() %}x{% endmacro %}{{ m }}", "found the method or macro"),
        ("{{ items | map('upper') }}", "found what needs a list or join filter behind it"),
        ("{{ items | select('eq', 'a') }}", "found what needs a list or join filter behind it"),
        ("{% for x in items %}{{ loop }}{% endfor %}", "expected a value to put in"),
        ("{{ items | map(attribute='none') | list }}", "has no attribute 'none'"),
    ],
)
def test_what_is_no_value_is_told_and_not_sent(source: str, told: str) -> None:
    """Its text would be an address in memory, another one each time."""
    assert told in refusal(source, meta="text", items=["a", "b"])


def test_values_of_all_kinds_are_put_in() -> None:
    fields = {"a": None, "b": True, "c": [1, {"d": 2.5}], "e": {"title": "t"}}
    assert compiled("{{ a }} {{ b }} {{ c }} {{ e }} {{ e.title }} {{ c | length }} {{ range(2) }}").render(fields) == (
        "None True [1, {'d': 2.5}] {'title': 't'} t 2 range(0, 2)"
    )


def test_a_line_gives_the_same_prompt_each_time() -> None:
    with pytest.raises(ConfigError, match="No filter named 'random'"):
        compiled("{{ items | random }}")


class TestFiles:
    """Templates that a template loads from the job file's folder."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "job" / "parts").mkdir(parents=True)
        (tmp_path / "secret.txt").write_text("secret")
        return tmp_path / "job"

    def write(self, folder: Path, **files: str) -> None:
        for name, text in files.items():
            (folder / f"{name}.j2").write_text(text)

    def test_include_import_and_extends_work(self, folder: Path) -> None:
        self.write(folder, head="[{{ topic }}] ", base="<{% block body %}{% endblock %}>\n")
        (folder / "parts" / "macros.j2").write_text("{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}")
        template = compiled("{% include 'head.j2' %}{{ question }}", folder)
        assert template.render({"topic": "t", "question": "why"}) == "[t] why"
        template = compiled("{% from 'parts/macros.j2' import twice %}{{ twice(q) }}", folder)
        assert template.render({"q": "é"}) == "éé"
        template = compiled("{% extends 'base.j2' %}{% block body %}{{ q | tojson }}{% endblock %}", folder)
        assert template.render({"q": ["<"]}) == '<["<"]>\n'

    def test_a_byte_order_mark_and_line_ends_of_windows_are_fine(self, folder: Path) -> None:
        (folder / "a.j2").write_bytes(b"\xef\xbb\xbf{{ q }}\r\nb")
        assert compiled("{% include 'a.j2' %}", folder).render({"q": 1}) == "1\nb"

    @pytest.mark.parametrize(
        "name",
        [
            "../secret.txt",
            "parts/../../secret.txt",
            "/etc/hostname",
            "",
            "a\\b",
            "link.j2",
            "linked/secret.txt",
            "\ud800",
        ],
    )
    @pytest.mark.parametrize("form", ["{{% include {!r} %}}", "{{% import {!r} as x %}}", "{{% extends {!r} %}}"])
    def test_nothing_outside_of_the_folder_is_read(self, folder: Path, name: str, form: str) -> None:
        os.symlink("../secret.txt", folder / "link.j2")
        os.symlink("..", folder / "linked")
        with pytest.raises(ConfigError, match="job file's folder"):
            compiled(form.format(name), folder)
        template = compiled("{% include name %}", folder)
        with pytest.raises(ValueError, match="job file's folder") as caught:
            template.render({"name": name})
        assert "secret\n" not in str(caught.value)

    def test_a_link_inside_of_the_folder_is_fine(self, folder: Path) -> None:
        self.write(folder, real="x")
        os.symlink("real.j2", folder / "link.j2")
        assert compiled("{% include 'link.j2' %}", folder).render({}) == "x"

    def test_what_is_no_file_of_text_is_told(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        (folder / "binary").write_bytes(b"\xff\xfe")
        (folder / "big").write_bytes(b"x" * (MAX_TEMPLATE_BYTES + 1))
        for name, told in (
            ("pipe", "expected a file"),
            ("parts", "directory"),
            ("binary", "not UTF-8"),
            ("big", "1 MiB"),
        ):
            with pytest.raises(ConfigError, match=told):
                compiled(f"{{% include '{name}' %}}", folder)

    def test_a_missing_file_is_told_before_any_line(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match=r"the prompt template: there is no file 'no.j2' in .*job$"):
            compiled("{% if x %}{% include 'no.j2' %}{% endif %}", folder)
        self.write(folder, outer="{% include 'inner.j2' %}", inner="{% include 'no.j2' %}")
        with pytest.raises(ConfigError, match=r"there is no file 'no.j2'"):
            compiled("{% include 'outer.j2' %}", folder)

    def test_a_missing_file_may_be_passed_over(self, folder: Path) -> None:
        self.write(folder, a="A")
        assert compiled("x{% include 'no.j2' ignore missing %}", folder).render({}) == "x"
        assert compiled("{% include ['no.j2', 'a.j2'] %}", folder).render({}) == "A"

    def test_a_faulty_file_is_named_with_its_line(self, folder: Path) -> None:
        self.write(folder, bad="ok\n{{ broken")
        with pytest.raises(ConfigError, match=r"'bad.j2', line 2: "):
            compiled("{% include 'bad.j2' %}", folder)
        with pytest.raises(ValueError, match=r"^prompt template: 'bad.j2', line 2: "):
            compiled("{% include name %}", folder).render({"name": "bad.j2"})

    def test_a_name_that_a_line_gives_is_a_fault_of_that_line(self, folder: Path) -> None:
        self.write(folder, en="Hello {{ who }}")
        template = compiled("{% include lang ~ '.j2' %}", folder)
        assert template.render({"lang": "en", "who": "you"}) == "Hello you"
        with pytest.raises(ValueError, match=r"^prompt template: there is no file 'xx.j2' in "):
            template.render({"lang": "xx", "who": "you"})

    def test_the_sandbox_holds_in_files(self, folder: Path) -> None:
        self.write(folder, bad="{{ ''.__class__.__mro__ }}", loop="{% include 'loop.j2' %}", undefined="{{ nope }}")
        for name in ("bad", "loop", "undefined"):
            with pytest.raises(ValueError, match=r"^prompt template: "):
                compiled(f"{{% include '{name}.j2' %}}", folder).render({"x": 1})

    def test_files_are_read_once(self, folder: Path) -> None:
        self.write(folder, a="first")
        template = compiled("{% include 'a.j2' %}", folder)
        self.write(folder, a="second")
        assert template.render({}) == "first"

    def test_a_template_may_be_a_file_itself(self, folder: Path) -> None:
        self.write(folder, main="{% include 'parts/x' %}!")
        (folder / "parts" / "x").write_text("{{ q }}")
        library = TemplateLibrary(str(folder))
        assert library.read("main.j2", what="prompt template").render({"q": 1}) == "1!"
        with pytest.raises(ConfigError, match=r"the prompt template: there is no file 'no.j2'"):
            library.read("no.j2", what="prompt template")


def test_one_line_leaves_nothing_for_the_next() -> None:
    template = compiled("{% set seen = x | default('fresh') %}{{ seen }}")
    assert template.render({"x": "first"}) == "first"
    assert template.render({}) == "fresh"
