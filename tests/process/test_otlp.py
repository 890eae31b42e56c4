"""``--otel``: what a collector is told, what it is not told, and that nothing it does touches the run."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.otlp_collector import Collector, collecting
from tests.runs import (
    BATCHCHAT,
    assert_all_answered,
    finish,
    kill,
    run,
    run_arguments,
    serving,
    start_command,
    start_run,
    write_prompts,
)

pytestmark = pytest.mark.process
SECRETS = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret-otel,authorization=Bearer%20s3cret-otel"}


def environment(url: str, **more: str) -> dict[str, str]:
    """What the run gets to see: no proxies or OTEL variables of this machine."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OTEL_") and "proxy" not in name.lower()
    }
    return kept | {"OTEL_EXPORTER_OTLP_ENDPOINT": url} | SECRETS | more


def openai_run(folder: Path, base_url: str, prompts: Path, *more: str) -> list[str]:
    return [*BATCHCHAT, "run", str(prompts), "-o", str(folder / "r.jsonl"), "--provider", "openai", "--base-url", base_url,
            "--model", "small", "--otel", *more]  # fmt: skip


def artefacts(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.iterdir() if path.is_file())


def test_every_attempt_is_a_span_and_the_metrics_fit_the_summary(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 20)
    with serving(tmp_path, error_503=0.3, seed=3, latency_ms=30) as server, collecting() as collector:
        command = openai_run(tmp_path, server.base_url, prompts, "--param", "temperature=0.5", "--param", "max_tokens=99",
                             "--retries", "1", "-vv")  # fmt: skip
        code, _, err = finish(start_command(command, env=environment(collector.url, OPENAI_API_KEY="s3cret-key")))
        asked = len(server.chats())
        port = int(server.base_url.rpartition(":")[2].partition("/")[0])
    summary = json.loads((tmp_path / "r.run.json").read_text())
    assert code in (0, 1)
    assert "OpenTelemetry" not in err
    failed = [span for span in collector.spans if span["failed"]]
    answered = [span for span in collector.spans if not span["failed"]]
    assert len(collector.spans) == asked == sum(summary["attempts"].values())
    assert len(failed) == summary["attempts"]["server"] > 0
    assert {span["error.type"] for span in failed} == {"server"}
    assert {span["http.response.status_code"] for span in failed} == {503}
    for span in answered:
        assert span["name"] == "chat small"
        assert span["kind"] == 3  # client
        assert span["gen_ai.operation.name"] == "chat"
        assert span["gen_ai.provider.name"] == "openai"
        assert span["gen_ai.request.model"] == "small"
        assert span["gen_ai.request.temperature"] == 0.5
        assert span["gen_ai.request.max_tokens"] == 99
        assert span["gen_ai.response.finish_reasons"] == ["stop"]
        assert span["server.address"] == "127.0.0.1"
        assert span["server.port"] == port
        assert 0.01 < span["seconds"] < 30
    for name in ("input", "output"):
        told = sum(span[f"gen_ai.usage.{name}_tokens"] for span in answered)
        assert told == summary["usage"][f"{name}_tokens"]
        [point] = [each for each in collector.points["gen_ai.client.token.usage"] if each["gen_ai.token.type"] == name]
        assert point["value"] == (len(answered), told)
    assert sum(each["value"][0] for each in collector.points["gen_ai.client.operation.duration"]) == asked
    states = {each["batchchat.state"]: each["value"] for each in collector.points["batchchat.prompts"]}
    assert states.get("answered", 0) == summary["answered"]
    assert states.get("failed", 0) == summary["failed"]
    [ended] = collector.points["batchchat.run.duration"]
    assert ended["batchchat.exit_code"] == code
    assert all(resource["service.name"] == "batchchat" for resource in collector.resources)
    assert all(headers["api-key"] == "s3cret-otel" for headers in collector.headers)
    assert "s3cret" not in err + artefacts(tmp_path)
    assert not any(b"s3cret" in body for body in collector.bodies)


