"""A stranger's template ends by itself: no text, no number and no loop of it grows without bound."""

import pytest

from batchchat.errors import ConfigError
from batchchat.templates import TemplateLibrary

BOMBS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) if false %}{% endfor %}{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('x' * 1000000) }}",
    "{% set ns = namespace(a='x' * 1000000) %}{% for i in range(40) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a|length }}",
    "{% set ns = namespace(a='x' * 1000000) %}{% for i in range(40) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a|length }}",
    "{{ 'a' * 10**9 }}", "{{ ['a'] * 10**9 }}", "{{ 9 ** (9 ** 9) }}", "{{ range(10**9)|list }}",
    "{{ 'a'.ljust(10**10) }}", "{{ 'a'.rjust(width=10**10)|length }}", "{{ 'a'.center(10**10) }}", "{{ 'a'.zfill(10**10) }}",
    "{{ '\t'.expandtabs(10**10) }}", "{{ (1).to_bytes(10**10, 'big')|length }}", "{{ 'a'|center(10**10) }}",
    "{{ 'a\nb'|indent(10**10) }}", "{{ fields|tojson(10**10) }}", "{{ fields|tojson(indent=10**10) }}", "{{ 'a'|batch(10**10, 'x')|list }}",
    "{{ 'a'|slice(10**10)|list|length }}", "{{ '%9999999999d' % 1 }}", "{{ '%*d' % (10**10, 1) }}", "{{ '%9999999999d'|format(1) }}",
    "{{ '{:9999999999}'.format(1) }}", "{{ '{:{w}}'.format(1, w=10**10) }}", "{{ '{0:{1}}'.format(1, 10**10) }}",
    "{{ ('a' * 10**7).replace('a', 'b' * 10**7) }}", "{{ ('a' * 10**7)|replace('a', 'b' * 10**7) }}",
    "{{ ('x' * 10**7).join(['a'] * 10**5) }}", "{{ range(100000)|join('x' * 10**7)|length }}",
    "{{ ('x' * 10**7).join(['a'] * 10**5)|length }}",
]  # fmt: skip
REACHES = [
    "{{ ''.__class__ }}", "{{ ''|attr('__class__') }}", "{{ fields['__class__'].x }}", "{{ self.__init__.__globals__ }}",
    "{{ '{0.__class__}'.format(q) }}", "{{ ('{0.__class__}'|attr('format'))(q) }}", "{{ cycler.__init__ }}", "{{ dict.mro() }}",
    "{{ [q]|map(attribute='__class__')|list }}", "{{ [q]|map('attr', '__class__')|list }}", "{{ fields.update({}) }}",
    "{{ namespace.__init__.__globals__ }}", "{{ range.__self__ }}", "{% include '/proc/self/environ' %}", "{% include '../x' %}",
    "{{ 'a'|batchchat_each.__self__ }}",
]  # fmt: skip


@pytest.mark.parametrize("source", BOMBS)
def test_bomb_is_refused(source: str) -> None:
    with pytest.raises(
        (ValueError, ConfigError), match=r"too big|longer than|more than|too deeply|Range too big|at most"
    ):
        TemplateLibrary(None).compile(source, what="prompt template").render({"q": "hi", "n": 2})


@pytest.mark.parametrize("source", REACHES)
def test_nothing_beyond_the_fields_is_reached(source: str) -> None:
    with pytest.raises((ValueError, ConfigError)):
        TemplateLibrary(None).compile(source, what="prompt template").render({"q": "hi"})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for c in choices %}{{ loop.index }}/{{ loop.length }} {{ c }}{{ ',' if not loop.last }}{% else %}none{% endfor %}",
         "1/3 a,2/3 b,3/3 c"),
        ("{% for c in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% for k, v in meta.items() %}{{ k }}={{ v }}{% endfor %}", "x=1"),
        ("{% for c in choices|map('upper') %}{{ c }}{% endfor %}", "ABC"),
        ("{% for c in choices recursive %}{{ c }}{{ loop([]) }}{% endfor %}", "abc"),
        ("{% for c in q %}{{ c }}-{% endfor %}", "h-i-"),
        ("{{ q ~ '!' ~ n }}", "hi!2"), ("{{ q + '!' }}", "hi!"), ("{{ n + 1 }}", "3"), ("{{ choices|join(', ') }}", "a, b, c"),
        ("{{ ', '.join(choices) }}", "a, b, c"), ("{{ '%05.1f' % 3.14159 }}", "003.1"), ("{{ '%s: %d'|format(q, n) }}", "hi: 2"),
        ("{{ '{:>5}|{:,}'.format(q, 1234567890123) }}", "   hi|1,234,567,890,123"), ("{{ q|center(6) }}", "  hi  "),
        ("{{ q.ljust(4) }}|", "hi  |"), ("{{ q|replace('h', 'H') }}", "Hi"), ("{{ q.replace('h', 'H') }}", "Hi"),
        ("{{ [n, n]|sum }}", "4"), ("{{ choices|batch(2)|list }}", "[['a', 'b'], ['c']]"), ("{{ meta|tojson(2) }}", '{\n  "x": 1\n}'),
        ("{{ data }}", "{{ 7 * 7 }}{% include 'x' %}"),
    ],
)  # fmt: skip
def test_ordinary_template_works_as_ever(source: str, text: str) -> None:
    fields = {"q": "hi", "n": 2, "choices": ["a", "b", "c"], "meta": {"x": 1}, "data": "{{ 7 * 7 }}{% include 'x' %}"}
    assert TemplateLibrary(None).compile(source, what="prompt template").render(fields) == text


def test_count_begins_anew_with_each_text() -> None:
    template = TemplateLibrary(None).compile("{% for i in range(90000) %}{% endfor %}ok", what="prompt template")
    assert [template.render({}) for _ in range(15)] == ["ok"] * 15
