"""The manual tells of every command and option, and is roff that man and mandoc have no word against."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from batchchat.cli import group
from batchchat.cli.command_tree import CommandText, read_commands
from batchchat.cli.man_pages import EXIT_CODES, render_man_pages
from batchchat.version import RELEASED, VERSION

ROOT = Path(__file__).resolve().parents[2]
PAGES = render_man_pages()
COMMANDS = {command.path.replace(" ", "-"): command for command in read_commands(group).walk()}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each page as man shows it; the test fails where groff warns."""
    folder = tmp_path_factory.mktemp("man")
    texts = {}
    for name, page in PAGES.items():
        (folder / name).write_text(page, encoding="ascii")
        done = subprocess.run(
            ["groff", "-man", "-Tascii", "-P-cbou", "-ww", "-rLL=200n", name],
            cwd=folder, capture_output=True, text=True, timeout=50, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        texts[name.removesuffix(".1")] = done.stdout
    return texts


needs_groff = pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")


def test_every_command_has_a_page() -> None:
    assert {name.removesuffix(".1") for name in PAGES} == set(COMMANDS)
    assert {"batchchat", "batchchat-run", "batchchat-set-rate", "batchchat-model-install"} <= set(COMMANDS)


@needs_groff
@pytest.mark.parametrize("name", COMMANDS)
def test_page_shows_every_option_with_its_default_and_its_variable(shown: dict[str, str], name: str) -> None:
    text = " ".join(shown[name].split())
    for option in COMMANDS[name].options:
        for part in (option.names, option.help, option.default, option.variable, option.key):
            assert part is None or _ascii(part) in text, (name, part)


@needs_groff
@pytest.mark.parametrize("name", COMMANDS)
def test_page_has_its_name_day_and_version(shown: dict[str, str], name: str) -> None:
    text = shown[name]
    assert text.startswith(f"{name.upper()}(1)")
    assert f"\n       {name} - " in text
    assert re.search(rf"\nbatchchat {re.escape(VERSION)} +{RELEASED} +{name.upper()}\(1\)\n", text)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_has_no_word_against_a_page(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PAGES[name])
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", name], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_groff
def test_texts_that_roff_would_take_for_requests_are_shown_as_they_are(tmp_path: Path) -> None:
    from batchchat.cli import man_pages

    texts = [
        ".so /etc/passwd",
        "'tis",
        r"C:\fBx \n",
        "a\\",
        '"quoted" `x` it\'s',
        "--flag -x",
        "naïve 你 😀",
        ".",
        "\\*S",
    ]
    command = CommandText("x y", "[A]", "s", tuple(texts), (), ())
    page = "\n".join(man_pages._page(command, [command]))
    (tmp_path / "x.1").write_text(page, encoding="ascii")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", "x.1"], cwd=tmp_path, capture_output=True, timeout=50, check=True
    )
    lines = [line.strip() for line in done.stdout.decode().splitlines()]
    assert done.stderr == b""
    assert [line for line in lines if line in texts] == texts


def test_exit_codes_are_the_readmes() -> None:
    table = re.findall(r"^\| ([\d ·]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [code for cell in table for code in cell.split(" · ")] == list(EXIT_CODES)


def test_texts_of_the_tree_are_those_of_the_help() -> None:
    """Bounds, defaults and choices are read from help's brackets; what stands before them stays."""

    @click.command("x")
    @click.option("--port", default=80, show_default=True, type=click.IntRange(0, 9999), help="Port.")
    @click.option("--least", type=click.IntRange(1), metavar="N", help="At least.")
    @click.option("--plain", help="Text.  [default: the machine's]")
    @click.option("--none", help="Without anything [at all], it seems.")
    @click.option("--form", type=click.Choice(["a", "b"]), default="a", show_default=True, help="Form.")
    def command() -> None:
        """First sentence. Second one.

        Another
        paragraph.
        """

    outer = click.Group("top", commands=[command])
    (read,) = read_commands(outer, "top").commands
    assert (read.path, read.summary) == ("top x", "First sentence")
    assert read.paragraphs == ("First sentence. Second one.", "Another paragraph.")
    assert [(option.help, option.default, option.values) for option in read.options[:-1]] == [
        ("Port.", "80", "0 to 9999"),
        ("At least.", None, "1 or more"),
        ("Text.", "the machine's", None),
        ("Without anything [at all], it seems.", None, None),
        ("Form.", "a", None),
    ]
    assert read.options[4].names == "--form [a|b]"


def _ascii(text: str) -> str:
    """As groff writes it for a terminal that knows ASCII alone."""
    return text.replace("…", "...").replace("’", "'")