def test_texts_and_ids_are_told_only_where_asked_for(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(
        '{"id": "my-id", "prompt": "my question \\ud83d\\ude00", "system": "my rule", "topic": "my topic"}\n'
    )
    with serving(tmp_path) as server:
        with collecting() as collector:
            command = openai_run(tmp_path, server.base_url, prompts)
            assert finish(start_command(command, env=environment(collector.url)))[0] == 0
            assert len(collector.spans) == 1
            assert not any(re.search(rb"my[- ](id|question|rule|topic)|Echo", body) for body in collector.bodies)
        job = tmp_path / "job.yaml"
        job.write_text("telemetry: {ids: true, content: true}\non_change: redo\n")
        (tmp_path / "r.jsonl").unlink()
        with collecting() as collector:
            command = openai_run(tmp_path, server.base_url, prompts, "-j", str(job))
            assert finish(start_command(command, env=environment(collector.url)))[0] == 0
    [span] = collector.spans
    assert span["batchchat.prompt.id"] == "my-id"
    [asked] = json.loads(span["gen_ai.input.messages"])
    assert asked["parts"][0]["content"].startswith("my question")
    assert json.loads(span["gen_ai.system_instructions"])[0]["content"] == "my rule"
    [answer] = json.loads(span["gen_ai.output.messages"])
    assert answer["parts"][0]["content"].startswith("Echo: my question")


@pytest.mark.parametrize("behaviour", ["dead", "silent", "cut", "garbage", "endless", "401", "307", "503"])
def test_collector_that_fails_is_told_once_and_costs_nothing(tmp_path: Path, behaviour: str) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 30)
    with serving(tmp_path) as server, collecting(behaviour) as collector:
        url = "http://127.0.0.1:9" if behaviour == "dead" else collector.url
        began = time.monotonic()
        # A short interval, so that the collector is met many times.
        often = {"OTEL_METRIC_EXPORT_INTERVAL": "100", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        process = start_run(server, prompts, tmp_path / "r.jsonl", "--otel", "--rate", "20/s", "-vv",
                            env=environment(url, **often))  # fmt: skip
        code, out, err = finish(process)
        assert time.monotonic() - began < 30
    assert code == 0
    assert_all_answered(tmp_path / "r.jsonl", range(30))
    assert out == ""
    assert "Traceback" not in err
    assert "Exception" not in err
    assert "s3cret" not in err
    told = [line for line in err.splitlines() if "OpenTelemetry" in line]
    if behaviour in ("silent", "endless"):
        assert len(told) <= 1
        return
    assert len(told) == 1, err
    sentence = f"answers {behaviour}" if behaviour.isdecimal() else "is not reached or takes nothing"
    where = url.removeprefix("http://")
    assert told[0] == f"batchchat: the OpenTelemetry collector at {where} {sentence}; the run goes on without"


@pytest.mark.parametrize("behaviour", ["dead", "silent"])
def test_interrupted_run_with_a_dead_collector_ends_soon(tmp_path: Path, behaviour: str) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 500)
    with serving(tmp_path) as server, collecting(behaviour) as collector:
        url = "http://127.0.0.1:9" if behaviour == "dead" else collector.url
        process = start_run(server, prompts, tmp_path / "r.jsonl", "--otel", "--rate", "20/s", env=environment(url))
        server.wait_for_chats(3)
        kill(process, 15)
        began = time.monotonic()
        code, _, err = finish(process)
        assert time.monotonic() - began < 15
    assert code == 143
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OTEL_EXPORTER_OTLP_HEADERS": "s3cret-otel"}, "OTEL_EXPORTER_OTLP_HEADERS has a part that is not name=value"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is passed over"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "s3cret-otel:x"}, "is not reached or takes nothing"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[bad"}, "is not reached or takes nothing"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such/file"}, None),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon", "OTEL_BSP_MAX_QUEUE_SIZE": "many"}, None),
        ({"OTEL_TRACES_SAMPLER": "nonsense", "OTEL_EXPORTER_OTLP_COMPRESSION": "nonsense"}, None),
    ],
)
def test_odd_variables_stop_nothing(tmp_path: Path, variables: dict[str, str], sentence: str | None) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 2)
    with serving(tmp_path) as server, collecting() as collector:
        code, _, err = run(server, prompts, tmp_path / "r.jsonl", "--otel", env=environment(collector.url) | variables)
    assert code == 0
    assert "s3cret" not in err
    assert "Traceback" not in err
    assert sentence is None or err.count(sentence) == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_METRIC_EXPORT_INTERVAL": "-5"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"},
    ],
)
def test_variables_that_cannot_work_are_one_sentence(tmp_path: Path, variables: dict[str, str]) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 2)
    code, _, err = run("http://127.0.0.1:9", prompts, tmp_path / "r.jsonl", "--otel",
                       env=environment("http://127.0.0.1:9") | variables)  # fmt: skip
    assert code == 2
    assert err.startswith("batchchat: --otel: OpenTelemetry cannot work with its OTEL_* variables as they are (")
    assert err.count("\n") == 1
    assert "s3cret" not in err


@pytest.mark.parametrize(
    ("variables", "spans", "metrics"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, False, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({"OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False, True),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_SERVICE_NAME": "mine"}, True, True),
    ],
)
def test_standard_variables_hold(tmp_path: Path, variables: dict[str, str], spans: bool, metrics: bool) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 2)
    with serving(tmp_path) as server, collecting() as collector:
        assert run(server, prompts, tmp_path / "r.jsonl", "--otel", env=environment(collector.url) | variables)[0] == 0
    assert bool(collector.spans) == spans
    assert bool(collector.points) == metrics
    assert {resource["service.name"] for resource in collector.resources} <= {
        variables.get("OTEL_SERVICE_NAME", "batchchat")
    }


def attempts_by_type(collector: Collector) -> dict[str, int]:
    found: dict[str, int] = {}
    for span in collector.spans:
        kind = span.get("error.type", "answered")
        found[kind] = found.get(kind, 0) + 1
    return found


def test_attempt_that_the_prompt_deadline_ends_is_a_span_too(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 3)
    with serving(tmp_path, stall_before=1) as server, collecting() as collector:
        code, *_ = run(server, prompts, tmp_path / "r.jsonl", "--otel", "--prompt-deadline", "500ms",
                       env=environment(collector.url))  # fmt: skip
    assert code == 1
    assert attempts_by_type(collector) == {"timeout": 3}


def test_models_of_many_lines_do_not_make_endless_metrics(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(f'{{"id": {n}, "prompt": "x", "model": "m{n}é"}}\n' for n in range(80)))
    with serving(tmp_path) as server, collecting() as collector:
        assert (
            finish(start_command(openai_run(tmp_path, server.base_url, prompts), env=environment(collector.url)))[0]
            == 0
        )
    assert len(collector.spans) == 80
    points = collector.points["gen_ai.client.operation.duration"]
    assert len(points) <= 52
    assert sum(point["value"][0] for point in points) == 80


def test_missing_extra_is_one_sentence(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'opentelemetry': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from batchchat.cli import main; main()"
    )
    prompts = write_prompts(tmp_path / "p.jsonl", 1)
    arguments = run_arguments("http://127.0.0.1:9", prompts, tmp_path / "r.jsonl", "--otel")
    for more in ([], ["--dry-run"]):
        code, _, err = finish(start_command([sys.executable, "-c", program, *arguments[3:], *more]))
        assert code == 2
        assert err == "batchchat: --otel needs OpenTelemetry's SDK and exporter: pip install 'batchchat[otel]'\n"
