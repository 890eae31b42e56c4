"""What shells offer: every option's values, asked as a shell asks, and by typing in real shells."""

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchchat.cli import group, main
from batchchat.cli.command_tree import read_commands
from batchchat.providers import installed_providers

COMMANDS = {command.path: command for command in read_commands(group).walk()}
FILES = ("FILE", "RESULTS", "INPUT", "INPUT...", "IN", "OUT")


def offered(capsys, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What bash is told for the last word, as ``kind,value``."""
    monkeypatch.setenv("_BATCHCHAT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as caught:
        main([])
    out, err = capsys.readouterr()
    assert (caught.value.code, err) == (0, "")
    return [line for line in out.splitlines() if line]


def with_value() -> Iterator[tuple[str, str, str]]:
    """Command, option and the word for its value, of all options that take one."""
    for path, command in COMMANDS.items():
        for option in command.options:
            # The one value that is written with a space is quoted.
            names, _, metavar = option.names.partition(" '") if "'" in option.names else option.names.rpartition(" ")
            if names.startswith("-") and not metavar.startswith("-"):
                yield path, names.replace(",", " ").split()[-1], metavar


@pytest.mark.parametrize(("path", "option", "metavar"), list(with_value()))
def test_every_value_that_can_be_offered_is(capsys, monkeypatch, path: str, option: str, metavar: str) -> None:
    found = offered(capsys, monkeypatch, *path.split(), option, "")
    if metavar in FILES:
        assert found == ["file,"]
    elif metavar == "DIR":
        assert found == ["dir,"]
    elif option == "--provider":
        assert found == [f"plain,{name}" for name in installed_providers()]
    else:
        words = [word for word in metavar.strip("[]").split("|") if word.islower() and word.replace("-", "").isalpha()]
        assert found == [f"plain,{word}" for word in words]


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if command.arguments.split()[-1] in (*FILES, "[INPUT]...")])  # fmt: skip
def test_files_are_offered_for_arguments(capsys, monkeypatch, path: str) -> None:
    assert offered(capsys, monkeypatch, *path.split(), "") == ["file,"]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_offered_by_its_name(capsys, monkeypatch, path: str) -> None:
    found = offered(capsys, monkeypatch, *path.split(), "--")
    for option in COMMANDS[path].options:
        names = [name.strip(",") for name in option.names.split() if name.startswith("--")]
        assert {f"plain,{name}" for name in names} <= set(found)


@pytest.mark.parametrize("words", [["nosuch", ""], ["run", "--nosuch", ""], ["run", "--job"], ["run", "--", ""], ["run", "'", ""], ["model", "x", ""]])  # fmt: skip
def test_a_line_that_is_wrong_is_no_error(capsys, monkeypatch, words: list[str]) -> None:
    offered(capsys, monkeypatch, "batchchat", *words)


def test_a_shell_that_is_not_known_is_told(capsys, monkeypatch) -> None:
    monkeypatch.setenv("_BATCHCHAT_COMPLETE", "nosuch_source")
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 1


def test_a_command_takes_what_it_is_given_after_a_shell_has_asked(capsys, monkeypatch) -> None:
    """What completion puts in the place of types must not change what a command reads."""
    with monkeypatch.context() as asking:
        offered(capsys, asking, "batchchat", "serve", "--port", "")
    with pytest.raises(SystemExit):
        main(["serve", "--port", "nosuch"])
    assert "'nosuch' is not a valid integer range" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["run", "--log-format", "nosuch"])
    assert caught.value.code == 2
    assert "'nosuch' is not one of 'text', 'json'" in capsys.readouterr().err


TYPED = {
    "batchchat sta": "batchchat status ",
    "batchchat run --ord": "batchchat run --order ",
    "batchchat run --order inp": "batchchat run --order input ",
    "batchchat run --provider chat": "batchchat run --provider chatgpt4online ",
    "batchchat convert --to bedrock-": "batchchat convert --to bedrock-converse ",
    "batchchat run -j my-": "batchchat run -j my-job.yaml ",
    "batchchat run quest": "batchchat run questions.jsonl ",
    "batchchat run --file-root fol": "batchchat run --file-root folder/",
    "batchchat model ins": "batchchat model install ",
}
BASH = ["bash", "--norc", "--noprofile", "-i"]
BASH_SETUP = (
    """eval "$(_BATCHCHAT_COMPLETE=bash_source batchchat)"; bind -x '"\\C-g": printf "<%s>" "$READLINE_LINE"'"""
)
ZSH = ["zsh", "-f", "-i"]
ZSH_SETUP = (
    "autoload -Uz compinit; compinit -u -D; "
    'eval "$(_BATCHCHAT_COMPLETE=zsh_source batchchat)"; '
    "show() { printf '<%s>' $BUFFER }; zle -N show; bindkey '^G' show"
)


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        environment = os.environ | {
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "TERM": "dumb", "PS1": "$ ", "PROMPT": "$ ", "INPUTRC": os.devnull, "HISTFILE": os.devnull, "ZDOTDIR": str(folder),
        }  # fmt: skip
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def type(self, keys: str, until: str) -> str:
        """What the terminal shows from here until a text has come."""
        os.write(self._ours, keys.encode())
        shown = b""
        give_up = time.monotonic() + 50
        while until.encode() not in shown:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, give_up - time.monotonic()))
            assert ready, shown
            shown += os.read(self._ours, 4096)
        return shown.decode(errors="replace")

    def close(self) -> None:
        os.close(self._ours)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(10)


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "setup"), [(BASH, BASH_SETUP), (ZSH, ZSH_SETUP)], ids=lambda value: value[0] if isinstance(value, list) else ""
)  # fmt: skip
def test_typing_in_a_real_shell(tmp_path: Path, command: list[str], setup: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    for name in ("my-job.yaml", "questions.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    terminal = Terminal(command, tmp_path)
    try:
        terminal.type(f"{setup}; printf 'set %s\\n' up\n", "set up")
        for typed, expected in TYPED.items():
            shown = terminal.type(f"{typed}\t\x07", ">")
            line = shown[shown.rindex("<") + 1 : shown.rindex(">")]
            assert line == expected
            terminal.type("\x15\x07", "<>")
    finally:
        terminal.close()


@pytest.mark.process
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_asking_fish(tmp_path: Path) -> None:
    for name in ("my-job.yaml", "questions.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    asked = "; ".join(f"complete -C '{typed}'; echo =" for typed in TYPED)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"_BATCHCHAT_COMPLETE=fish_source batchchat | source; {asked}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=50, check=True,
        env=os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "HOME": str(tmp_path)},
    )  # fmt: skip
    answers = [answer.strip().partition("\t")[0] for answer in done.stdout.split("=\n")[:-1]]
    assert answers == [expected.split()[-1] for expected in TYPED.values()]
