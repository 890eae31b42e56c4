"""What commands import: nothing that is there for a feature which is not used. Counted in modules, so no clock decides."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import Server, serving, write_prompts

# Where extras are installed, as for these tests, they stand in for "not installed".
_WITHOUT = ("genai_prices", "tiktoken")
_MAIN = f"import sys; sys.modules.update(dict.fromkeys({_WITHOUT})); from batchchat.__main__ import main; main()"
_LINE = re.compile(r"import time: +\d+ \| +\d+ \| +(\S+)")

# What has a purpose, but none for a run without a job file, a rate, a template or a file that is compressed.
SELDOM = {
    "botocore", "dotenv", "filelock", "fsspec", "importlib.metadata", "jinja2", "jmespath", "jsonschema", "keyring",
    "multiprocessing", "opentelemetry", "prometheus_client", "pyarrow", "pydantic", "rich", "s3fs", "sqlite3", "stamina",
    "tenacity", "yaml", "zoneinfo", "zstandard", "batchchat.checking", "batchchat.devserver",
    "batchchat.forms", "batchchat.hostlimits", "batchchat.job_schema", "batchchat.job_yaml", "batchchat.local",
    "batchchat.parquet_values", "batchchat.providers.chatgpt4online", "batchchat.providers.local", "batchchat.streaming",
    "batchchat.templates", "batchchat.mirrors", "batchchat.storage.store",
}  # fmt: skip
# What only a run needs.
HEAVY = {"aiohttp", "asyncio", "msgspec", "orjson", "ssl", "uvloop"}


def imported(*arguments: str, **environ: str) -> set[str]:
    """Names of all modules that a command imports, and of the packages that they are in; it must end well."""
    command = [sys.executable, "-X", "importtime", "-c", _MAIN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr[-2000:]
    modules = _LINE.findall(done.stderr)
    assert "batchchat.cli" in modules
    return {".".join(module.split(".")[:end]) for module in modules for end in range(1, module.count(".") + 2)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "in.jsonl", 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["check", "--help"],
        ["status", "--help"],
        ["view", "--help"],
        ["report", "--help"],
    ],
)
def test_help_imports_no_more_than_click(arguments: list[str]) -> None:
    """Help is text: no settings, no client, no event loop."""
    assert imported(*arguments) & (SELDOM | HEAVY) == set()


@pytest.mark.parametrize("kind", ["openai", "ai-engine"])
def test_a_run_imports_no_feature_that_it_does_not_use(kind: str, server: Server, prompts: Path) -> None:
    """Neither before the first request nor afterwards, as an import in mid-run would hold up every prompt."""
    model = ["--model", "m"] if kind == "openai" else ["--no-nonce-cache"]
    found = imported(
        "run", str(prompts), "-o", f"{prompts}.out", "--provider", kind, "--base-url", server.base_url, *model
    )
    assert found & SELDOM == set()
    other = {"openai": "ai_engine", "ai-engine": "openai"}[kind]
    assert f"batchchat.providers.{other}" not in found


def test_a_job_file_costs_yaml_and_no_more(server: Server, prompts: Path) -> None:
    """A job file brings in what reads it."""
    job = {
        "version": 1,
        "input": [str(prompts)],
        "output": {"path": f"{prompts}.out"},
        "provider": {"name": "openai", "base_url": server.base_url, "model": "m"},
    }
    path = prompts.with_name("job.yaml")
    path.write_text(json.dumps(job))
    found = imported("run", "-j", str(path))
    assert found & SELDOM == {"yaml", "batchchat.job_yaml"}


@pytest.mark.parametrize("arguments", [["status"], ["report", "--format=json"], ["report", "--format=markdown"]])
def test_a_results_file_is_read_without_a_client(arguments: list[str], tmp_path: Path) -> None:
    """Nor with HTTP, providers or what a run is made of; Jinja is for pages only."""
    (tmp_path / "out.jsonl").write_text('{"id":"a","response":"b"}\n')
    found = imported(*arguments, str(tmp_path / "out.jsonl"))
    assert found & (SELDOM | {"aiohttp", "uvloop", "batchchat.job_run", "batchchat.worker"}) == set()


@pytest.mark.parametrize(
    ("option", "module"),
    [("--prompt={{ prompt }}", "jinja2"), ("--extract=a", "jmespath")],
)
def test_a_feature_is_imported_where_it_is_used(option: str, module: str, server: Server, prompts: Path) -> None:
    """The other side, without which the lists above could be misspelt."""
    found = imported(
        "check", str(prompts), "--provider", "openai", "--base-url", server.base_url, "--model", "m", option
    )
    assert module in found & SELDOM
