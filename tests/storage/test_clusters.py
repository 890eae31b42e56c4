"""A run on a cluster whose input and results are in a store: shards are read there, and parts kept there."""

import io
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

import batchchat.ray.driver
from batchchat.config import load_job
from batchchat.errors import ConfigError, PromptFileError
from batchchat.ids import IdTable
from batchchat.input_settings import InputSettings
from batchchat.prompts import PromptReader
from batchchat.records import Completion, Outcome, Prompt
from batchchat.run_output import OutputSettings
from batchchat.runner import run_job
from batchchat.shards.cutting import cut
from batchchat.shards.reading import shard_prompts
from batchchat.shards.work_store import WorkStore
from batchchat.storage import Segments, StorageError, get_bytes, put_bytes, remove, stat
from tests.cluster_double import ClusterDouble
from tests.ray_cluster import ray_cluster
from tests.runs import finish, serving, start_run

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(150)]


def rows(count):
    return "".join(json.dumps({"id": f"q-{n}", "prompt": f"question {n}"}) + "\n" for n in range(count)).encode()


def ids(url):
    return [json.loads(line)["id"] for line in get_bytes(url)[0].splitlines()]


def asking(server, source, results):
    provider = {"provider.name": "ai-engine", "provider.base_url": server.base_url}
    return {"input": [source], "output.path": results, **provider}


def is_there(url):
    try:
        stat(url)
    except StorageError:
        return False
    return True


def fingerprint(prompt):
    return f"{prompt.index:016x}"


def shards_of(url, most=4):
    reader = PromptReader(InputSettings(paths=(url,)))
    items = ((item, fingerprint(item)) for item in reader if isinstance(item, Prompt))
    return list(cut(items, reader, lambda: most))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_shard_of_an_object_is_read_where_it_stands(proxy, at, ending):
    """By offset or row group, and only while the object is the one that was cut."""
    url, data = f"{at}/in.{ending}", rows(11)
    if ending == "parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        sink = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist([json.loads(line) for line in data.splitlines()]), sink)
        data = sink.getvalue()
    put_bytes(url, data)
    shards = shards_of(url)
    assert [len(shard.asked) for shard in shards] == [4, 4, 3]
    other = PromptReader(InputSettings(paths=(url,)))
    found = [prompt.id for shard in shards for prompt, _ in shard_prompts(shard, other, fingerprint, IdTable())]
    assert found == [f"q-{n}" for n in range(11)]
    put_bytes(url, rows(12))
    with pytest.raises(PromptFileError, match="it was changed since the run began"):
        list(shard_prompts(shards[1], other, fingerprint, IdTable()))


def answer(n):
    return Outcome(id=f"q-{n}", index=n, completion=Completion(text="an answer"), fingerprint=f"{n:016x}", line={})


async def test_a_shard_goes_on_from_its_segments_and_becomes_one_object(proxy, at):
    """On another machine, too; then nothing but the part is left of it, and it is not asked again."""
    place = WorkStore.make(f"{at}/out.jsonl")
    place.check()
    for numbers in ([0, 1], [2]):
        output = place.open(1, OutputSettings())
        assert len(output.completed) == numbers[0]
        output.begin({}, lambda error: None)
        for n in numbers:
            await output.write(answer(n))
        assert await output.close() == []
        if numbers == [0, 1]:
            place.leave(1)  # all that this machine has of it
    place.make_whole(1)
    parts = f"{at}/out.jsonl.parts/{place._token}"
    assert ids(f"{parts}/part-000001.jsonl") == ["q-0", "q-1", "q-2"]
    assert list(Segments(f"{parts}/shard-000001").read_all()) == []
    assert place.open(1, OutputSettings()) is None
    with pytest.raises(ConfigError, match="sees another"):
        WorkStore(f"{at}/out.jsonl", "0" * 32).check()


@pytest.mark.parametrize("left", ["part", "segments"])
async def test_the_next_run_of_any_engine_takes_in_what_workers_left(proxy, at, tmp_path, left):
    """First a run here, then one on workers: what they find is not asked again, and nothing stays behind."""
    results, source = f"{at}/out.jsonl", f"{at}/in.jsonl"
    put_bytes(source, rows(20))
    with serving(tmp_path) as server:
        job = load_job(None, asking(server, source, results))
        await run_job(job)
        first = get_bytes(results)[0].splitlines(keepends=True)[:7]
        remove(results)
        again = WorkStore.make(results)
        again.begin(1)
        prefix = f"{results}.parts/{again._token}"
        if left == "part":
            put_bytes(f"{prefix}/part-000001.jsonl", b"".join(first))
        else:
            Segments(f"{prefix}/shard-000001").append(b"".join(first))
        before = len(server.chats())
        await run_job(job)
        assert len(server.chats()) - before == 13
    assert sorted(ids(results)) == sorted(f"q-{n}" for n in range(20))
    assert not is_there(f"{results}.parts/workers.json")
    assert not is_there(f"{prefix}/part-000001.jsonl")


def test_a_real_cluster_reads_and_writes_there(proxy, at, tmp_path: Path):
    """A worker is killed in the middle: what stood in a segment is not asked again; nothing is left beside the results."""
    pytest.importorskip("ray")
    results, source = f"{at}/out.jsonl", f"{at}/in.jsonl"
    put_bytes(source, rows(120))
    with serving(tmp_path, latency_ms=150) as server, ray_cluster() as cluster:
        going = start_run(
            *(server, source, results, "--engine", "ray", "--ray-address", cluster.address),
            *("--workers", "2", "--concurrency", "6"),
        )
        server.wait_for_chats(50)
        safe = {
            json.loads(line)["id"]
            for method, path, status in list(proxy.asked)
            if method == "PUT" and status == 200 and "/shard-" in path
            for line in _content(f"s3:/{path.partition('?')[0]}").splitlines()
        }
        os.kill(cluster.actors("_Worker")[0], signal.SIGKILL)
        code, _, err = finish(going)
        assert code == 0, err
        asked = Counter({text.replace("question ", "q-"): count for text, count in server.asked().items()})
    assert sorted(ids(results)) == sorted(f"q-{n}" for n in range(120))
    assert {id for id, count in asked.items() if count > 1} & safe == set()
    assert sum(asked.values()) <= 126
    assert not is_there(f"{results}.parts/workers.json")
    assert not is_there(f"{results}.parts/lease.json")


def _content(url):
    try:
        return get_bytes(url)[0]
    except StorageError:  # its part is whole meanwhile
        return b""


async def test_a_double_of_a_cluster_leaves_nothing_behind(proxy, at, tmp_path, monkeypatch):
    """Neither parts nor segments, in the store and on the machine; each prompt has its line."""
    monkeypatch.setattr(batchchat.ray.driver, "Cluster", ClusterDouble)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    results, source = f"{at}/out.jsonl", f"{at}/in.jsonl"
    put_bytes(source, rows(60))
    with serving(tmp_path) as server:
        report = await run_job(load_job(None, asking(server, source, results) | {"engine": "ray"}))
    assert (report.answered, report.exit_code) == (60, 0)
    assert sorted(ids(results)) == sorted(f"q-{n}" for n in range(60))
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not is_there(f"{results}.parts/workers.json")
