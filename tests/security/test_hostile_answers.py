"""Nothing that a service, a file or a name holds steers a terminal: what is shown is printable, line by line."""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.progress import JsonProgress, LineProgress
from batchchat.runner import run_job
from tests.runs import BATCHCHAT, write_prompts
from tests.security.test_secrets import answers, echoing

HOSTILE = (
    "\x1b[31mred\x1b]8;;http://evil\x07link\x1b]8;;\x07\x1b]52;c;ZXZpbA==\x07\x9b2J\x9d0;title\x9c\x07\b\b\x7f\x00"
    "\u202egnp\u2066\u2069\u200f\u2028\u2029\x85\rover\x0bv\x0cf\ud800"
)


def unprintable(text: str) -> set[str]:
    return {char for line in text.split("\n") for char in line if not char.isprintable()}


@pytest.mark.parametrize("protocol", ["openai", "ai-engine"])
async def test_what_a_service_says_is_shown_without_control_characters(tmp_path: Path, protocol: str) -> None:
    text = HOSTILE.replace("\ud800", "")
    given = [each for each in answers(text) if b"is no HTTP" not in each]
    write_prompts(tmp_path / "in.jsonl", len(given))
    said, structured = io.StringIO(), io.StringIO()
    async with echoing(given) as (_echo, address):
        job = load_job(None, {
            "input": [str(tmp_path / "in.jsonl")], "output.path": str(tmp_path / "out.jsonl"), "retry.retries": 0,
            "provider.name": protocol, "provider.base_url": f"http://{address}", "concurrency": 1, "nonce_cache": False,
            **({"provider.model": "m"} if protocol == "openai" else {}),
        })  # fmt: skip
        from batchchat.progress import safe_writer

        observers: list[Any] = [
            LineProgress(safe_writer(said), verbosity=2),
            JsonProgress(safe_writer(structured), verbosity=2),
        ]
        await run_job(job, observers=observers, environ={})
        for observer in observers:
            observer.close()
    assert said.getvalue().count("\n") > len(given) / 2
    assert unprintable(said.getvalue()) == set()
    assert unprintable(structured.getvalue()) == set()
    for name in ("out.errors.jsonl", "out.jsonl"):
        for line in (tmp_path / name).read_text().splitlines():
            json.loads(line)
            assert not {char for char in line if ord(char) < 32}, "JSON escapes what steers most terminals"


def test_hostile_files_and_names_are_shown_without_control_characters(tmp_path: Path) -> None:
    name = "\x1b]0;evil\x07\u202e.jsonl"
    line = {
        "id": HOSTILE.replace("\ud800", ""),
        "response": None,
        "error": {"type": "\x1b[31mserver", "message": HOSTILE[:20]},
        "input": {},
    }
    (tmp_path / name).write_text("")
    (tmp_path / name.replace(".jsonl", ".errors.jsonl")).write_text(json.dumps(line) + "\n")
    (tmp_path / "bad.jsonl").write_text(json.dumps({"id": HOSTILE[:30], "\x1b[2J": 1}) + "\n")
    (tmp_path / "job.yaml").write_text('"\\e[31mkey": 1\n')
    for arguments in (
        ["status", name], ["status", name, "-i", name], ["check", "bad.jsonl"], ["check", name], ["convert", "bad.jsonl", "o.csv"],
        ["convert", name, "\x1b[1m.csv"], ["run", "-j", "job.yaml"], ["run", name, "-o", name], ["run", "no\x1b[2J", "-o", "o"],
        ["run", "--\x1b[2J"], ["serve", "--set", "\x1b[2J=1"], ["status", "a", "b\x1b[2J"], ["\x1b[2J"],
        ["run", "bad.jsonl", "--prompt", "{{ a }}", "-o", "o", "--provider", "\x1b[2J"], ["run", "--concurrency", "\x1b[2J"],
    ):  # fmt: skip
        done = subprocess.run(
            [*BATCHCHAT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert unprintable(done.stdout + done.stderr) == set(), arguments
        assert "Traceback" not in done.stderr, arguments
