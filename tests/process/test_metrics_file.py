"""``--metrics``: what the file says is what the run did, and nothing that happens to it touches the run."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.runs import (
    BATCHCHAT,
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run,
    run_arguments,
    serving,
    start_command,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = pytest.mark.process


def series(path: Path) -> dict[str, float]:
    """Every sample as ``name{label=value,…}`` without the label ``run``; the text must be what the parser takes."""
    found: dict[str, float] = {}
    text = path.read_text(encoding="utf-8")
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            assert sample.labels.pop("run") == path.name.removesuffix(".prom")
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, "a series stands twice"
            found[key] = sample.value
    return found


def test_file_tells_what_the_summary_tells(tmp_path: Path) -> None:
    prompts, results, metrics = write_prompts(tmp_path / "p.jsonl", 30), tmp_path / "r.jsonl", tmp_path / "job.prom"
    with serving(tmp_path, error_503=0.3, seed=3) as server:
        code, *_ = run(server, prompts, results, "--metrics", str(metrics), "--retries", "0")
    told = series(metrics)
    summary = json.loads((tmp_path / "r.run.json").read_text())
    assert code == 1
    assert 0 < summary["failed"] < 30
    assert told["batchchat_prompts_total{state=answered}"] == summary["answered"]
    assert told["batchchat_prompts_total{state=failed}"] == summary["failed"]
    for outcome, count in summary["attempts"].items():
        assert told[f"batchchat_attempts_total{{outcome={outcome}}}"] == count
    assert told["batchchat_requests_total"] == summary["requests"]
    assert told["batchchat_tokens_total{direction=input}"] == summary["usage"]["input_tokens"]
    assert told["batchchat_tokens_total{direction=output}"] == summary["usage"]["output_tokens"]
    assert told["batchchat_prompt_duration_seconds_count"] == 30
    assert told["batchchat_prompt_duration_seconds_bucket{le=+Inf}"] == 30
    assert told["batchchat_input_prompts"] == 30
    assert told["batchchat_pending_prompts"] == 0
    assert told["batchchat_in_flight"] == 0
    assert told["batchchat_run_active"] == 0
    assert told["batchchat_last_run_exit_code"] == 1
    assert told["batchchat_last_run_end_timestamp_seconds"] >= told["batchchat_run_start_timestamp_seconds"]
    assert "batchchat_cost_usd_total" not in told
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")] == []


def test_cost_is_told_where_there_are_prices(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text('prices: {"*": {input: 1000000, output: 0}}\nmetrics: "' + str(tmp_path / "m.prom") + '"\n')
    with serving(tmp_path) as server:
        code, *_ = run(server, write_prompts(tmp_path / "p.jsonl", 3), tmp_path / "r.jsonl", "-j", str(job))
    told = series(tmp_path / "m.prom")
    assert code == 0
    assert told["batchchat_cost_usd_total"] == told["batchchat_tokens_total{direction=input}"] > 0


def test_file_is_kept_up_to_date_and_remembers_the_run_before(tmp_path: Path) -> None:
    prompts, results, metrics = write_prompts(tmp_path / "p.jsonl", 4), tmp_path / "r.jsonl", tmp_path / "job.prom"
    with serving(tmp_path, latency_ms=200) as server:
        assert run(server, prompts, results, "--metrics", str(metrics), "--limit", "2")[0] == 0
        ended = series(metrics)["batchchat_last_run_end_timestamp_seconds"]
        process = start_run(server, prompts, results, "--metrics", str(metrics), "--rate", "1/s", "--on-change", "keep")
        wait_until(lambda: series(metrics)["batchchat_run_active"] == 1)
        while_at_work = series(metrics)
        assert finish(process)[0] == 0
    assert while_at_work["batchchat_last_run_exit_code"] == 0
    assert while_at_work["batchchat_last_run_end_timestamp_seconds"] == ended
    assert while_at_work["batchchat_answered_before"] == 2
    assert while_at_work["batchchat_pending_prompts"] == 2
    assert series(metrics)["batchchat_last_run_end_timestamp_seconds"] > ended
    assert series(metrics)["batchchat_prompts_total{state=answered}"] == 2


def test_killed_run_leaves_a_whole_file_and_its_remains_are_cleared_away(tmp_path: Path) -> None:
    prompts, results, metrics = write_prompts(tmp_path / "p.jsonl", 20), tmp_path / "r.jsonl", tmp_path / "job.prom"
    stale, young, other = (tmp_path / name for name in ("job.prom.12.part", "job.prom.13.part", "job.prom.old.part"))
    for path in (stale, young, other):
        path.write_text("half")
    os.utime(stale, (1, 1))
    os.utime(other, (1, 1))
    with serving(tmp_path, latency_ms=100) as server:
        process = start_run(server, prompts, results, "--metrics", str(metrics), "--concurrency", "2")
        server.wait_for_chats(3)
        wait_until(metrics.exists)
        kill(process)
        finish(process)
        assert series(metrics)["batchchat_run_active"] == 1
        assert run(server, prompts, results, "--metrics", str(metrics))[0] == 0
    assert not stale.exists()
    assert young.exists()
    assert other.exists()
    assert series(metrics)["batchchat_run_active"] == 0


def test_second_run_on_the_same_results_leaves_the_file_of_the_first_alone(tmp_path: Path) -> None:
    prompts, results, metrics = write_prompts(tmp_path / "p.jsonl", 6), tmp_path / "r.jsonl", tmp_path / "job.prom"
    with serving(tmp_path) as server:
        first = start_run(server, prompts, results, "--metrics", str(metrics), "--rate", "2/s")
        wait_until(metrics.exists)
        assert run(server, prompts, results, "--metrics", str(metrics))[0] == 75
        assert series(metrics)["batchchat_run_active"] == 1
        assert finish(first)[0] == 0
    assert series(metrics)["batchchat_last_run_exit_code"] == 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_tells_its_exit_code(tmp_path: Path, sign: int) -> None:
    prompts, results, metrics = write_prompts(tmp_path / "p.jsonl", 50), tmp_path / "r.jsonl", tmp_path / "job.prom"
    with serving(tmp_path) as server:
        process = start_run(server, prompts, results, "--metrics", str(metrics), "--rate", "5/s")
        server.wait_for_chats(2)
        kill(process, sign)
        code = finish(process)[0]
    told = series(metrics)
    assert code in (130, 143)
    assert told["batchchat_last_run_exit_code"] == code
    assert told["batchchat_pending_prompts"] == 50 - len(read_lines(results))


def test_run_that_ends_before_its_first_request_tells_why(tmp_path: Path) -> None:
    bad, metrics = tmp_path / "p.jsonl", tmp_path / "job.prom"
    bad.write_text('{"id": 1}\n')
    code, *_ = run("http://127.0.0.1:9", bad, tmp_path / "r.jsonl", "--metrics", str(metrics))
    assert code == 3
    assert series(metrics)["batchchat_last_run_exit_code"] == 3


def blocked_path(tmp_path: Path, trouble: str) -> Path:
    """A place where no file can be written."""
    if trouble == "full":
        return Path("/dev/full")
    if trouble == "file in the way":
        (tmp_path / "taken").write_text("x")
        return tmp_path / "taken" / "job.prom"
    if trouble == "name too long":
        return tmp_path / ("x" * 300 + ".prom")
    return Path("/proc/self/job.prom")


@pytest.mark.parametrize("trouble", ["full", "file in the way", "name too long", "no such place"])
def test_file_that_cannot_be_written_is_told_once_and_costs_nothing(tmp_path: Path, trouble: str) -> None:
    path = blocked_path(tmp_path, trouble)
    if trouble == "full" and not path.exists():
        pytest.skip("no /dev/full here")
    with serving(tmp_path) as server:
        prompts = write_prompts(tmp_path / "p.jsonl", 4)
        code, _, err = run(server, prompts, tmp_path / "r.jsonl", "--metrics", str(path))
    assert code == 0
    assert err.count("the metrics cannot be written") == 1
    assert "Traceback" not in err
    assert_all_answered(tmp_path / "r.jsonl", range(4))


def test_folder_that_goes_away_and_comes_back_gets_the_file_again(tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    metrics = folder / "job.prom"
    with serving(tmp_path) as server:
        prompts = write_prompts(tmp_path / "p.jsonl", 4)
        process = start_run(server, prompts, tmp_path / "r.jsonl", "--metrics", str(metrics), "--rate", "2/s")
        wait_until(metrics.exists)
        metrics.unlink()
        folder.rmdir()
        code, _, _ = finish(process)
    assert code == 0
    assert series(metrics)["batchchat_last_run_exit_code"] == 0


def test_pipe_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    pipe = tmp_path / "job.prom"
    os.mkfifo(pipe)
    with serving(tmp_path) as server:
        prompts = write_prompts(tmp_path / "p.jsonl", 4)
        code, _, err = run(server, prompts, tmp_path / "r.jsonl", "--metrics", str(pipe))
    assert code == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("which", ["p.jsonl", "r.jsonl", "r.errors.jsonl", "r.run.json", "r.torn", "job.yaml", "."])
def test_file_that_is_needed_for_something_else_is_refused(tmp_path: Path, which: str) -> None:
    write_prompts(tmp_path / "p.jsonl", 2)
    (tmp_path / "job.yaml").write_text("concurrency: 2\n")
    before = (tmp_path / "p.jsonl").read_bytes()
    arguments = run_arguments(
        "http://127.0.0.1:9", tmp_path / "p.jsonl", tmp_path / "r.jsonl", "-j", str(tmp_path / "job.yaml"),
        "--metrics", str(tmp_path / which),
    )  # fmt: skip
    code, _, err = finish(start_command(arguments))
    assert code == 2
    assert err.count("\n") == 1
    assert (tmp_path / "p.jsonl").read_bytes() == before
    assert finish(start_command([*arguments, "--dry-run"]))[0] == 2


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.prom").symlink_to(tmp_path / "real.txt")
    with serving(tmp_path) as server:
        prompts = write_prompts(tmp_path / "p.jsonl", 1)
        assert run(server, prompts, tmp_path / "r.jsonl", "--metrics", str(tmp_path / "link.prom"))[0] == 0
    assert (tmp_path / "link.prom").is_symlink()
    assert series(tmp_path / "link.prom")["batchchat_run_active"] == 0


def test_labels_are_few_and_hold_no_ids_and_no_secrets(tmp_path: Path) -> None:
    prompts, metrics = tmp_path / "p.jsonl", tmp_path / 'a "b"\\c.prom'
    prompts.write_text("".join(f'{{"id": "secret-{n}", "prompt": "x", "model": "m{n}"}}\n' for n in range(40)))
    with serving(tmp_path) as server:
        arguments = [*BATCHCHAT, "run", str(prompts), "-o", str(tmp_path / "r.jsonl"), "--provider", "openai",
                     "--base-url", server.base_url, "--model", 'm"\\\nx', "--header", "X-Key: secret-header",
                     "--metrics", str(metrics)]  # fmt: skip
        code, _, _ = finish(start_command(arguments, env=os.environ | {"OPENAI_API_KEY": "secret-key"}))
    assert code == 0
    text = metrics.read_text()
    assert "secret" not in text
    assert len(text.splitlines()) < 120
    assert series(metrics)['batchchat_run_info{model=m"\\\nx,provider=openai,version=%s}' % version()] == 1


def version() -> str:
    from batchchat.version import VERSION

    return VERSION


def test_missing_extra_is_one_sentence(tmp_path: Path) -> None:
    program = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'prometheus_client' else find(name, *a)\n"
        "from batchchat.cli import main; main()"
    )
    prompts = write_prompts(tmp_path / "p.jsonl", 1)
    arguments = run_arguments("http://127.0.0.1:9", prompts, tmp_path / "r.jsonl", "--metrics", "m.prom")
    for more in ([], ["--dry-run"]):
        code, _, err = finish(start_command([sys.executable, "-c", program, *arguments[3:], *more]))
        assert code == 2
        assert err == "batchchat: --metrics needs the package prometheus-client: pip install 'batchchat[metrics]'\n"


def test_other_ending_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        prompts = write_prompts(tmp_path / "p.jsonl", 1)
        code, _, err = run(server, prompts, tmp_path / "r.jsonl", "--metrics", str(tmp_path / "m.txt"))
    assert code == 0
    assert f"{tmp_path}/m.txt: the node exporter reads only files whose names end in .prom" in err
    assert series(tmp_path / "m.txt")["batchchat_run_active"] == 0


def test_library_is_not_imported_unless_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys, asyncio\nfrom batchchat.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(sorted(n for n in sys.modules if n.split('.')[0] in ('prometheus_client', 'opentelemetry')))"
    )
    with serving(tmp_path) as server:
        arguments: list[Any] = run_arguments(server, write_prompts(tmp_path / "p.jsonl", 1), tmp_path / "r.jsonl")
        code, out, _ = finish(start_command([sys.executable, "-c", program, *arguments[3:]]))
    assert code == 0
    assert out == "[]\n"
