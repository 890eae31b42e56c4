"""``map_prompts`` on a Ray cluster: rows in, the same rows with answers out."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import RayCluster, ray_cluster
from tests.runs import serving

pytest.importorskip("ray")
pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]
ROOT = Path(__file__).parents[2]
RATE_PER_S = 20

PROGRAM = (
    """
import json, logging, os, sys
import ray, ray.data
from batchchat.ray import map_prompts
from batchchat.errors import ConfigError

address, base_url, refusing_url = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
ray.data.DataContext.get_current().enable_progress_bars = False
found = {}
job = {"provider": {"name": "ai-engine", "base_url": base_url}, "rate": ["%d/s"], "retry.retries": 0}
rows = [{"n": n, "question": None if n == 7 else f"question {n}", "model": "a car"} for n in range(60)]
dataset = ray.data.from_items(rows, override_num_blocks=6)
asked = map_prompts(dataset, job, prompt="question", prefix="answer_", workers=2, concurrency=8)
found["sent before"] = os.path.getsize(os.environ["SERVER_LOG"]) if os.path.exists(os.environ["SERVER_LOG"]) else 0
tables = ray.get(asked.to_arrow_refs())
found["schemas"] = len({str(table.schema) for table in tables})
found["rows"] = [row for table in tables for row in table.to_pylist()]
found["empty"] = map_prompts(ray.data.from_items(rows).filter(lambda row: False), job, prompt="question", prefix="a_").count()
for name, arguments in {"column": {"prompt": "qestion"}, "taken": {"prompt": "question"}, "number": {"workers": 0}}.items():
    try:
        map_prompts(dataset, job, **arguments)
    except ConfigError as error:
        found[name] = str(error)
try:
    refused = {"provider": {"name": "ai-engine", "base_url": refusing_url}}
    map_prompts(dataset, refused, prompt="question", prefix="answer_").take_all()
except Exception as error:
    found["stopped"] = str(error)
print(json.dumps(found))
"""
    % RATE_PER_S
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stage")


@pytest.fixture(scope="module")
def told(cluster: RayCluster, folder: Path) -> tuple[dict, list[dict]]:
    """What a program that uses the stage found, and what the server was asked."""
    with serving(folder) as server, serving(folder, auth_refused=True) as refusing:
        log = str(folder / "server-0.log")
        done = run_program(PROGRAM, cluster.address, server.base_url, refusing.base_url, SERVER_LOG=log)
        (line,) = (line for line in done.splitlines() if line.startswith("{"))  # Ray writes there, too
        return json.loads(line), server.requests()


def run_program(text: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rows_keep_their_columns_and_good_and_bad_ones_have_one_schema(told) -> None:
    found, requests = told
    assert found["sent before"] == 0
    assert found["schemas"] == 1
    rows = sorted(found["rows"], key=lambda row: row["n"])
    assert [row["n"] for row in rows] == list(range(60))
    assert {row["model"] for row in rows} == {"a car"}
    for row in rows:
        if row["n"] == 7:
            assert (row["answer_response"], row["answer_error_type"]) == (None, "input")
            assert "'question'" in row["answer_error_message"]
        else:
            assert (row["answer_response"], row["answer_error_type"]) == (f"Echo: question {row['n']}", None)
            assert row["answer_attempts"] == 1
    assert sum(request["kind"] == "chat" for request in requests) == 59


def test_nonce_is_fetched_once_for_all_workers(told) -> None:
    _, requests = told
    assert sum(request["kind"] == "session" for request in requests) == 1


def test_no_rows_give_no_rows(told) -> None:
    found, _ = told
    assert found["empty"] == 0


def test_mistakes_are_told_in_a_sentence_before_anything_is_sent(told) -> None:
    found, _ = told
    assert found["column"].startswith("map_prompts: the rows have no column 'qestion', expected one of these: ")
    assert "the rows have a column 'model'" in found["taken"]
    assert found["number"] == "map_prompts: workers: expected a whole number of at least 1, found 0"


def test_service_that_refuses_everything_ends_the_stage_with_a_sentence(told) -> None:
    found, _ = told
    assert re.search("map_prompts stopped: .*prompts in a row met: auth", found["stopped"])


@pytest.mark.clocked
def test_rate_holds_over_all_workers(told) -> None:
    _, requests = told
    times = sorted(request["time_s"] for request in requests)
    for begin, time in enumerate(times):
        assert sum(time <= other < time + 0.98 for other in times[begin:]) <= RATE_PER_S + 1


def test_example_in_the_documents_runs(cluster: RayCluster, folder: Path) -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (folder / "questions.jsonl").write_text('{"question": "one"}\n{"question": "two"}\n')
    with serving(folder) as server:
        code = code.replace("http://localhost:8080", server.base_url).replace("/shared", str(folder))
        run_program(code, RAY_ADDRESS=cluster.address)
    rows = [json.loads(line) for path in (folder / "answers").glob("*.json*") for line in path.read_text().splitlines()]
    assert {row["response"] for row in rows} == {"Echo: one", "Echo: two"}
