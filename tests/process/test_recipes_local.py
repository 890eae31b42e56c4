"""The recipes for cron and for synthetic data do what they say, step by step as they stand there."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.test_recipes import _FILE, FOLDER, steps
from tests.real_servers import local_environment
from tests.runs import read_lines, serving

pytestmark = pytest.mark.process


class Recipe:
    """A page's files in a folder, and its steps."""

    def __init__(self, page: str, folder: Path, python: str) -> None:
        self.folder, self._python = folder, python
        for name, content in _FILE.findall((FOLDER / page).read_text()):
            (folder / name).write_text(content)
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "batchchat").write_text(f'#!/bin/sh\nexec {python} -m batchchat "$@"\n')
        (binaries / "batchchat").chmod(0o755)
        self._environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "OPENAI_API_KEY": "sk-x"}
        self.steps = list(steps(page))

    def call(self, step: tuple[str, str]) -> subprocess.CompletedProcess[str]:
        """Does one step."""
        command = [self._python, "-c", step[1]] if step[0] == "python" else ["sh", "-c", step[1]]
        return subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=150
        )


@pytest.mark.real_server
@pytest.mark.timeout(300)
def test_synthetic_data_is_generated_as_the_page_says(tmp_path: Path) -> None:
    recipe = Recipe("generate-synthetic-data.md", tmp_path, local_environment().python)
    for step in recipe.steps:
        done = recipe.call(step)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "3 rows\n"
    rows = read_lines(tmp_path / "dataset.jsonl")
    assert {row["product"] for row in rows} == {"headphones", "a rain coat", "a bicycle lamp"}
    for row in rows:
        assert 1 <= row["stars"] <= 5
        assert 20 <= len(row["review"]) <= 200


def test_a_night_is_silent_and_the_next_sends_what_is_new(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        recipe = Recipe("nightly-cron.md", tmp_path, sys.executable)
        job = tmp_path / "nightly.yaml"
        job.write_text(job.read_text().replace("https://llm.example.org", server.base_url))
        night, figures = recipe.steps
        for told in ("completed 2 new, 0 before, 0 failed\n", "completed 0 new, 2 before, 0 failed\n"):
            done = recipe.call(night)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert recipe.call(figures).stdout == told
        with open(tmp_path / "tickets.csv", "a", newline="") as file:
            csv.writer(file).writerow(["t-3", "How do I change my address?"])
        assert recipe.call(night).stdout == ""
        assert recipe.call(figures).stdout == "completed 1 new, 2 before, 0 failed\n"


def test_a_bad_night_is_told_and_one_that_meets_another_is_not(tmp_path: Path) -> None:
    with serving(tmp_path, auth_refused="true", api_key="sk-other") as server:
        recipe = Recipe("nightly-cron.md", tmp_path, sys.executable)
        job = tmp_path / "nightly.yaml"
        job.write_text(job.read_text().replace("https://llm.example.org", server.base_url))
        done = recipe.call(recipe.steps[0])
        assert done.returncode != 0
        assert done.stdout.startswith(f"the nightly run ended with {done.returncode}, see nightly.log\n")
        assert "2" in done.stdout.partition("\n")[2]
        assert (tmp_path / "nightly.log").read_text()
    with serving(tmp_path, latency_ms=60000) as server:
        job.write_text(job.read_text().partition("base_url")[0] + f'base_url: "{server.base_url}", model: small}}\n'
                       + "prompt: {id: id, template: \"{{ text }}\"}\n")  # fmt: skip
        first = subprocess.Popen(
            [sys.executable, "-m", "batchchat", "run", "-j", "nightly.yaml", "--quiet"], cwd=tmp_path
        )
        try:
            server.wait_for_chats(1)
            done = recipe.call(recipe.steps[0])
            assert (done.returncode, done.stdout) == (0, "")
        finally:
            first.kill()
            first.wait(10)
