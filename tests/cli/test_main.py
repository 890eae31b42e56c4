"""The command line as a whole: help, versions, errors as sentences, and standard streams that are gone."""

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from batchchat.cli import _COMMANDS, main
from batchchat.version import VERSION
from tests.runs import BATCHCHAT

COMMANDS = list(_COMMANDS)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command line to its exit."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def loaded_by(code: str, *names: str) -> set[str]:
    """Which of the modules a fresh interpreter has after running the code."""
    script = f"{code}\nimport sys\nprint(*(name for name in {names!r} if name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True).stdout
    return set(out.splitlines()[-1].split()) if out.strip() else set()


def test_version_is_the_packages(capsys) -> None:
    assert call(capsys, "--version") == (0, f"batchchat, version {VERSION}\n", "")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(capsys, option: str) -> None:
    code, out, err = call(capsys, option)
    assert (code, err) == (0, "")
    listed = out.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "] == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys, name: str) -> None:
    code, out, err = call(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: batchchat {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_short_name_everywhere(name: str) -> None:
    """In processes of their own, as click keeps a command's help option from its first use."""
    process = subprocess.run([*BATCHCHAT, name, "-h"], capture_output=True, text=True, timeout=50, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"Usage: batchchat {name} ")


def test_no_command_shows_the_help(capsys) -> None:
    code, out, err = call(capsys)
    assert code == 2
    assert "Commands:" in out + err


def test_unknown_command_is_a_usage_error(capsys) -> None:
    code, out, err = call(capsys, "rnu")
    assert (code, out) == (2, "")
    assert "No such command 'rnu'" in err


def test_error_is_one_line_whatever_stands_in_it(capsys) -> None:
    code, out, err = call(capsys, "check", "no\x1b[2J\nsuch.jsonl")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert err.startswith(r"batchchat: no\x1b[2J\nsuch.jsonl: ")


def test_module_and_script_are_the_same_command() -> None:
    (script,) = entry_points(group="console_scripts", name="batchchat")
    assert script.value == "batchchat.__main__:main"
    out = subprocess.run([*BATCHCHAT, "--version"], capture_output=True, text=True, timeout=50, check=True).stdout
    assert out == f"batchchat, version {VERSION}\n"


def test_help_imports_none_of_what_a_run_needs() -> None:
    code = "from batchchat.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded_by(code, "aiohttp", "rich", "jinja2", "msgspec", "yaml", "batchchat.runner") == set()


def test_check_of_plain_input_imports_no_terminal_library(tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    code = (
        f"from batchchat.cli import main\ntry: main(['check', {str(tmp_path / 'in.jsonl')!r}])\nexcept SystemExit: pass"
    )
    assert loaded_by(code, "rich", "jinja2") == set()


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_make_no_traceback(tmp_path, redirection: str) -> None:
    for arguments, code in ((["--version"], 0), (["check", "none.jsonl"], 3)):
        process = subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *BATCHCHAT, *arguments], cwd=tmp_path, check=False,
                                 capture_output=True, text=True, timeout=50)  # fmt: skip
        assert process.returncode == code, process.stderr
        assert "Traceback" not in process.stderr


def test_reader_that_went_away_makes_no_traceback() -> None:
    process = subprocess.Popen([*BATCHCHAT, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(50) == 6
    process.stderr.close()


def test_terminal_of_another_encoding_is_told_what_it_can_show(tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "你好", "prompt": "a"}\n' * 2)
    process = subprocess.run([*BATCHCHAT, "check", "in.jsonl"], cwd=tmp_path, capture_output=True, text=True, timeout=50,
                             env={**os.environ, "PYTHONIOENCODING": "iso-8859-1"}, check=False)  # fmt: skip
    assert (process.returncode, process.stderr) == (3, "")
    assert process.stdout.startswith("in.jsonl:2: duplicate id '\\u4f60\\u597d'")
