"""What the recipes tell people to type works as it stands there, in the order in which it stands there."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import BATCHCHAT, read_lines, serving

pytestmark = pytest.mark.process
FOLDER = Path(__file__).parents[2] / "docs" / "recipes"
_FILE = re.compile(r"^`([\w.-]+)`[^\n]*:\n\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_BASE_URL = re.compile(r"https://[\w.-]+\.example\.org")


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Commands and programs of a page in their order, as kind and text."""
    for kind, body in _FENCE.findall((FOLDER / page).read_text()):
        if kind == "python":
            yield kind, body
        else:
            for line in body.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    yield kind, line[2:]


def follow(page: str, folder: Path, **scenario: str) -> list[str]:
    """Does what a page says against the development server; what each step printed on standard output."""
    shutil.copytree(FOLDER.parents[1] / "sample_inputs", folder / "sample_inputs")
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "batchchat").write_text(f'#!/bin/sh\nexec {" ".join(BATCHCHAT)} "$@"\n')
    (binaries / "batchchat").chmod(0o755)
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "OPENAI_API_KEY": "sk-x"}
    outputs = []
    with serving(folder, **scenario) as server:
        for name, content in _FILE.findall((FOLDER / page).read_text()):
            (folder / name).write_text(_BASE_URL.sub(server.base_url, content))
        for kind, text in steps(page):
            command = (
                [sys.executable, "-c", text] if kind == "python" else ["sh", "-c", _BASE_URL.sub(server.base_url, text)]
            )
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False
            )
            assert done.returncode == 0, (text, done.stderr)
            outputs.append(done.stdout)
    return outputs


def test_label_a_csv(tmp_path: Path) -> None:
    outputs = follow("label-a-csv.md", tmp_path)
    assert outputs[-1] == "3 rows, 3 different labels\n"
    assert len(read_lines(tmp_path / "labels.jsonl")) == 3
    with open(tmp_path / "labels.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["t-3"]["input.text"] == "How do I change my address?\nI moved last week."
    assert rows["t-1"]["input.customer"] == "c-17"
    with open(tmp_path / "failed.csv", newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == []


def test_translate_a_parquet_column(tmp_path: Path) -> None:
    outputs = follow("translate-a-parquet-column.md", tmp_path)
    assert outputs[-1] == "3 rows, 0 without a translation\n"


def test_evaluate_on_a_benchmark(tmp_path: Path) -> None:
    outputs = follow("evaluate-on-a-benchmark.md", tmp_path, replies='["{\\"answer\\": 66}"]')
    assert "prompts           30\nprompts per line  5\n" in outputs[0]
    # The number that is always answered is the right one once.
    assert "5 of 30 answers right, 1 of 6 questions by vote\n" in outputs
    assert "1 of 6 right\n" in outputs
    assert [line["parsed"] for line in read_lines(tmp_path / "graded.jsonl")] == [{"answer": 66}] * 6
    compared = read_lines(tmp_path / "compared.jsonl")
    assert len(compared) == 24
    assert {line["model"] for line in compared} == {"small", "large"}


@pytest.mark.parametrize("page", sorted(path.name for path in FOLDER.glob("*.md")))
def test_every_recipe_is_linked_from_the_readme(page: str) -> None:
    assert f"(docs/recipes/{page})" in (FOLDER.parents[1] / "README.md").read_text()
