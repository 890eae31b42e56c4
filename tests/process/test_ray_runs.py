"""Runs on a Ray cluster: the contract of a run, and what is lost when something dies."""

import json
import os
import signal
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.otlp_collector import collecting
from tests.ray_cluster import RayCluster, ray_cluster
from tests.runs import (
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run,
    serving,
    start_run,
    wait_until,
    write_prompts,
)

pytest.importorskip("ray")
pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """One node, used by all tests of this file; a provider that kills its process is installed there."""
    packages = tmp_path_factory.mktemp("packages")
    told = packages / "batchchat_deadly-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: batchchat-deadly\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[batchchat.providers]\ndeadly = batchchat_deadly:Deadly\n")
    (packages / "batchchat_deadly.py").write_text(DEADLY)
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    with ray_cluster(PYTHONPATH=path) as found:
        found.packages = path
        yield found


DEADLY = """
import os
from batchchat.providers import AIEngine


class Deadly(AIEngine):
    kind = "deadly"

    def complete(self, request):
        if "poison" in str(request.messages):
            os._exit(1)
        return super().complete(request)
"""


def on(cluster: RayCluster, *more: str, workers: int = 2) -> list[str]:
    return ["--engine", "ray", "--ray-address", cluster.address, "--workers", str(workers), *more]


def parts(results: Path) -> Path:
    return results.with_name(f"{results.name}.parts")


def written(results: Path) -> set[str]:
    """Ids of all answers that stand in a finished line, in the results or in a journal."""
    found = set()
    for path in [results, *parts(results).glob("*.jsonl")]:
        if ".errors." not in path.name and path.exists():
            for line in path.read_bytes().split(b"\n")[:-1]:
                found.add(json.loads(line)["id"])
    return found


def asked_ids(server) -> Counter[str]:
    return Counter({text.replace("question ", "q-"): count for text, count in server.asked().items()})


