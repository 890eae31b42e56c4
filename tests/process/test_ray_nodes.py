"""Nodes of a Ray cluster that are lost in the middle of a run; ``make cluster`` runs these, as they take minutes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.ray_cluster import ray_cluster
from tests.runs import assert_all_answered, run, serving, start_run, write_prompts

pytest.importorskip("ray")
pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(400)]
COUNT = 600


def written(results: Path) -> set[str]:
    """Ids of all answers that stand in a finished line, in the results or in a journal."""
    parts = results.with_name(f"{results.name}.parts")
    lines = [
        line
        for path in [results, *parts.glob("*.jsonl")]
        if ".errors." not in path.name and path.exists()
        for line in path.read_bytes().split(b"\n")[:-1]
    ]
    return {json.loads(line)["id"] for line in lines}


def asked_again(server, safe: set[str]) -> set[str]:
    """Of the answers that were safe, those whose prompts were sent more than once."""
    asked: Counter[str] = Counter(text.replace("question ", "q-") for text in server.asked().elements())
    return {id for id, count in asked.items() if count > 1} & safe


@pytest.mark.parametrize(("workers", "concurrency"), [(4, 8), (16, 16)], ids=["room on the other node", "no room"])
def test_a_lost_node_costs_what_was_on_the_wire(tmp_path, workers, concurrency):
    """Ray notices it after a while and starts its workers on another; where that is full, others ask what they had.
    No finished line is asked again."""
    prompts, results = write_prompts(tmp_path / "in.jsonl", COUNT), tmp_path / "out.jsonl"
    with ray_cluster(2) as cluster, serving(tmp_path, latency_ms=400) as server:
        options = ("--engine", "ray", "--ray-address", cluster.address)
        more = ("--workers", str(workers), "--concurrency", str(concurrency))
        going = start_run(server, prompts, results, *options, *more)
        server.wait_for_chats(COUNT // 4)
        safe = written(results)
        cluster.do("lose 1")
        _, err = going.communicate(timeout=300)
        assert going.returncode == 0, err
        assert ("no room to start it again" in err) == (workers == 16)
        assert_all_answered(results, range(COUNT))
        assert asked_again(server, safe) == set()
        assert len(server.chats()) <= COUNT + concurrency


def test_a_lost_head_ends_the_run_and_the_next_goes_on(tmp_path):
    """The cluster is gone, its answers are not: a local run takes them in."""
    prompts, results = write_prompts(tmp_path / "in.jsonl", COUNT), tmp_path / "out.jsonl"
    with serving(tmp_path, latency_ms=100) as server:
        with ray_cluster() as cluster:
            options = ("--engine", "ray", "--ray-address", cluster.address, "--workers", "2", "--concurrency", "8")
            going = start_run(server, prompts, results, *options)
            server.wait_for_chats(COUNT // 4)
            cluster.do("lose 0")
            _, err = going.communicate(timeout=200)
            assert going.returncode != 0, err
        safe = written(results)
        code, _, err = run(server, prompts, results, "--concurrency", "64")
        assert code == 0, err
        assert_all_answered(results, range(COUNT))
        assert asked_again(server, safe) == set()
