"""What the README tells people to type works as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import BATCHCHAT, read_lines, serving

pytestmark = pytest.mark.process
ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = [
    shlex.split(line.removeprefix("$ batchchat "))
    for line in README.replace("\\\n", "").splitlines()
    if line.startswith("$ batchchat run") and "--base-url" in line
]


def in_folder(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=50, check=False
    )


def make_run(folder: Path, *variables: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The recipe itself, with the environment that these tests run in standing for the one that it would make."""
    recipe = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.run", "run", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("jobs", "sample_inputs"):
        shutil.copytree(ROOT / name, folder / name)
    binaries = os.path.dirname(sys.executable)
    return in_folder(folder, ["sh", "-c", recipe.replace(".venv/bin/", f"{binaries}/")], **environment)


def test_make_run_answers_the_sample_and_shows_it(tmp_path: Path) -> None:
    done = make_run(tmp_path, "BACKEND=echo")
    assert done.returncode == 0, done.stderr
    assert "make run: an echo answers, as BACKEND asks for\n" in done.stderr
    assert "12 of 12 answered, 0 failed" in done.stderr
    assert "q-01: Echo: " in done.stderr
    assert len(read_lines(tmp_path / "results" / "sample.jsonl")) == 12


def test_make_run_works_without_a_registry_and_says_why_an_echo_answers(tmp_path: Path) -> None:
    """Nothing can be installed from an index that is not there; what cannot be imported is not there."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    # pip sees no index, and whatever this environment has of the extra is hidden from the interpreter.
    (hidden / "sitecustomize.py").write_text(
        "import importlib.metadata as m, importlib.util as u\n"
        "find, files = u.find_spec, m.files\n"
        "u.find_spec = lambda name, *more: None if name == 'xllamacpp' else find(name, *more)\n"
    )
    done = make_run(
        tmp_path, PYTHONPATH=str(hidden), PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull, PIP_TARGET=str(hidden)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (why,) = re.findall(r"^make run: an echo answers, (.*)$", done.stderr, re.MULTILINE)
    assert why.startswith("batchchat: what runs the model cannot be installed; pip says: ")
    assert "q-01: Echo: " in done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[example.index("--provider") + 1])
def test_examples_with_a_real_service_run_as_they_stand(tmp_path: Path, example: list[str]) -> None:
    """Against the development server in the service's place; the rate is left out, as it would take a while."""
    (lines,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    (tmp_path / "questions.jsonl").write_text(lines)
    at = example.index("--rate")
    arguments = example[:at] + example[at + 2 :]
    with serving(tmp_path) as server:
        arguments[arguments.index("--base-url") + 1] = server.base_url
        done = in_folder(tmp_path, [*BATCHCHAT, *arguments], OPENAI_API_KEY="sk-x")
    assert done.returncode == 0, done.stderr
    assert {line["id"] for line in read_lines(tmp_path / "answers.jsonl")} == {"q-1", "q-2", "q-3", "q-4"}
    assert (tmp_path / "answers.run.json").exists()


def test_python_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for folder in ("jobs", "sample_inputs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    with serving(tmp_path) as server:
        done = in_folder(tmp_path, [sys.executable, "-c", code], BATCHCHAT_BASE_URL=server.base_url)
    assert (done.returncode, done.stdout) == (0, "12 0\n"), done.stderr
    assert done.stderr == ""
