"""``batchchat run``: every option in every place it may stand, and real runs to every exit code."""

import contextlib
import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from batchchat.cli.job_options import job_from, job_options
from batchchat.cli.run import command as run_command
from batchchat.cli.run import resume_command
from batchchat.config import JobConfig
from batchchat.durations import Rate
from batchchat.errors import ConfigError
from batchchat.input_settings import ExamplesFile
from batchchat.run_settings import BreakerConfig
from tests.runs import (
    BATCHCHAT,
    assert_all_answered,
    finish,
    kill,
    read_lines,
    run,
    run_arguments,
    serving,
    start_run,
    write_prompts,
)

# Option, its text, another text, key path in the job file (None: not a key), value in the job, default.
OPTIONS: list[tuple[str, str, str, str, Any, Any]] = [
    ("--output", "a.jsonl", "b.jsonl", "output.path", "a.jsonl", None),
    ("--provider", "openai", "chatgpt4online", "provider.name", "openai", None),
    ("--base-url", "http://a", "http://b", "provider.base_url", "http://a", None),
    ("--model", "m", "n", "provider.model", "m", None),
    ("--bot-id", "x", "y", "provider.bot_id", "x", None),
    ("--api-key-env", "MY_KEY", "OTHER_KEY", "provider.api_key_env", "MY_KEY", None),
    ("--prompt", "{{ q }}", "{{ r }}", "prompt.template", "{{ q }}", None),
    ("--system", "{{ s }}", "{{ t }}", "prompt.system", "{{ s }}", None),
    ("--id-field", "key", "nr", "prompt.id", "key", None),
    ("--examples", "e.jsonl", "f.jsonl", "prompt.examples", ExamplesFile(path="e.jsonl"), None),
    ("--image-field", "image", "photo", "prompt.images", ["image"], []),
    ("--file-field", "pdf", "doc", "prompt.files", ["pdf"], []),
    ("--file-root", "d", "e", "prompt.file_root", "d", None),
    ("--n", "5", "2", "prompt.n", 5, 1),
    ("--concurrency", "3", "4", "concurrency", 3, 16),
    ("--processes", "2", "3", "processes", 2, 1),
    ("--rate", "5/s", "6/s", "rate", (Rate(5, 1.0),), ()),
    ("--burst", "2", "3", "burst", 2, 1),
    ("--rate-scope", "host", "run", "rate_scope", "host", "run"),
    ("--tokens-per-minute", "9000", "8000", "tokens_per_minute", 9000, None),
    ("--schema", "a.json", "b.json", "answer.schema", "a.json", None),
    ("--schema-retries", "0", "7", "answer.schema_retries", 0, 2),
    ("--extract", "a.b", "c", "answer.extract", "a.b", None),
    ("--reuse", "old.jsonl", "other.jsonl", "reuse", ["old.jsonl"], []),
    ("--retries", "0", "7", "retry.retries", 0, 5),
    ("--max-retry-wait", "1m", "2m", "retry.max_wait", 60.0, 300.0),
    ("--connect-timeout", "500ms", "2s", "timeout.connect", 0.5, 10.0),
    ("--idle-timeout", "1h30m", "2s", "timeout.idle", 5400.0, 60.0),
    ("--timeout", "30s", "40s", "timeout.attempt", 30.0, 300.0),
    ("--prompt-deadline", "7m", "8m", "timeout.prompt", 420.0, 0.0),
    ("--deadline", "6h", "7h", "timeout.run", 21600.0, 0.0),
    ("--window", "22:00-6:00", "Sat 01:00-02:00", "run.window", ["22:00-06:00"], []),
    ("--timezone", "Europe/Berlin", "Asia/Tokyo", "run.timezone", "Europe/Berlin", None),
    ("--breaker", "off", "on", "breaker", BreakerConfig(failures=0), BreakerConfig()),
    ("--max-outage", "2h", "0", "breaker.max_open", 7200.0, 3600.0),
    ("--second-attempt", "30s", "1m", "stragglers.second_attempt", 30.0, 0.0),
    ("--max-failures", "2%", "7", "stop.max_failures", "2%", None),
    ("--budget", "2", "3", "stop.budget_usd", 2.0, None),
    ("--limit", "10", "11", "limit", 10, None),
    ("--sample", "5", "6", "sample", 5, None),
    ("--seed", "42", "43", "seed", 42, 0),
    ("--order", "input", "completion", "output.order", "input", "completion"),
    ("--carry", "topic,source", "none", "carry", ("topic", "source"), "all"),
    ("--format", "openai-batch", "flat", "output.format", "openai-batch", "flat"),
    ("--on-duplicate", "suffix", "first", "on_duplicate", "suffix", "error"),
    ("--on-change", "keep", "redo", "on_change", "keep", "error"),
    ("--fsync", "always", "never", "output.fsync", "always", "interval"),
    ("--proxy", "http://p:1", "http://q:1", "proxy", "http://p:1", None),
    ("--ca-file", "ca.pem", "other.pem", "ca_file", "ca.pem", None),
    ("--max-response-bytes", "1000", "2000", "max_response_bytes", 1000, 64 << 20),
    ("--grace", "2s", "3s", "grace", 2.0, 30.0),
    ("--errors", "e.jsonl", "f.jsonl", "errors", "e.jsonl", None),
    ("--summary", "s.json", "t.json", "summary", "s.json", None),
    ("--metrics", "m.prom", "n.prom", "metrics", "m.prom", None),
]
NAMES = [option for option, *_ in OPTIONS]
# The field of JobConfig where it is not named like the key.
FIELDS = {"grace": "grace_s", "max_wait": "max_wait_s", "connect": "connect_s", "idle": "idle_s", "attempt": "attempt_s",
          "prompt": "prompt_s", "run": "run_s", "max_open": "max_open_s",
          "second_attempt": "second_attempt_s"}  # fmt: skip


