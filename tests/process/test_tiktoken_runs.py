"""Runs beside a tiktoken that works, one that cannot load its tables, and none."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runs import BATCHCHAT, read_lines, serving, write_prompts

WORKS = """
class Encoding:
    def encode(self, text, *, disallowed_special):
        return [0] * len(text)

def encoding_for_model(model):
    if model != "gpt-4o":
        raise KeyError(model)
    return Encoding()
"""
BROKEN = """
def encoding_for_model(model):
    raise OSError("no network")
"""


def run_beside(folder: Path, source: str, model: str, *more: str) -> tuple[list[int], str]:
    """Input tokens of ten answers whose service tells no usage, and what was said."""
    stub = folder / "stub"
    stub.mkdir()
    (stub / "tiktoken.py").write_text(source)
    prompts, results = write_prompts(folder / "in.jsonl", 10), folder / "r.jsonl"
    with serving(folder, no_usage="true") as server:
        done = subprocess.run(
            [*BATCHCHAT, "run", str(prompts), "-o", str(results), "--provider", "openai", "--base-url", server.base_url,
             "--model", model, *more],
            env={**os.environ, "PYTHONPATH": f"{stub}{os.pathsep}{os.getcwd()}"}, capture_output=True, text=True, timeout=50, check=True,
        )  # fmt: skip
    lines = read_lines(results)
    assert all(line["usage"]["estimated"] for line in lines)
    return [line["usage"]["input_tokens"] for line in lines], done.stderr


@pytest.mark.parametrize(
    ("source", "model", "tokens", "notices"),
    [
        (WORKS, "gpt-4o", 10 + 7, 0),
        (WORKS, "other", 3 + 7, 0),
        (BROKEN, "gpt-4o", 3 + 7, 1),
        ("raise ImportError", "gpt-4o", 3 + 7, 0),
    ],
    ids=["works", "unknown model", "broken", "missing"],
)
@pytest.mark.parametrize("more", [(), ("--tokens-per-minute", "100000")], ids=["after", "before"])
def test_tokens_are_counted_where_they_can_be(tmp_path, source, model, tokens, notices, more) -> None:
    found, said = run_beside(tmp_path, source, model, *more)
    assert found == [tokens] * 10
    assert said.count("tiktoken cannot load its encoding") == notices
    assert json.loads((tmp_path / "r.run.json").read_text())["estimated_requests"] == 10
