"""What the tutorial tells people to type works as it stands there, in the order in which it stands there."""

import csv
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import BATCHCHAT, Server, read_lines, serving

pytestmark = pytest.mark.process
PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
_FILE = re.compile(r"`([\w.-]+)`[^`]*:\n\n```(?:json|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_BLOCKS = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ADDRESS = "http://127.0.0.1:8080"


def follow(folder: Path, server: Server) -> list[subprocess.CompletedProcess[str]]:
    """Does what the page says, but for the server, which is there already, at another port."""
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "batchchat").write_text(f'#!/bin/sh\nexec {" ".join(BATCHCHAT)} "$@"\n')
    (binaries / "batchchat").chmod(0o755)
    for name, content in _FILE.findall(PAGE):
        (folder / name).write_text(content.replace(_ADDRESS, server.base_url))
    done = []
    for command in commands():
        if not command.startswith("batchchat serve"):
            ended = subprocess.run(
                ["sh", "-c", command.replace(_ADDRESS, server.base_url)], cwd=folder, capture_output=True, text=True,
                timeout=50, check=False, env=os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}"},
            )  # fmt: skip
            assert ended.returncode == 0, (command, ended.stderr)
            done.append(ended)
    return done


def commands() -> Iterator[str]:
    """What stands behind a prompt, with the lines that go on from it."""
    for block in _BLOCKS.findall(PAGE):
        yield from re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]


def test_tutorial_from_questions_to_a_table(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        steps = follow(tmp_path, server)
        asked = server.asked()
    check, _, shown, _, again, _, status, _ = steps
    assert "prompts           3\n" in check.stdout
    assert "time at the rate" in check.stdout
    assert sorted(shown.stdout.splitlines()) == [
        "pi - Echo: What is the tenth digit of pi?",
        "sky - Echo: Why is the sky blue?",
        "tea - Echo: How long should green tea draw?",
    ]
    # Once for the first file, and once with another system prompt for the second; the run again asked one question.
    assert asked == dict.fromkeys(asked, 2)
    assert len(asked) == 4
    assert "4 of 4 answered" in again.stderr
    assert len(read_lines(tmp_path / "answers.jsonl")) == 4
    assert re.search(r"^completed +4$", status.stdout, re.MULTILINE)
    with open(tmp_path / "short.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["rain"]["response"] == "Echo: What makes rain smell?"
    assert rows["sky"]["input.topic"] == "physics"


def test_what_is_told_of_the_server_is_so() -> None:
    """The one command that is not run as it stands takes the address that the others are given."""
    assert "\n$ batchchat serve --port 8080\n" in PAGE
    assert set(re.findall(r"http://[^\s`\",]+", PAGE)) == {_ADDRESS}