def variable(option: str) -> str:
    return "BATCHCHAT_" + option.removeprefix("--").replace("-", "_").upper()


def job_of(*arguments: str, environ: dict[str, str] | None = None) -> JobConfig:
    """The job that ``run`` would make of its arguments and the environment."""
    jobs = []

    @click.command()
    @job_options
    @click.pass_context
    def probe(ctx: click.Context, /, **options: Any) -> None:
        jobs.append(job_from(ctx, options))

    result = CliRunner().invoke(probe, arguments, env=environ or {}, catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return jobs[0]


def value_of(job: JobConfig, key: str) -> Any:
    section, _, name = key.rpartition(".")
    if section == "provider":
        return job.provider.get(name)
    return getattr(getattr(job, section) if section else job, FIELDS.get(name, name) if section != "prompt" else name)


def job_file(folder: Path, key: str, text: str) -> str:
    section, _, name = key.rpartition(".")
    path = folder / "job.yaml"
    value = text if text.isdecimal() else json.dumps(text)
    path.write_text(f"{section}:\n  {name}: {value}\n" if section else f"{name}: {value}\n")
    return str(path)


def test_table_above_holds_every_option_with_a_value() -> None:
    valued = {parameter.opts[-1] for parameter in run_command.params
              if isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.count}  # fmt: skip
    assert valued - set(NAMES) == {"--header", "--param", "--matrix", "--job", "--log-format", "--show", "--env-file",
                                    "--engine", "--ray-address", "--workers"}  # fmt: skip


@pytest.mark.parametrize(("option", "text", "other", "key", "value", "default"), OPTIONS, ids=NAMES)
def test_option_wins_over_environment_over_job_file_over_default(
    tmp_path, option, text, other, key, value, default
) -> None:
    assert value_of(job_of(), key) == default
    assert value_of(job_of("-j", job_file(tmp_path, key, text)), key) == value
    other_file = job_file(tmp_path, key, other)
    assert value_of(job_of("-j", other_file), key) != value
    assert value_of(job_of("-j", other_file, environ={variable(option): text}), key) == value
    assert value_of(job_of("-j", other_file, option, text, environ={variable(option): other}), key) == value


def test_matrix_is_given_by_options(tmp_path: Path) -> None:
    job = job_of("--matrix", "model=a, 4", "--matrix", "temperature=0,0.7,x", "--matrix", 'stop=[",",";"]')
    assert job.matrix == {"model": ["a", "4"], "temperature": [0, 0.7, "x"], "stop": [",", ";"]}
    (tmp_path / "job.yaml").write_text("matrix: {model: [m], top_p: [1]}")
    job = job_of("-j", str(tmp_path / "job.yaml"), environ={"BATCHCHAT_MATRIX": "model=a,b\nseed=1,2"})
    assert job.matrix == {"model": ["a", "b"], "top_p": [1], "seed": [1, 2]}


@pytest.mark.parametrize("text", ["model", "model=", "model=a,,b", "=a"])
def test_matrix_that_is_none_is_told(text: str) -> None:
    with pytest.raises(click.UsageError, match="--matrix: expected "):
        job_of("--matrix", text)


@pytest.mark.parametrize(
    "option", ["--concurrency", "--rate", "--timeout", "--max-failures", "--order", "--carry", "--seed", "--burst"]
)
def test_wrong_value_is_told_with_the_name_it_was_given_by(option: str) -> None:
    wrong = "x y!" if option != "--carry" else ","
    for name, arguments, environ in ((option, (option, wrong), {}), (variable(option), (), {variable(option): wrong})):
        with pytest.raises(ConfigError) as caught:
            job_of(*arguments, environ=environ)
        assert str(caught.value).startswith(f"{name}: expected "), caught.value
        assert caught.value.exit_code == 2


def test_repeated_rates_all_hold() -> None:
    assert job_of("--rate", "5/s", "--rate", "100/min").rate == (Rate(5, 1.0), Rate(100, 60.0))
    assert job_of(environ={"BATCHCHAT_RATE": "5/s 100/min"}).rate == (Rate(5, 1.0), Rate(100, 60.0))


def test_headers_are_laid_over_those_of_the_job_one_by_one(tmp_path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("provider: {headers: {X-A: job, X-B: job}}\n")
    job = job_of("-j", str(path), "--header", "X-B: a: b", "--header", "X-C:c")
    assert job.provider["headers"] == {"X-A": "job", "X-B": "a: b", "X-C": "c"}
    job = job_of(environ={"BATCHCHAT_HEADER": "X-A: 1 2\nX-B: 3"})
    assert job.provider["headers"] == {"X-A": "1 2", "X-B": "3"}


def test_parameters_are_json_where_they_are_some() -> None:
    job = job_of("--param", "temperature=0.5", "--param", 'stop=["a"]', "--param", "user=jo=e", "--param", "top.p=1")
    assert job.prompt.params == {"temperature": 0.5, "stop": ["a"], "user": "jo=e", "top.p": 1}
    assert job_of(environ={"BATCHCHAT_PARAM": "a=1\nb=x y"}).prompt.params == {"a": 1, "b": "x y"}


@pytest.mark.parametrize(
    ("option", "text", "form"), [("--header", "X-A", "'Name: value'"), ("--param", "=1", "key=value")]
)
def test_header_or_parameter_of_another_form_is_a_usage_error(option: str, text: str, form: str) -> None:
    with pytest.raises(click.UsageError, match=f"{option}: expected {form}"):
        job_of(option, text)


def test_strict_and_lenient_stand_in_every_place(tmp_path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("lenient: true\n")
    assert job_of().lenient is False
    assert job_of("-j", str(path)).lenient is True
    assert job_of("--lenient").lenient is True
    assert job_of("-j", str(path), "--strict").lenient is False
    assert job_of("-j", str(path), environ={"BATCHCHAT_STRICT": "1"}).lenient is False
    assert job_of(environ={"BATCHCHAT_LENIENT": "1"}).lenient is True
    assert job_of("-j", str(path), environ={"BATCHCHAT_LENIENT": "false"}).lenient is False
    assert job_of("--strict", environ={"BATCHCHAT_LENIENT": "1"}).lenient is False


def test_nonce_cache_is_switched_off_in_every_place(tmp_path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("nonce_cache: false\n")
    assert job_of().nonce_cache is True
    assert job_of("--no-nonce-cache").nonce_cache is False
    assert job_of(environ={"BATCHCHAT_NO_NONCE_CACHE": "1"}).nonce_cache is False
    assert job_of("-j", str(path)).nonce_cache is False
    assert job_of("-j", str(path), environ={"BATCHCHAT_NO_NONCE_CACHE": "0"}).nonce_cache is True


def test_dedup_is_switched_in_every_place(tmp_path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("dedup: true\n")
    assert job_of().dedup is False
    assert job_of("--dedup").dedup is True
    assert job_of("-j", str(path)).dedup is True
    for word in ("0", "false", "no"):
        assert job_of("-j", str(path), environ={"BATCHCHAT_DEDUP": word}).dedup is False
        assert job_of("--dedup", "-j", str(path), environ={"BATCHCHAT_DEDUP": word}).dedup is True
    assert job_of("-j", str(path), environ={"BATCHCHAT_DEDUP": ""}).dedup is True


def test_otel_option_and_variable_turn_telemetry_on_and_off(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("telemetry: {otlp: true, ids: true}\n")
    assert job_of().telemetry.otlp is False
    assert job_of("--otel").telemetry.otlp is True
    assert job_of("-j", str(path)).telemetry.otlp is True
    assert job_of("-j", str(path), environ={"BATCHCHAT_OTEL": "0"}).telemetry.otlp is False
    assert job_of("--otel", environ={"BATCHCHAT_OTEL": "0"}).telemetry.otlp is True
    assert job_of("-j", str(path), "--otel").telemetry.ids is True


def test_inputs_and_job_file_come_from_arguments_and_environment(tmp_path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("input: [job.jsonl]\n")
    assert job_of(environ={"BATCHCHAT_JOB": str(path)}).input == ["job.jsonl"]
    assert job_of("a.jsonl", "-", "-j", str(path)).input == ["a.jsonl", "-"]


# Real runs.


def plain(text: str) -> bool:
    """Whether nothing in it steers a terminal."""
    return all(line.isprintable() for line in text.split("\n"))


def call(
    *arguments: str, folder: Path | None = None, environ: dict[str, str] | None = None, **options: Any
) -> tuple[int, str, str]:
    """Runs the command line to its end."""
    process = subprocess.run(
        [*BATCHCHAT, *arguments], cwd=folder, env={**os.environ, **(environ or {})}, capture_output=True, text=True,
        timeout=50, check=False, **({"stdin": subprocess.DEVNULL} | options),
    )  # fmt: skip
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout, process.stderr


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_prompts(tmp_path / "prompts.jsonl", 10), tmp_path / "results.jsonl"


def test_exit_0_and_a_summary_where_every_prompt_is_answered(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path) as server:
        code, out, err = run(server, prompts, results)
    assert (code, out) == (0, "")
    assert err.startswith(f"batchchat: 10 prompts; 16 in flight; results in {results}\n")
    assert "10 of 10 answered, 0 failed" in err
    assert "resume" not in err
    assert plain(err)
    assert_all_answered(results, range(10))


def test_exit_1_where_some_prompts_failed(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path, error_500=1) as server:
        code, out, err = run(server, prompts, results, "--retries", "0")
    assert (code, out) == (1, "")
    assert "0 of 10 answered, 10 failed" in err
    assert "10 × server: " in err
    assert "resume" not in err


USAGE = [
    (["run", "in.jsonl", "-o", "o.jsonl", "--nope"], "No such option '--nope'"),
    (["nope"], "No such command 'nope'"),
    (["run", "in.jsonl", "-o"], "Option '-o' requires an argument"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--provider", "opnai", "--base-url", "http://127.0.0.1:9"],
     "--provider: no provider 'opnai' is installed; expected one of: ai-engine, chatgpt4online, local, openai"),
    (["run", "in.jsonl", "-o", "o.jsonl"], "no provider is named; give --provider or provider.name"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--provider", "ai-engine"], "base_url"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--provider", "openai"], "base_url"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--provider", "chatgpt4online"], "marked as not working"),
    (["run", "in.jsonl", "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9"], "no results file is named; give -o"),
    (["run", "-o", "o.jsonl", "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9"], "no input is named; give INPUT"),
    (["run", "in.jsonl", "-o", "folder", "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9"], "-o folder is a folder"),
    (["run", "in.jsonl", "-o", "new/", "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9"], "-o new/ is a folder"),
    (["run", "in.jsonl", "-o", "in.jsonl", "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9"], "both input and results"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--rate", "5/fortnight"], "--rate: expected a rate such as 200/s"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--deadline", "soon"], "--deadline: expected a duration such as 500ms"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--concurrency", "0"], "--concurrency: expected a whole number of at least 1"),
    (["run", "-j", "none.yaml"], "none.yaml: the job file cannot be read"),
    (["run", "-j", "folder"], "folder: the job file cannot be read"),
    (["run", "-j", "job.yaml"], "job.yaml:2: concurency: unknown key 'concurency'; did you mean concurrency?"),
    (["run", "in.jsonl", "-o", "o.jsonl", "--log-format", "xml"], "--log-format"),
    (["check", "in.jsonl", "--json=x"], "--json"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), USAGE, ids=[words for _, words in USAGE])
def test_wrong_use_is_one_sentence_and_exit_2(tmp_path, arguments, words) -> None:
    write_prompts(tmp_path / "in.jsonl", 1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "job.yaml").write_text("version: 1\nconcurency: 3\n")
    code, out, err = call(*arguments, folder=tmp_path)
    assert (code, out) == (2, "")
    *usage, sentence = err.splitlines()
    assert words in sentence
    assert all(line.startswith(("Usage: ", "Try ")) or not line for line in usage), err
    assert not (tmp_path / "o.jsonl").exists()


INPUT_FAULTS = [
    ("missing.jsonl", "batchchat: missing.jsonl: no such file; expected an input file, or - for standard input\n"),
    ("folder", "batchchat: folder: this is a folder, expected a file; name the files in it\n"),
    ("bad.jsonl", "batchchat: bad.jsonl:2: found an empty prompt in 'prompt', expected text (and 1 more faulty lines; "
     "'batchchat check' lists them)\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sentence"), INPUT_FAULTS, ids=[name for name, _ in INPUT_FAULTS])
def test_exit_3_and_one_sentence_where_the_input_is_faulty(tmp_path, name: str, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": ""}\n[]\n')
    code, out, err = call(
        "run", name, "-o", "o.jsonl", "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9", folder=tmp_path
    )
    assert (code, out, err) == (3, "", sentence)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_exit_3_where_the_input_may_not_be_read(tmp_path, files) -> None:
    prompts, results = files
    prompts.chmod(0)
    code, _, err = run("http://127.0.0.1:9", prompts, results)
    assert code == 3
    assert "Permission denied" in err


def test_exit_4_where_the_service_refuses_and_the_rest_stays_pending(tmp_path) -> None:
    prompts, results = write_prompts(tmp_path / "prompts.jsonl", 100), tmp_path / "results.jsonl"
    with serving(tmp_path, auth_refused=True) as server:
        code, out, err = run(server, prompts, results, "--concurrency", "1")
    assert (code, out) == (4, "")
    assert "stopping: 3 prompts in a row met: auth: " in err
    assert "pending" in err
    assert len(read_lines(tmp_path / "results.errors.jsonl")) == 3
    (resume,) = [line for line in err.splitlines() if "to resume" in line]
    assert (
        resume
        == f"batchchat: to resume: batchchat run {prompts} -o {results} --provider ai-engine --base-url {server.base_url} --concurrency 1"
    )


def test_no_command_resumes_what_went_to_standard_output(tmp_path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 100)
    with serving(tmp_path, auth_refused=True) as server:
        code, _, err = run(server, prompts, "-", "--concurrency", "1")
    assert code == 4
    assert "to resume" not in err


def test_exit_5_where_a_limit_of_the_users_is_reached(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path, error_500=1) as server:
        code, _, err = run(server, prompts, results, "--retries", "0", "--concurrency", "1", "--max-failures", "2")
    assert code == 5
    assert "3 prompts failed, more than --max-failures 2" in err
    assert "to resume: " in err


def test_exit_5_at_the_deadline(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path, stall_before=1) as server:
        code, _, err = run(server, prompts, results, "--deadline", "300ms")
    assert code == 5
    assert "--deadline" in err
    assert read_lines(tmp_path / "results.errors.jsonl") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_exit_6_where_results_cannot_be_written(tmp_path, files) -> None:
    with serving(tmp_path) as server:
        code, out, err = run(server, files[0], "/dev/full")
    assert (code, out) == (6, "")
    assert "/dev/full" in err


def test_exit_6_where_standard_output_is_closed(tmp_path, files) -> None:
    """And no other file of the run gets the closed stream's number."""
    with serving(tmp_path) as server:
        arguments = run_arguments(server, files[0], "-")
        process = subprocess.run(
            ["sh", "-c", '"$@" >&-', "sh", *arguments], capture_output=True, text=True, timeout=50, check=False
        )
    assert process.returncode == 6, process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_standard_error_that_takes_nothing_does_not_stop_the_run(tmp_path, files, closed: str) -> None:
    if "/dev/full" in closed and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    prompts, results = files
    with serving(tmp_path, fail_first=1, fail_with="cut_no_end") as server:
        arguments = run_arguments(server, prompts, results, "-vv")
        process = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *arguments], capture_output=True, timeout=50, check=False
        )
    assert (process.returncode, process.stdout) == (0, b"")
    assert_all_answered(results, range(10))


def test_exit_75_where_another_run_holds_the_results(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path, stall_before=1) as server:
        first = start_run(server, prompts, results)
        server.wait_for_chats(1)
        code, out, err = run(server, prompts, results)
        kill(first, signal.SIGKILL)
        finish(first)
    assert (code, out) == (75, "")
    assert err.count("\n") == 1
    assert f"process {first.pid}" in err


def test_exit_143_and_no_failures_where_it_is_terminated_while_its_input_is_open(tmp_path) -> None:
    with serving(tmp_path) as server:
        process = subprocess.Popen(
            run_arguments(server, "-", tmp_path / "r.jsonl"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.stdin.write('{"id": "q-1", "prompt": "question 1"}\n')
        process.stdin.flush()
        server.wait_for_chats(1)
        kill(process, signal.SIGTERM)
        assert process.wait(50) == 143
        process.communicate()
    assert_all_answered(tmp_path / "r.jsonl", [1])


def test_standard_output_carries_result_lines_and_nothing_else(tmp_path, files) -> None:
    with serving(tmp_path, fail_first=1, fail_with="cut_no_end") as server:
        code, out, err = run(server, files[0], "-", "-vv", "--show", "3")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert sorted(line["id"] for line in lines) == sorted(f"q-{n}" for n in range(10))
    assert plain(err)
    assert err.count("asked again") == 10
    assert sorted(os.listdir(tmp_path)) == ["prompts.jsonl", "server-0.log"], "no files beside a stream"


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1"}], ids=str)
def test_no_escape_and_no_carriage_return_leaves_for_anything_but_a_terminal(tmp_path, files, environ) -> None:
    with serving(tmp_path, fail_first=1) as server:
        code, out, err = call(*run_arguments(server, files[0], "-", "-vv")[len(BATCHCHAT):], environ=environ)  # fmt: skip
    assert code == 0
    assert plain(err)
    assert "\r" not in out + err
    assert "\x1b" not in out + err


def test_quiet_leaves_nothing_of_a_run_that_goes_well(tmp_path, files) -> None:
    with serving(tmp_path, fail_first=1, fail_with="cut_no_end") as server:
        assert run(server, *files, "--quiet") == (0, "", "")


def test_quiet_leaves_only_errors(tmp_path, files) -> None:
    with serving(tmp_path, error_500=1) as server:
        code, out, err = run(server, *files, "-q", "--retries", "0")
    assert (code, out) == (1, "")
    failures, where = err.splitlines()
    assert failures.startswith("batchchat:   10 × server: ")
    assert (
        where == f"batchchat: failed prompts in {tmp_path / 'results.errors.jsonl'}; the same command tries them again"
    )


def test_verbose_tells_of_retries_waits_and_nonces(tmp_path, files) -> None:
    with serving(tmp_path, fail_first=1, fail_with="error_503", retry_after="0.2", nonce_uses=7) as server:
        code, _, err = run(server, *files, "-v", "--no-nonce-cache")
    assert code == 0
    assert "fetched a nonce" in err
    assert "the service refused the nonce; it is fetched anew" in err
    assert "attempt 1: server: " in err
    assert "(asked again)" in err
    assert "after 2 attempts" not in err


def test_twice_verbose_tells_of_every_prompt(tmp_path, files) -> None:
    with serving(tmp_path) as server:
        code, _, err = run(server, *files, "-vv")
    assert code == 0
    assert err.count(": answered after 1 attempt") == 10


def test_json_log_is_one_object_a_line_and_has_no_other_text(tmp_path, files) -> None:
    with serving(tmp_path, fail_first=1, fail_with="cut_no_end") as server:
        code, out, err = run(server, *files, "--log-format", "json", "-vv")
    assert (code, out) == (0, "")
    records = [json.loads(line) for line in err.splitlines()]
    assert records[0]["event"] == "run_started"
    assert (records[-1]["event"], records[-1]["answered"], records[-1]["exit_code"]) == ("run_finished", 10, 0)
    assert sum(record["event"] == "attempt_failed" for record in records) == 10
    assert sum(record["event"] == "prompt_finished" for record in records) == 10
    assert all(record["time"].endswith("Z") for record in records)


def test_json_log_tells_what_stopped_the_run_and_how_to_resume(tmp_path, files) -> None:
    with serving(tmp_path, auth_refused=True) as server:
        code, _, err = run(
            server, *files, "--log-format", "json", "-q", "--header", "X-Secret: s3cret", "--concurrency", "1"
        )
    assert code == 4
    end, resume = [json.loads(line) for line in err.splitlines()]
    assert (end["event"], end["reason"], end["pending"]) == ("run_finished", "service", 7)
    assert "auth" in end["message"]
    assert "--header 'X-Secret: ***'" in resume["command"]
    assert "s3cret" not in err


def test_json_log_holds_for_errors_before_the_run_too(tmp_path) -> None:
    code, out, err = call("run", "none.jsonl", "-o", "o.jsonl", "--log-format", "json", "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9", folder=tmp_path)  # fmt: skip
    assert (code, out) == (3, "")
    (record,) = [json.loads(line) for line in err.splitlines()]
    assert (record["event"], record["exit_code"]) == ("error", 3)
    assert record["message"].startswith("none.jsonl: no such file")


def test_control_characters_of_ids_and_services_reach_no_terminal(tmp_path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "a\x1b[2J\r\nb", "prompt": "x"}) + "\n")
    with serving(tmp_path, error_event=1, error_event_text=json.dumps("bad \x1b[31mred\x07")) as server:
        code, _, err = run(server, prompts, tmp_path / "r.jsonl", "-vv", "--retries", "0", "--show", "3")
    assert code == 1
    assert plain(err)


def test_first_request_goes_out_before_standard_input_ends(tmp_path) -> None:
    with serving(tmp_path) as server:
        process = subprocess.Popen(
            run_arguments(server, "-", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.stdin.write('{"id": 1, "prompt": "first"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["response"] == "Echo: first"
        process.stdin.write('{"id": 2, "prompt": "last"}')
        out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    assert json.loads(out)["id"] == 2
    assert "prompts from a stream" in err


def test_environment_alone_is_enough(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path) as server:
        code, out, err = call(
            "run", str(prompts),
            environ={"BATCHCHAT_PROVIDER": "ai-engine", "BATCHCHAT_BASE_URL": server.base_url, "BATCHCHAT_OUTPUT": str(results),
                     "BATCHCHAT_QUIET": "1", "BATCHCHAT_CONCURRENCY": "2"},
        )  # fmt: skip
    assert (code, out, err) == (0, "", "")
    assert_all_answered(results, range(10))
    assert json.loads((tmp_path / "results.run.json").read_text())["settings"]["concurrency"] == 2


@pytest.mark.parametrize(
    ("environ", "told"),
    [({"BATCHCHAT_VERBOSE": "2"}, "answered after 1 attempt"), ({"BATCHCHAT_SHOW": "1"}, ": Echo: question"),
     ({"BATCHCHAT_LOG_FORMAT": "json"}, '"event": "run_finished"'), ({"BATCHCHAT_DRY_RUN": "1"}, "")],
    ids=str,
)  # fmt: skip
def test_options_of_the_command_itself_stand_in_the_environment_too(tmp_path, files, environ, told: str) -> None:
    with serving(tmp_path) as server:
        code, out, err = call(*run_arguments(server, *files)[len(BATCHCHAT):], environ=environ)  # fmt: skip
        assert code == 0
        assert told in err
        assert bool(server.chats()) is ("BATCHCHAT_DRY_RUN" not in environ)
    assert bool(out) is ("BATCHCHAT_DRY_RUN" in environ)


def test_job_file_with_options_over_it(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path) as server:
        (tmp_path / "job.yaml").write_text(
            f"version: 1\ninput: {prompts}\noutput: {{path: {results}}}\nprovider: {{name: ai-engine, base_url: '${{SITE}}'}}\nlimit: 3\n"
        )
        code, _, err = call(
            "run", "--job", "job.yaml", "--limit", "4", "-q", folder=tmp_path, environ={"SITE": server.base_url}
        )
    assert (code, err) == (0, "")
    assert_all_answered(results, range(4))


def test_answers_are_shown_when_asked_for(tmp_path, files) -> None:
    with serving(tmp_path) as server:
        assert run(server, *files, "--show", "2")[2].count("Echo: question") == 2
    with serving(tmp_path) as server:
        assert "Echo" not in run(server, files[0], tmp_path / "other.jsonl")[2]


def test_secrets_stand_in_no_message_and_no_file(tmp_path, files) -> None:
    prompts, results = files
    with serving(tmp_path, auth_refused=True) as server:
        arguments = [
            "--header",
            "X-Secret: s3cret",
            "--header=Authorization: Bearer http://s3cret@x",
            "--concurrency",
            "1",
        ]
        code, out, err = run(server, prompts, results, *arguments, "-vv")
    assert code == 4
    assert "s3cret" not in out + err
    for path in tmp_path.glob("results*"):
        assert "s3cret" not in path.read_text()
    (resume,) = [line for line in err.splitlines() if "to resume" in line]
    assert "--header 'X-Secret: ***' '--header=Authorization: ***'" in resume
    after = err.splitlines()[err.splitlines().index(resume) + 1]
    assert "BATCHCHAT_HEADER" in after
    assert "${NAME}" in after


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["run", "a b.jsonl", "-o", "r.jsonl"], "batchchat run 'a b.jsonl' -o r.jsonl"),
        (["run", "--proxy", "http://u:p@h:1"], "batchchat run --proxy 'http://***@h:1'"),
        (["run", "--proxy=http://u:p@q@h:1"], "batchchat run '--proxy=http://***@h:1'"),
        (["run", "--proxy", "http://h:1"], "batchchat run --proxy http://h:1"),
        (["run", "--base-url", "https://u:p@h/x"], "batchchat run --base-url 'https://***@h/x'"),
        (["run", "--header", "X: http://h/"], "batchchat run --header 'X: ***'"),
        (["run", "--header", "s3cret"], "batchchat run --header '***'"),
        (["run", "--prompt", "{{ q }}\nit's"], "batchchat run --prompt $'{{ q }}\\012it\\047s'"),
        (["run", "--prompt", "Was ist {{ q }}? ü"], "batchchat run --prompt 'Was ist {{ q }}? ü'"),
        (["run", "--base-url", "http://h/v1?k=s3cret"], "batchchat run --base-url 'http://h/v1?***'"),
        (["run", "--base-url=http://h/v1?k=s3cret&l"], "batchchat run '--base-url=http://h/v1?***'"),
        (["run", "--base-url", "http://me:s3c/ret@h/v1"], "batchchat run --base-url 'http://***@h/v1'"),
        (["run", "--proxy", "h:80?s3cret"], "batchchat run --proxy 'h:80?***'"),
        (["run", "--prompt", "http://h?q={{ q }}"], "batchchat run --prompt 'http://h?q={{ q }}'"),
    ],
)
def test_resume_command_is_one_line_for_a_shell_without_secrets(argv: list[str], shown: str) -> None:
    assert resume_command(["/usr/bin/batchchat", *argv]) == shown


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="there is no bash")
def test_resume_command_says_the_same_to_a_shell() -> None:
    argv = ["run", "it's.jsonl", "--prompt", "a\nb\t'ü' \\ $HOME `x` \x1b[1m", "--param", "x=*"]
    line = resume_command(["batchchat", *argv])
    script = f"batchchat() {{ printf '%s\\0' \"$@\"; }}; {line}"
    out = subprocess.run(["/bin/bash", "-c", script], capture_output=True, timeout=20, check=True).stdout
    assert out.decode().split("\0")[:-1] == argv


def test_resumed_run_is_the_command_that_was_printed(tmp_path) -> None:
    prompts, results = write_prompts(tmp_path / "a prompt's.jsonl", 40), tmp_path / "results.jsonl"
    with serving(tmp_path, latency_ms=50) as server:
        process = start_run(server, prompts, results, "--concurrency", "2")
        server.wait_for_chats(4)
        kill(process, signal.SIGINT)
        code, _, err = finish(process)
        assert code == 130
        (line,) = [line for line in err.splitlines() if "to resume: " in line]
        resume = line.partition("to resume: batchchat ")[2]
        script = f'batchchat() {{ "$@"; }}; set -- {resume} --concurrency 40; exec {" ".join(BATCHCHAT)} "$@"'
        assert subprocess.run(["sh", "-c", script], capture_output=True, timeout=50, check=False).returncode == 0
    assert_all_answered(results, range(40))


def test_budget_without_a_price_is_refused_before_the_first_request(tmp_path, files) -> None:
    (tmp_path / "job.yaml").write_text("stop: {budget_usd: 5}\nprices: {'other-*': {input: 1, output: 2}}\n")
    code, out, err = run("http://127.0.0.1:9", *files, "--job", str(tmp_path / "job.yaml"))
    assert (code, out) == (2, "")
    assert "the budget cannot be held" in err
    assert "prices" in err
    assert err.count("\n") == 1


def on_terminal(arguments: list[str]) -> tuple[int, bytes, str]:
    """Runs a command with standard error on a pseudo-terminal: its exit code, its output, what the terminal got."""
    master, slave = pty.openpty()
    environ = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    with open(master, "rb", buffering=0) as terminal:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave,
                                   env={**environ, "TERM": "xterm"})  # fmt: skip
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # Linux tells the end of a terminal in this way
            while part := terminal.read(65536):
                shown += part
        out = process.stdout.read()
        process.stdout.close()
        return process.wait(50), out, shown.decode()


def test_terminal_gets_a_bar_and_standard_output_only_data(tmp_path, files) -> None:
    with serving(tmp_path, latency_ms=50) as server:
        code, out, shown = on_terminal(run_arguments(server, files[0], "-", "--concurrency", "2"))
    assert code == 0
    assert len([json.loads(line) for line in out.splitlines()]) == 10
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is given back"
    assert "10 of 10 answered" in shown
    assert shown.count(": Echo: question") == 3, "a terminal is shown the first answers"


def test_terminal_gets_its_cursor_back_where_the_run_ends_in_an_error(tmp_path) -> None:
    """A stream's faulty line stops the run when it is met."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with serving(tmp_path) as server:
        with open(os.open(pipe, os.O_RDWR), "w") as stream:
            stream.write('{"prompt": "a"}\n[]\n')
            stream.flush()
            code, _, shown = on_terminal(run_arguments(server, pipe, tmp_path / "r.jsonl"))
    assert code == 3
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")
    assert "pipe:2: " in shown
