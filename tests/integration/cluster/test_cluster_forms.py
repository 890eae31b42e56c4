"""Whatever the input is, a run on a cluster writes the lines that a run in one process writes."""

import gzip
import io
import json
import sys
from types import SimpleNamespace

import pytest

import batchchat.runner
from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.pool_work import LocalAsking
from batchchat.runner import run_job
from tests.runs import read_lines

ROWS = [{"id": f"q-{n}", "prompt": f"question {n}", "topic": n % 3} for n in range(23)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
NO_IDS = "".join(json.dumps({"prompt": f"question {n % 5}"}) + "\n" for n in range(23))
BATCH = "".join(
    json.dumps({"custom_id": row["id"], "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": "m", "messages": [{"role": "user", "content": row["prompt"]}]}}) + "\n" for row in ROWS
)  # fmt: skip
FIELDS = "".join(json.dumps({"key": n, "question": f"question {n}", "deep": {"list": [n]}}) + "\n" for n in range(23))
TWICE = JSONL + JSONL
FAULTY = JSONL.replace('"prompt": "question 7"', '"prompt": ')

FORMS = {
    "jsonl": ("in.jsonl", JSONL, {}),
    "without ids": ("in.jsonl", NO_IDS, {}),
    "batch lines": ("in.jsonl", BATCH, {}),
    "gz": ("in.jsonl.gz", gzip.compress(JSONL.encode()), {}),
    "csv": ("in.csv", "id,prompt\n" + "".join(f"{n},question {n}\n" for n in range(23)), {}),
    "tsv": ("in.tsv", "id\tprompt\n" + "".join(f"{n}\tquestion {n}\n" for n in range(23)), {}),
    "standard input": ("-", JSONL, {}),
    "template": ("in.jsonl", FIELDS, {"prompt.template": "Tell: {{ question }}", "prompt.id": "key"}),
    "samples": ("in.jsonl", FIELDS, {"prompt.template": "{{ question }}", "prompt.n": 3}),
    "matrix": ("in.jsonl", JSONL, {"matrix": {"temperature": [0, 1], "model": ["m", "n"]}}),
    "duplicates, suffix": ("in.jsonl", TWICE, {"on_duplicate": "suffix"}),
    "duplicates, first": ("in.jsonl", TWICE, {"on_duplicate": "first"}),
    "faults, lenient": ("in.jsonl", FAULTY, {"lenient": True}),
    "limit": ("in.jsonl", JSONL, {"limit": 5}),
    "sample": ("in.jsonl", JSONL, {"sample": 5, "seed": 2}),
    "carry": ("in.jsonl", JSONL, {"carry": ["topic"]}),
    "order of the input": ("in.jsonl", JSONL, {"output.order": "input"}),
    "batch form": ("in.jsonl", JSONL, {"output.format": "openai-batch"}),
    "nothing": ("in.jsonl", "", {}),
}
ONE_TEXT_MANY_TIMES = {"without ids", "samples", "matrix", "duplicates, suffix", "duplicates, first"}


def told(path):
    """What must be the same of each line, in its order by index."""
    lines = [line if "index" in line else line | line["batchchat"] for line in read_lines(path)]
    keys = ("id", "custom_id", "index", "response", "error", "fingerprint", "input", "variant", "attempts", "model")
    found = [{key: line.get(key) for key in keys} for line in lines]
    for line in found:
        if isinstance(line["response"], dict):
            line["response"] = line["response"]["body"]["choices"]
    return sorted(found, key=lambda line: line["index"]), [line["index"] for line in found]


@pytest.mark.parametrize("form", FORMS)
async def test_lines_are_those_of_a_run_in_one_process(tmp_path, monkeypatch, form):
    name, content, settings = FORMS[form]
    data = content if isinstance(content, bytes) else content.encode()
    path = name if name == "-" else str(tmp_path / name)
    if name != "-":
        (tmp_path / name).write_bytes(data)
    on_a_cluster, reports = batchchat.runner._made, []
    # Whether a text fails depends on how often it was sent.
    share = 0.0 if form in ONE_TEXT_MANY_TIMES else 0.2
    for engine in ("local", "ray"):
        monkeypatch.setattr(batchchat.runner, "_made", on_a_cluster if engine == "ray" else lambda job: LocalAsking)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data)), closed=False))
        async with DevServer(Scenario(latency_ms=1, error_500=share)) as server:
            job = {
                "input": [path],
                "output.path": str(tmp_path / f"{engine}.jsonl"),
                "provider.name": "openai",
                "provider.base_url": server.base_url,
                "provider.model": "m",
                "retry.retries": 0,
            }
            reports.append(await run_job(load_job(None, job | settings), environ={}))
    one, many = reports
    for figure in ("exit_code", "total", "answered", "failed", "pending", "requests", "attempts", "usage"):
        assert getattr(many, figure) == getattr(one, figure), figure
    for ending in (".jsonl", ".errors.jsonl"):
        (lines, _), (others, order) = (told(tmp_path / f"{engine}{ending}") for engine in ("local", "ray"))
        assert lines == others
        if form == "order of the input" and ending == ".jsonl":
            assert order == sorted(order)
    assert not (tmp_path / "ray.jsonl.parts").exists()
    again = read_lines(tmp_path / "ray.errors.jsonl")
    if again and form != "faults, lenient":
        job |= settings | {"input": [str(tmp_path / "ray.errors.jsonl")]}
        job.pop("limit", None)
        job.pop("sample", None)
        async with DevServer() as server:
            job["provider.base_url"] = server.base_url
            report = await run_job(load_job(None, job), environ={})
        assert (report.answered, report.failed) == (len(again), 0)
