"""What a run, a resumed run and a status keep of each prompt, measured as the growth between two sizes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
FEW, MANY = 5_000, 40_000
# Of the tables of ids; docs/scale.md tells 30.
_MOST_BYTES_A_PROMPT = 64
# What the allocator keeps for itself differs from run to run.
_SLACK_BYTES = 3 << 20

PROVIDER = """
import msgspec
from batchchat.providers.base import StreamEnd
from batchchat.records import Completion

class Settings(msgspec.Struct, frozen=True, kw_only=True):
    pass

class Fixed:
    kind, Config = "fixed", Settings

    def __init__(self, config, context):
        self._gate = context.gate

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def identity(self, prompt, params):
        return {"kind": self.kind, "messages": prompt.messages}

    async def complete(self, request):
        await self._gate.admit()
        return Completion(text="ok", finish_reason="stop")

    async def stream(self, request):
        yield StreamEnd(await self.complete(request))
"""
IDS = {
    "counted": lambda number: f'"id":"q-{number:07}",',
    "none": lambda number: "",
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder in which a provider is installed that answers by itself."""
    folder = tmp_path / "packages"
    about = folder / "fixed-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "fixed_answers.py").write_text(PROVIDER)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fixed\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[batchchat.providers]\nfixed = fixed_answers:Fixed\n")
    return folder


def most_memory(packages: Path, *arguments: str) -> int:
    """Runs batchchat to its end; the most bytes it held at any time."""
    environ = {**os.environ, "PYTHONPATH": str(packages)}
    process = subprocess.Popen([sys.executable, "-m", "batchchat", *arguments], env=environ, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell the memory of a child")
@pytest.mark.parametrize("ids", IDS)
def test_a_prompt_takes_the_bytes_of_its_id(tmp_path: Path, packages: Path, ids) -> None:
    kept = {}
    for count in (FEW, MANY):
        prompts, results = str(tmp_path / f"{count}.jsonl"), str(tmp_path / f"{count}-results.jsonl")
        with open(prompts, "w") as file:
            file.writelines(f'{{{IDS[ids](number)}"prompt":"question {number}"}}\n' for number in range(count))
        run = ("run", prompts, "-o", results, "--provider", "fixed", "--concurrency", "8", "--fsync", "never", "-q")
        kept[count] = {
            "run": most_memory(packages, *run),
            "resumed": most_memory(packages, *run),
            "status": most_memory(packages, "status", results, "-i", prompts),
        }
        with open(results, "rb") as lines:
            assert sum(1 for _ in lines) == count
    tables = {"run": 1, "resumed": 2, "status": 2}
    for what, number in tables.items():
        grown = kept[MANY][what] - kept[FEW][what]
        assert grown < number * _MOST_BYTES_A_PROMPT * (MANY - FEW) + _SLACK_BYTES, (what, grown)
