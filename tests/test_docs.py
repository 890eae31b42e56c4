"""What the documents say is so: commands, options, keys, links and examples."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from batchchat.cli import _COMMANDS
from batchchat.cli.option_table import OPTIONS
from batchchat.config import JobConfig, load_job
from batchchat.providers import installed_providers

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}
GUIDES = "\n".join(text for name, text in TEXT.items() if not name.startswith("docs/adr/") and name != "CHANGELOG.md")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def command(name: str) -> click.Command:
    return importlib.import_module(f"batchchat.cli.{name.replace('-', '_')}").command


def options_of(name: str) -> set[str]:
    """Every spelling of every option of a command."""
    found = {"-h", "--help"}
    whole = command(name)
    inner = whole.commands.values() if isinstance(whole, click.Group) else ()
    for parameter in [parameter for each in (whole, *inner) for parameter in each.params]:
        if isinstance(parameter, click.Option):
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def fenced(text: str, language: str) -> Iterator[str]:
    """Blocks of code in a language."""
    return (body for kind, body in _FENCE.findall(text) if kind == language)


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Each call of batchchat in the documents' consoles, crontabs and inline code, with its document."""
    for name, text in TEXT.items():
        for kind, body in _FENCE.findall(text):
            if kind in ("console", "crontab", "sh", "bash"):
                for line in body.replace("\\\n", " ").splitlines():
                    _, found, rest = line.partition("batchchat ")
                    if found:
                        yield name, shlex.split(rest, comments=True)
        for code in re.findall(r"`batchchat ([^`]+)`", _FENCE.sub("", text)):
            yield name, shlex.split(code.replace("\\|", "|"))


def test_commands_of_the_readme_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^([\w ]+):(?!=)", makefile, re.MULTILINE) for name in line.split()}
    first = next(fenced(README, "console"))
    assert first == "$ make run\n$ make test\n"
    assert {"run", "test"} <= targets
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    assert {"run", "test"} <= set(phony)


def test_what_make_run_starts_exists() -> None:
    line = re.search(r"batchchat run ([^;\n]+);", (ROOT / "Makefile").read_text())[1]
    arguments = shlex.split(line)
    assert {argument for argument in arguments if argument.startswith("-")} <= options_of("run")
    job = load_job(
        str(ROOT / arguments[arguments.index("--job") + 1]), environ={"BATCHCHAT_BASE_URL": "http://127.0.0.1:9"}
    )
    assert all((ROOT / path).is_file() for path in job.input)


@pytest.mark.parametrize("name", list(_COMMANDS))
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"`batchchat {name}`" in README


def test_readme_names_no_command_that_does_not_exist() -> None:
    named = set(re.findall(r"`batchchat ([a-z-]+)", GUIDES))
    assert named <= set(_COMMANDS)


@pytest.mark.parametrize("name", list(_COMMANDS))
def test_every_option_has_a_help_text(name: str) -> None:
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


def test_every_option_in_the_documents_exists() -> None:
    known = set().union(*(options_of(name) for name in _COMMANDS)) | {"--version"}
    for name, text in TEXT.items():
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            assert option in known, f"{name} names {option}"


@pytest.mark.parametrize(("document", "arguments"), list(command_lines()), ids=lambda value: " ".join(value) if isinstance(value, list) else value)  # fmt: skip
def test_examples_use_commands_and_options_that_exist(document: str, arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in _COMMANDS
    rest = rest[: rest.index("--")] if "--" in rest else rest
    used = {argument.partition("=")[0] for argument in rest if re.match(r"--?[a-zA-Z]", argument)}
    assert used <= options_of(name), document


@pytest.mark.parametrize("document", TEXT)
def test_every_internal_link_leads_somewhere(document: str) -> None:
    for target in _LINK.findall(_FENCE.sub("", TEXT[document])):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / document).parent / path if path else ROOT / document
        assert linked.exists(), f"{document} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("path", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_every_document_is_linked_from_the_readme_or_another(path: str) -> None:
    others = "\n".join(text for name, text in TEXT.items() if name != f"docs/{path}")
    assert f"({path})" in others or f"(docs/{path})" in others or f"({path}#" in others or f"(docs/{path}#" in others


def test_every_key_of_a_job_is_documented() -> None:
    documented = (ROOT / "docs" / "jobs.md").read_text()
    missing = [key for _, key, _ in OPTIONS if not key.startswith("provider.") and f"`{key}`" not in documented]
    assert missing == []
    for key in ("lenient", "nonce_cache", "version", "input", "provider"):
        assert f"`{key}`" in documented


def test_documented_keys_exist() -> None:
    table = re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs" / "jobs.md").read_text(), re.MULTILINE)
    known = {key for _, key, _ in OPTIONS} | {
        "dedup",
        "lenient",
        "nonce_cache",
        "version",
        "input",
        "provider",
        "prices",
        "prompt.templates",
        "prompt.image_detail",
        "prompt.max_file_bytes",
        "telemetry.otlp",
        "telemetry.ids",
        "telemetry.content",
    }
    assert set(table) <= known
    assert len(table) == len(set(table))


@pytest.mark.parametrize("document", [name for name, text in TEXT.items() if "```yaml" in text])
def test_yaml_in_the_documents_is_yaml(document: str) -> None:
    for block in fenced(TEXT[document], "yaml"):
        yaml.safe_load(block)


def test_job_in_the_documents_loads(tmp_path: Path) -> None:
    (block, *_) = fenced(TEXT["docs/jobs.md"], "yaml")
    path = tmp_path / "job.yaml"
    path.write_text(block)
    assert isinstance(load_job(str(path)), JobConfig)


@pytest.mark.parametrize("document", [name for name, text in TEXT.items() if "```python" in text])
def test_python_in_the_documents_parses_and_imports_what_exists(document: str) -> None:
    for block in fenced(TEXT[document], "python"):
        tree = compile(block, document, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("batchchat"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "batchchat":
                assert hasattr(importlib.import_module("batchchat"), node.attr)


@pytest.mark.parametrize("kind", list(installed_providers()))
def test_every_provider_is_documented(kind: str) -> None:
    assert f"## {kind}\n" in TEXT["docs/providers.md"]


def test_every_exit_code_is_documented() -> None:
    for code in (0, 1, 2, 3, 4, 5, 6, 75, 130, 143):
        assert re.search(rf"^\| (\d+ · )?{code}( · \d+)? \|", README, re.MULTILINE), code
