"""YAML of a job file: what is let through, and what each refusal says."""

import json
import re

import pytest

from batchchat.errors import ConfigError
from batchchat.job_yaml import read_yaml
from batchchat.locations import Mark

ENVIRON = {"NAME": "world", "EMPTY": "", "NUMBER": "7", "YAML": "[1, {a: b}]"}


@pytest.fixture
def job(tmp_path):
    """Writes a job file and gives its path."""

    def write(text):
        path = tmp_path / "job.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def read(path):
    return read_yaml(path, ENVIRON)[0]


def refusal(path):
    """Text of the error, without the folder."""
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.exit_code == 2
    return re.sub(r"^\S*job\.yaml", "job.yaml", str(caught.value))


def test_plain_values_keep_their_types(job):
    text = "a: text\nb: 12\nc: 1.5\nd: true\ne: null\nf: [1, two]\ng: {h: 0x1F}\nh: '012'\ni: 1_000\nj: !!str 5\n"
    assert read(job(text)) == {
        "a": "text", "b": 12, "c": 1.5, "d": True, "e": None, "f": [1, "two"], "g": {"h": 31}, "h": "012", "i": 1000,
        "j": "5",
    }  # fmt: skip


def test_a_character_in_two_escaped_halves_is_one(job):
    """JSON's writers escape so, and a job file may be JSON."""
    assert read(job(json.dumps({"k😀": "😀 $$ é"}))) == {"k😀": "😀 $ é"}
    for text in (r'a: "\ud800"', r'a: ["x\udc00\ud83d"]', r'"\udfff": 1'):
        assert "found half of a surrogate pair, expected a whole character" in refusal(job(text))


def test_every_value_knows_its_line_column_and_spelling(job):
    _, locations = read_yaml(job("a: 1\nb:\n  c: [x, 'yes']\n"), {})
    assert locations.mark(("a",)) == Mark(1, 4, "1", True)
    assert locations.mark(("b",)) == Mark(3, 3)
    assert locations.mark(("b", "c", 0)) == Mark(3, 7, "x", True)
    assert locations.mark(("b", "c", 1)) == Mark(3, 10, "yes", False)


def test_error_at_a_missing_key_names_the_line_of_its_section(job):
    path = job("a: 1\nb:\n  c: 2\n")
    _, locations = read_yaml(path, {})
    assert str(locations.error(("b", "d", 0), "is missing")) == f"{path}:3: b.d[0]: is missing"


def test_byte_order_mark_and_crlf_are_fine(job):
    assert read(job(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml: is empty; expected a mapping with keys such as input, output and provider"),
        ("# nothing\n", "job.yaml: is empty; expected a mapping with keys such as input, output and provider"),
        ("- 1\n", "job.yaml:1: expected a mapping with keys such as input, output and provider"),
        ("a: 1\n---\nb: 2\n", "job.yaml:2: a second document begins here; expected one job in a file"),
        ("a: 1\nb: 2\na: 3\n", "job.yaml:3: a: the key stands twice (first on line 1); remove one"),
        ("a: {b: 1, 'b': 2}\n", "job.yaml:1: a.b: the key stands twice (first on line 1); remove one"),
        (b"a: \xff\n", "job.yaml:1: is not UTF-8; save it as UTF-8"),
        ("a: 1".encode("utf-16"), "job.yaml: is UTF-16; save it as UTF-8"),
        ("a: 1\nb: \x07\n", "job.yaml:2: holds the character '\\x07'; remove it"),
        ("a: x\n" * 300_000, "job.yaml: is larger than 1 MiB; expected a job file"),
    ],
)
def test_file_that_is_no_job_is_refused(job, text, message):
    assert refusal(job(text)) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on: 1", "job.yaml:1: YAML reads the key on as true; put it in quotes"),
        ("a:\n  No: 1", "job.yaml:2: a: YAML reads the key No as false; put it in quotes"),
        ("12: 1", "job.yaml:1: expected text as key, found '12'; put it in quotes"),
        ("a: 012", "job.yaml:1: a: YAML reads 012 as an octal number; write 12, or put it in quotes for text"),
        ("a: -007", "job.yaml:1: a: YAML reads -007 as an octal number; write -7, or put it in quotes for text"),
        ("a: 1:30", "job.yaml:1: a: YAML reads 1:30 as a number in base 60; write 90s for a duration, or put it in quotes"),
        ("a: 2026-11-25", "job.yaml:1: a: YAML reads 2026-11-25 as a date; put it in quotes"),
        ("a: {{ b }}", "job.yaml:1: a: expected text as key, found a mapping or list; put a template such as {{ question }} in quotes"),
        ("a: !!int x", "job.yaml:1: a: 'x' is not what its tag 'tag:yaml.org,2002:int' says"),
    ],
)  # fmt: skip
def test_trap_of_yaml_is_explained(job, text, message):
    assert refusal(job(text)) == message