def test_a_run_on_a_cluster_is_a_run(cluster, tmp_path):
    """Same lines, files, summary and exit code; one nonce; a killed worker's finished lines are not asked again; a
    second command has nothing to do, and starts nothing."""
    prompts, results = write_prompts(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    with serving(tmp_path, latency_ms=50) as server:
        going = start_run(server, prompts, results, *on(cluster, "--concurrency", "8"))
        server.wait_for_chats(60)
        victim = cluster.actors("_Worker")[0]
        safe = written(results)
        os.kill(victim, signal.SIGKILL)
        code, out, err = finish(going)
        assert (code, out) == (0, ""), err
        assert "Traceback" not in err
        assert "ray" not in err.lower().replace("--engine ray", "")
        assert_all_answered(results, range(300))
        asked = asked_ids(server)
        assert {id for id, count in asked.items() if count > 1} & safe == set()
        assert sum(asked.values()) <= 300 + 8
        assert sum(request["kind"] == "session" for request in server.requests()) == 1
        assert not parts(results).exists()
        assert results.with_name("out.errors.jsonl").read_text() == ""
        summary = json.loads(results.with_name("out.run.json").read_text())
        assert (summary["answered"], summary["exit_code"], summary["total"]) == (300, 0, 300)
        before = results.read_bytes()
        code, _, err = run(server, prompts, results, "--engine", "ray", "--ray-address", "127.0.0.1:1")
        assert (code, results.read_bytes()) == (0, before), err


def test_local_then_cluster_then_local(cluster, tmp_path):
    """A run that was begun here goes on there; its driver is killed, and a local run takes in what its workers left."""
    prompts, results = write_prompts(tmp_path / "in.jsonl", 400), tmp_path / "out.jsonl"
    with serving(tmp_path, latency_ms=60) as server:
        code, _, err = run(server, prompts, results, "--limit", "40")
        assert code == 0, err
        going = start_run(server, prompts, results, *on(cluster, "--concurrency", "8", workers=1))
        server.wait_for_chats(140)
        kill(going)
        going.communicate()
        wait_until(lambda: not cluster.actors("_Worker"))
        safe = written(results)
        assert len(safe) >= 100
        code, _, err = run(server, prompts, results, "--concurrency", "64")
        assert code == 0, err
        assert "answers that workers of an earlier run left in" in err
        assert_all_answered(results, range(400))
        asked = asked_ids(server)
        assert {id for id, count in asked.items() if count > 1} & safe == set()
        assert not parts(results).exists()


@pytest.mark.slow
def test_a_prompt_that_kills_its_worker_fails_and_the_others_do_not(cluster, tmp_path):
    """Tried a bounded number of times; the errors file names the prompts of its shard, all others are answered."""
    prompts, results = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = [f"question {n}" for n in range(60)]
    texts[30] = "poison"
    prompts.write_text("".join(json.dumps({"id": f"q-{n}", "prompt": text}) + "\n" for n, text in enumerate(texts)))
    with serving(tmp_path) as server:
        going = start_run(
            *(server, prompts, results, "--provider", "deadly", *on(cluster, "--concurrency", "4")),
            env={**os.environ, "PYTHONPATH": cluster.packages},
        )
        code, _, err = finish(going)
        assert code == 1, err
    answered = {line["id"] for line in read_lines(results)}
    failed = {line["id"]: line["error"] for line in read_lines(results.with_name("out.errors.jsonl"))}
    assert answered | set(failed) == {f"q-{n}" for n in range(60)}
    assert not answered & set(failed)
    assert "q-30" in failed
    assert len(failed) <= 10
    assert "died each time" in failed["q-30"]["message"]
    assert not parts(results).exists()


def test_workers_tell_a_collector_of_their_attempts(cluster, tmp_path):
    """Where it is, and its keys, is what the run's own environment says, not the nodes'."""
    prompts, results = write_prompts(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl"
    with serving(tmp_path, error_503=0.2, seed=3) as server, collecting() as collector:
        environ = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "key=s3cret",
        }
        code, _, err = run(server, prompts, results, *on(cluster, "--otel", "--concurrency", "4"), env=environ)
        assert code == 0, err
        asked = len(server.chats())
    summary = json.loads(results.with_name("out.run.json").read_text())
    assert len(collector.spans) == asked > 40
    assert sum(span["failed"] for span in collector.spans) == summary["attempts"]["server"]
    assert {headers["key"] for headers in collector.headers} == {"s3cret"}
    assert sum(each["value"][0] for each in collector.points["gen_ai.client.operation.duration"]) == asked
    assert sum(each["value"] for each in collector.points["batchchat.prompts"]) == 40
    assert len(collector.points["batchchat.run.duration"]) == 1


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_workers(cluster, tmp_path, which):
    """What is on the wire is answered and kept, the rest stays pending."""
    prompts, results = write_prompts(tmp_path / "in.jsonl", 500), tmp_path / "out.jsonl"
    with serving(tmp_path, latency_ms=200) as server:
        going = start_run(server, prompts, results, *on(cluster, "--concurrency", "8"))
        server.wait_for_chats(20)
        os.kill(going.pid, which)
        code, _, err = finish(going)
        assert code == (130 if which == signal.SIGINT else 143), err
        assert {line["id"] for line in read_lines(results)} == set(asked_ids(server))
        assert "to resume:" in err
        assert not parts(results).exists()


@pytest.mark.clocked
def test_one_rate_holds_over_all_workers(cluster, tmp_path):
    """In every window of the rate at the server, with as good as all of it used, while a worker and the desk are killed."""
    prompts, results = write_prompts(tmp_path / "in.jsonl", 280), tmp_path / "out.jsonl"
    with serving(tmp_path, latency_ms=50) as server:
        going = start_run(*(server, prompts, results, *on(cluster, "--concurrency", "24", "--rate", "40/s", workers=3)))
        server.wait_for_chats(80)
        os.kill(cluster.actors("Desk")[0], signal.SIGKILL)
        server.wait_for_chats(180)
        os.kill(cluster.actors("_Worker")[1], signal.SIGKILL)
        code, _, err = finish(going)
        assert code == 0, err
        requests = server.requests()
    assert_all_answered(results, range(280))
    times = sorted(request["time_s"] for request in requests)
    worst = max(bisect_left(times, start + 1.0) - number for number, start in enumerate(times))
    assert worst <= 40
    assert sum(request["kind"] == "session" for request in requests) == 1