@pytest.mark.parametrize("text", ["a: 0", "a: '1:30'", "a: '2026-11-25'", "'on': 1", "a: 10", "a: 0.5"])
def test_what_only_looks_like_a_trap_is_let_through(job, text):
    assert read(job(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", r"job.yaml:2: not valid YAML at column 1: .*; use spaces in the place of the tab"),
        ("a: {{ b }} c", r"job.yaml:1: not valid YAML at column 12: .*; put a template in quotes"),
        ("a: [${B}]", r"job.yaml:1: not valid YAML at column 6: .*; put \${NAME} in quotes where it stands in .*"),
        ("a: b: c", r"job.yaml:1: not valid YAML at column 5: .*; put text with such characters in quotes"),
        ("a: @b", r"job.yaml:1: not valid YAML at column 4: .*; put text with such characters in quotes"),
        ("a: *b", r"job.yaml:1: not valid YAML at column 4: .*; put text that begins with \* in quotes"),
        ("a: [1", r"job.yaml:1: not valid YAML at column 6: .*"),
        ('a: "b', r"job.yaml:1: not valid YAML at column 6: .*"),
    ],
)
def test_syntax_error_is_one_sentence_with_line_and_column(job, text, message):
    assert re.fullmatch(message, refusal(job(text)))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!binary", "!!set", "!!timestamp", "!custom"])
def test_tag_that_is_not_plain_is_refused(job, tag):
    assert "is not allowed" in refusal(job(f"a: {tag} {{x: 1}}\n"))


def test_alias_stands_for_its_value(job):
    assert read(job("a: &x [1, 2]\nb: *x\n")) == {"a": [1, 2], "b": [1, 2]}


def test_merged_keys_give_way_to_own_ones_and_to_earlier_ones(job):
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\n"
    assert read(job(text))["c"] == {"x": 1, "y": 1, "z": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {<<: 1}", "expected an alias of a mapping after <<"),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}", "the key << stands twice; expected one, with a list of aliases"),
        ("a: &a {<<: *a}", "the aliases after << go round in a circle, or are too many"),
        ("a: &a [*a]", "an alias stands inside the value it names; write the value out"),
        ("a: &a {b: *a}", "an alias stands inside the value it names; write the value out"),
    ],
)
def test_alias_or_merge_without_a_meaning_is_refused(job, text, message):
    assert refusal(job(text)).endswith(message)


@pytest.mark.parametrize(
    "item", ["[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]", "{{<<: [{0}, {0}, {0}, {0}, {0}, {0}]}}"]
)
def test_alias_bomb_ends_early(job, item):
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {item.format(f'*a{n - 1}')}" for n in range(1, 12))]
    assert re.search("more than 10000 values|too many", refusal(job("\n".join(lines))))


def test_nesting_without_end_is_refused(job):
    assert refusal(job("a: " + "[" * 5000)) == "job.yaml: is nested too deeply for a job file"


def test_file_that_cannot_be_read_is_told_with_the_reason(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r": the job file cannot be read: (No such file|Is a directory)"):
            read_yaml(str(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hello ${NAME}", "hello world"),
        ("'${NAME}'", "world"),
        ("${UNSET:-x y}", "x y"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${UNSET:-}", ""),
        ("${NAME}-${NUMBER}", "world-7"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$world"),
        ("costs $5 or $x", "costs $5 or $x"),
        ("${YAML}", "[1, {a: b}]"),
        ("|\n  x ${NAME}", "x world\n"),
    ],
)
def test_variable_is_replaced_as_text(job, text, value):
    found = read(job(f"a: {text}\n"))["a"]
    assert found == value
    assert isinstance(found, str)


def test_variable_in_a_list_and_deep_in_a_mapping_is_replaced(job):
    assert read(job("a: ['${NAME}', {b: '${NUMBER}'}]")) == {"a": ["world", {"b": "7"}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'${UNSET}'", "job.yaml:2: b.c: environment variable UNSET is not set; set it, or write ${UNSET:-default}"),
        ("'${'", "job.yaml:2: b.c: expected ${NAME} or ${NAME:-default}, found '${' without '}'; write $$ for a dollar sign"),
        ("'${1A}'", "job.yaml:2: b.c: expected ${NAME} or ${NAME:-default}, found '${1A}'; write $$ for a dollar sign"),
        ("'${A:?no}'", "job.yaml:2: b.c: expected ${NAME} or ${NAME:-default}, found '${A:?no}'; write $$ for a dollar sign"),
        ("'${A:-${B}}'", "job.yaml:2: b.c: expected ${NAME} or ${NAME:-default}, found '${A:-${B}'; write $$ for a dollar sign"),
    ],
)  # fmt: skip
def test_variable_that_cannot_be_replaced_is_an_error_with_line_and_key(job, text, message):
    assert refusal(job(f"a: 1\nb: {{c: {text}}}\n")) == message


def test_variable_in_a_key_is_refused(job):
    assert refusal(job("'${NAME}': 1")) == "job.yaml:1: variables work in values only, found the key '${NAME}'"
