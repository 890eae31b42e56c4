"""A job from file and overrides: values, defaults, order of precedence, and what each refusal says."""

import re
import subprocess
import sys
from typing import Annotated, Any, Literal

import msgspec
import pytest

from batchchat.config import JobConfig, Override, RetryConfig, StopConfig, TimeoutConfig, load_job, provider_config
from batchchat.durations import Rate
from batchchat.errors import ConfigError, UnknownProviderError
from batchchat.providers.openai import OpenAIChat
from batchchat.sections import convert_section

WHOLE = """\
version: 1
input: [sample_inputs/questions.jsonl]
output: {path: results/questions.jsonl, format: flat, order: completion, fsync: interval}
provider: {name: ai-engine, base_url: "https://chat.example.org", bot_id: default}
prompt: {template: "{{ question }}", system: "Answer in one sentence.", id: id, params: {temperature: 0}}
concurrency: 16
rate: [5/s, 10000/d]
tokens_per_minute: 90000
retry: {retries: 5, max_wait: 5m}
timeout: {connect: 10s, idle: 60s, attempt: 5m, prompt: 15m, run: 6h}
stop: {max_failures: 2%, budget_usd: 5}
"""


@pytest.fixture
def load(tmp_path):
    """Loads a job from its text."""

    def loaded(text, overrides=None, environ=None):
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return load_job(str(path), overrides or {}, environ or {})

    return loaded


@pytest.fixture
def refusal(load):
    """Text of the error that a job gives, without the folder."""

    def told(text, overrides=None, environ=None):
        with pytest.raises(ConfigError) as caught:
            load(text, overrides, environ)
        assert caught.value.exit_code == 2
        return re.sub(r"^\S*job\.yaml", "job.yaml", str(caught.value))

    return told


def test_every_key_of_a_job_file_arrives(load):
    job = load(WHOLE)
    assert job.input == ["sample_inputs/questions.jsonl"]
    assert (job.output.path, job.output.format, job.output.fsync) == ("results/questions.jsonl", "flat", "interval")
    assert job.provider == {"name": "ai-engine", "base_url": "https://chat.example.org", "bot_id": "default"}
    assert (job.prompt.template, job.prompt.params) == ("{{ question }}", {"temperature": 0})
    assert job.rate == (Rate(5, 1), Rate(10000, 86400))
    assert job.retry == RetryConfig(retries=5, max_wait_s=300)
    assert job.timeout == TimeoutConfig(connect_s=10, idle_s=60, attempt_s=300, prompt_s=900, run_s=21600)
    assert (job.stop.max_failures_count, job.stop.max_failures_share, job.stop.budget_usd) == (None, 0.02, 5.0)
    assert job.source is not None


def test_job_of_nothing_has_the_documented_defaults():
    job = load_job(None)
    assert job == JobConfig()
    assert (job.concurrency, job.burst, job.rate, job.tokens_per_minute) == (16, 1, (), None)
    assert (job.retry.retries, job.retry.max_wait_s, job.grace_s) == (5, 300, 30)
    assert (job.timeout.connect_s, job.timeout.idle_s, job.timeout.attempt_s) == (10, 60, 300)
    assert (job.timeout.prompt_s, job.timeout.run_s, job.max_response_bytes) == (0, 0, 67108864)
    assert (job.carry, job.on_change, job.on_duplicate, job.lenient, job.nonce_cache) == (
        "all",
        "error",
        "error",
        False,
        True,
    )


def test_override_wins_over_the_file_and_text_is_typed():
    overrides = {
        "input": Override(["a.jsonl", "b.jsonl"], "INPUT"),
        "concurrency": Override("3", "--concurrency"),
        "rate": ("7/s", "100/h"),
        "retry.max_wait": "90s",
        "stop.max_failures": "10",
        "stop.budget_usd": "2.5",
        "carry": "topic, source",
        "lenient": True,
        "nonce_cache": "off",
        "prompt.params.temperature": 0.5,
        "prompt.params.top.p": "0.5",
        "provider.name": "openai",
        "provider.headers.X-A.B": "12",
    }
    job = load_job(None, overrides)
    assert job.input == ["a.jsonl", "b.jsonl"]
    assert (job.concurrency, job.rate) == (3, (Rate(7, 1), Rate(100, 3600)))
    assert (job.retry.max_wait_s, job.stop.max_failures_count, job.stop.budget_usd) == (90, 10, 2.5)
    assert (job.carry, job.lenient, job.nonce_cache) == (("topic", "source"), True, False)
    assert job.prompt.params == {"temperature": 0.5, "top.p": "0.5"}
    assert job.provider == {"name": "openai", "headers": {"X-A.B": "12"}}


def test_override_of_one_key_leaves_its_neighbours(load):
    job = load(WHOLE, {"timeout.run": "0", "rate": "1/s", "prompt.params.seed": 7, "provider.bot_id": "other"})
    assert (job.timeout.run_s, job.timeout.prompt_s, job.rate) == (0, 900, (Rate(1, 1),))
    assert job.prompt.params == {"temperature": 0, "seed": 7}
    assert job.provider["bot_id"] == "other"


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("concurrency: ${N}", lambda job: job.concurrency == 8),
        ("concurrency: '${N}'", lambda job: job.concurrency == 8),
        ("concurrency: auto", lambda job: job.concurrency == "auto"),
        ("lenient: ${YES}", lambda job: job.lenient is True),
        ("version: ${ONE}", lambda job: job.version == 1),
        ("rate: ${N}/s", lambda job: job.rate == (Rate(8, 1),)),
        ("stop: {budget_usd: '${HALF}'}", lambda job: job.stop.budget_usd == 0.5),
        ("tokens_per_minute: ${UNSET:-}", lambda job: job.tokens_per_minute is None),
        ("output: {path: '${N}'}", lambda job: job.output.path == "8"),
        ("prompt: {params: {model: '${N}'}}", lambda job: job.prompt.params == {"model": "8"}),
        ("prompt:\n  params:\n    n: ${N}\n    h: ${HALF}\n    t: ${YES}", lambda job: job.prompt.params == {"n": 8, "h": 0.5, "t": True}),
        ("prompt:\n  params:\n    stop: ${LIST}", lambda job: job.prompt.params == {"stop": "[1]"}),
        ("provider:\n  name: ${KIND}\n  stream: ${NO}", lambda job: job.provider == {"name": "openai", "stream": False}),
    ],
)  # fmt: skip
def test_variable_takes_the_type_that_is_expected(load, text, check):
    environ = {"N": "8", "YES": "true", "NO": "false", "ONE": "1", "HALF": "0.5", "LIST": "[1]", "KIND": "openai"}
    assert check(load(text, environ=environ))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurency: 3", "job.yaml:1: concurency: unknown key 'concurency'; did you mean concurrency?"),
        ("\nretries: 3", "job.yaml:2: retries: unknown key 'retries'; did you mean retry.retries?"),
        ("model: x", "job.yaml:1: model: unknown key 'model'; did you mean provider.model?"),
        ("retry:\n  wait: 3", "job.yaml:2: retry.wait: unknown key 'wait'; did you mean max_wait?"),
        ("retry: {x: 3}", "job.yaml:1: retry.x: unknown key 'x'; expected one of retries, max_wait"),
        ("timeout: {idle_s: 3}", "job.yaml:1: timeout.idle_s: unknown key 'idle_s'; did you mean idle?"),
        ("concurrency: x", "job.yaml:1: concurrency: expected a whole number of at least 1 or auto, found 'x'"),
        ("concurrency: '16'", "job.yaml:1: concurrency: expected a whole number of at least 1 or auto, found '16'; take the quotes off"),
        ("concurrency: 1.5", "job.yaml:1: concurrency: expected a whole number of at least 1 or auto, found the number 1.5"),
        ("concurrency: true", "job.yaml:1: concurrency: expected a whole number of at least 1 or auto, found true"),
        ("concurrency: 0", "job.yaml:1: concurrency: expected a whole number of at least 1 or auto, found the number 0"),
        ("concurrency:", "job.yaml:1: concurrency: expected a whole number of at least 1 or auto, found nothing"),
        ("retry: 5", "job.yaml:1: retry: expected a mapping, found the number 5"),
        ("retry:", "job.yaml:1: retry: expected a mapping, found nothing"),
        ("timeout: {idle: soon}", "job.yaml:1: timeout.idle: expected a duration such as 500ms, 30s, 5m or 1h30m (0 for none), found 'soon'"),
        ("timeout: {idle: [1]}", "job.yaml:1: timeout.idle: expected a duration such as 30s, found a list or mapping"),
        ("rate: 5", "job.yaml:1: rate: expected a rate such as 200/s, 60/min, 1000/h or 10000/d, found '5'"),
        ("rate:\n- 5/s\n- 0/s", "job.yaml:3: rate[1]: expected a rate such as 200/s, 60/min, 1000/h or 10000/d, found '0/s'"),
        ("input: [a, 5]", "job.yaml:1: input[1]: expected a path or a list of paths, found 5"),
        ("output: {path: yes}", "job.yaml:1: output.path: expected text, found true; YAML reads yes as true, put it in quotes for text"),
        ("output: {path: 12}", "job.yaml:1: output.path: expected text, found the number 12; put it in quotes"),
        ("output: {path: ''}", "job.yaml:1: output.path: expected text, found an empty one"),
        ("output: {format: openai_batch}", "job.yaml:1: output.format: expected one of flat, openai-batch, found 'openai_batch'; did you mean openai-batch?"),
        ("on_change: no", "job.yaml:1: on_change: expected one of error, keep, redo, found false; YAML reads no as false, put it in quotes for text"),
        ("lenient: maybe", "job.yaml:1: lenient: expected true or false, found 'maybe'"),
        ("version: 2", "job.yaml:1: version: expected 1, found the number 2"),
        ("stop: {budget_usd: 1e-3}", "job.yaml:1: stop.budget_usd: expected a number above 0, found '1e-3'; YAML reads 1e-3 as text, write 0.001 for the number, or put it in quotes"),
        ("stop: {max_failures: 200%}", "job.yaml:1: stop.max_failures: expected a number of prompts such as 100, or a share of them such as 2%, found '200%'"),
        ("stop: {max_failures: on}", "job.yaml:1: stop.max_failures: expected a number of prompts such as 100, or a share of them such as 2%, found True; YAML reads on as true, put it in quotes for text"),
        ("carry: [1]", "job.yaml:1: carry: expected all, none, or names of fields such as topic,source, found [1]"),
        ("prompt: {params: {t: 1e-3}}", "job.yaml:1: prompt.params.t: found '1e-3'; YAML reads 1e-3 as text, write 0.001 for the number, or put it in quotes"),
        ("prompt: {params: {a: [{t: off}]}}", "job.yaml:1: prompt.params.a[0].t: found false; YAML reads off as false, put it in quotes for text"),
        ("prompt: {params: {t: .inf}}", "job.yaml:1: prompt.params.t: expected a finite number, found inf"),
        ("prompt: {params: 5}", "job.yaml:1: prompt.params: expected a mapping, found the number 5"),
        ("provider: ai-engine", "job.yaml:1: provider: expected a mapping such as {name: ai-engine}, found 'ai-engine'"),
        ("provider: {name: 5}", "job.yaml:1: provider.name: expected the name of a provider, found the number 5"),
        ("provider:\n  name: openai\n  bot_id: x", "job.yaml:3: provider.bot_id: unknown key 'bot_id' of provider openai; expected one of base_url, model, api, endpoints, api_key_env, api_key_command, api_key_keyring, api_version, auth, organization, project, stream, headers"),
        ("provider: {name: openai, headers: {X-V: 1}}", "job.yaml:1: provider.headers.X-V: expected text, found the number 1; put it in quotes"),
        ("provider: {stream: off}", "job.yaml:1: provider.stream: found false; YAML reads off as false, put it in quotes for text"),
    ],
)  # fmt: skip
def test_error_names_line_key_what_was_found_and_what_was_expected(refusal, text, message):
    assert refusal(text) == message


def test_path_of_the_job_file_is_no_key_of_it(refusal):
    assert refusal("source: x").startswith("job.yaml:1: source: unknown key 'source'; expected one of version, input, ")


def test_text_that_yaml_keeps_as_text_needs_no_quotes(load):
    job = load("prompt: {system: 'no', params: {user: 1e-3x, t: true}}\noutput: {path: 2%}")
    assert job.prompt.params == {"user": "1e-3x", "t": True}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("concurrency", Override("0", "--concurrency"), "--concurrency: expected a whole number of at least 1 or auto, found '0'"),
        ("rate", Override(["5/s", "x"], "--rate"), "--rate: expected a rate such as 200/s, 60/min, 1000/h or 10000/d, found 'x'"),
        ("retry.max_wait", Override("soon", "BATCHCHAT_MAX_RETRY_WAIT"), "BATCHCHAT_MAX_RETRY_WAIT: expected a duration such as 500ms, 30s, 5m or 1h30m (0 for none), found 'soon'"),
        ("output.fsync", Override("alway", "--fsync"), "--fsync: expected one of always, interval, never, found 'alway'; did you mean always?"),
        ("provider.model", Override("m", "--model"), "--model: unknown key 'model' of provider ai-engine; expected one of base_url, bot_id, custom_id, api, api_key_env, route, stream, headers"),
        ("limit", Override("two", "--limit"), "--limit: expected a whole number of at least 1, found 'two'"),
        ("burst", -1, "burst: expected a whole number of at least 1, found the number -1"),
        ("provider.name", Override("opnai", "--provider"), "--provider: no provider 'opnai' is installed; expected one of: .*; did you mean openai?"),
        ("retry.nothing", "1", "retry.nothing: unknown key 'nothing'; expected one of retries, max_wait"),
    ],
)  # fmt: skip
def test_error_in_an_override_names_the_option(refusal, key, value, message):
    assert re.fullmatch(
        message.replace("?", r"\?").replace("(", r"\(").replace(")", r"\)"), refusal(WHOLE, {key: value})
    )


def test_override_inside_what_is_no_section_names_the_line(refusal):
    assert refusal("retry: 5", {"retry.retries": Override("3", "--retries")}) == (
        "job.yaml:1: retry: expected a mapping, so that --retries can be laid over it"
    )


def test_override_fills_a_section_that_was_left_empty(load):
    assert load("retry:\n", {"retry.retries": "3"}).retry.retries == 3


def test_error_of_an_overridden_key_does_not_blame_the_file(refusal):
    assert refusal("rate:\n- 5/s\n", {"rate": Override(["y"], "--rate")}).startswith("--rate: ")


def test_error_stays_one_short_line_whatever_was_found(refusal):
    for text in (
        '"a\\nb\\e[1m": 1',
        f"{'k' * 500}: 1",
        f"rate: {'9' * 5000}/s",
        f"carry: [{'x, ' * 300} 1]",
        f"'${{{'k' * 5000}': 1",
    ):
        message = refusal(text)
        assert message.isprintable()
        assert len(message) < 1200


SECRET = "sk-Zx81hQpLm20vTnB7"


@pytest.mark.parametrize(
    "text",
    [
        f"provider: {{name: openai, api_key: {SECRET}}}",
        f"provider: {{name: openai, api_key_env: {SECRET}}}",
        f"provider: {{name: openai, headers: {{Authorization: Bearer {SECRET}}}}}",
        f"provider: {{name: openai, model: {SECRET}}}",
    ],
)
def test_secret_in_a_job_file_is_refused_and_not_repeated(refusal, text):
    message = refusal(text)
    assert "environment variable" in message
    assert SECRET not in message


def test_key_of_a_secret_is_told_to_use_api_key_env(refusal):
    assert refusal("provider: {name: openai, api_key: x}") == (
        "job.yaml:1: provider.api_key: unknown key 'api_key' of provider openai; secrets do not stand in a job, "
        "put yours into an environment variable and name that with api_key_env"
    )


def test_secret_from_a_variable_is_let_through(load):
    job = load("provider:\n  name: openai\n  headers: {A: 'Bearer ${K}'}", environ={"K": SECRET})
    assert job.provider["headers"] == {"A": f"Bearer {SECRET}"}


def test_secret_in_an_option_is_let_through(load):
    job = load("provider: {name: openai}", {"provider.headers.A": Override(SECRET, "--header")})
    assert job.provider["headers"] == {"A": SECRET}


def test_provider_settings_come_as_the_provider_wants_them(load):
    provider, settings = provider_config(load("provider: {name: openai, model: m, stream: false}"))
    assert provider is OpenAIChat
    assert (settings.model, settings.stream, settings.base_url) == ("m", False, None)


def test_job_without_provider_is_told_which_there_are():
    with pytest.raises(
        ConfigError, match=r"^no provider is named; give --provider or provider.name \(one of ai-engine, "
    ):
        provider_config(JobConfig())


def test_unknown_provider_keeps_its_type_and_place(load):
    with pytest.raises(UnknownProviderError) as caught:
        load("provider:\n  name: gpt")
    assert (caught.value.line, caught.value.key) == (2, "provider.name")


def test_input_settings_carry_what_reading_takes(load):
    settings = load(WHOLE, {"limit": "5", "seed": "3", "on_duplicate": "suffix"}).input_settings()
    assert settings.paths == ("sample_inputs/questions.jsonl",)
    assert (settings.prompt_template, settings.id_field) == ("{{ question }}", "id")
    assert (settings.limit, settings.sample, settings.seed, settings.on_duplicate) == (5, None, 3, "suffix")


def test_job_without_input_is_told_where_to_name_it():
    with pytest.raises(ConfigError, match=r"^no input is named; give INPUT, or input in the job file$"):
        JobConfig().input_settings()


@pytest.mark.parametrize(
    ("value", "count", "share"), [(0, 0, None), (7, 7, None), ("2.5%", None, 0.025), (None, None, None)]
)
def test_tolerated_failures_are_a_number_or_a_share(value, count, share):
    stop = StopConfig(max_failures=value)
    assert (stop.max_failures_count, stop.max_failures_share) == (count, share)


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    size: Annotated[int, msgspec.Meta(ge=1, le=9)]


class PlugIn(msgspec.Struct, frozen=True, kw_only=True):
    """Settings as a plug-in may define them."""

    inner: Inner
    mode: Literal["a", 1] = "a"
    names: list[Annotated[str, msgspec.Meta(max_length=3)]] = []
    either: int | list[int] | None = None
    anything: Any = None


def test_section_of_a_plug_in_is_checked_by_its_struct():
    raw = {"inner": {"size": 3}, "mode": 1, "names": ["x"], "either": [1], "anything": {"k": [1.5]}}
    assert convert_section(raw, PlugIn, key="provider") == PlugIn(
        inner=Inner(size=3), mode=1, names=["x"], either=[1], anything={"k": [1.5]}
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "provider: the key inner is missing; expected a mapping"),
        ({"inner": {}}, "provider.inner: the key size is missing; expected a whole number of at least 1 and of at most 9"),
        ({"inner": {"size": 10}}, "provider.inner.size: expected a whole number of at least 1 and of at most 9, found the number 10"),
        ({"inner": {"size": 1}, "names": ["a", "toolong"]}, "provider.names[1]: Expected str of length <= 3"),
        ({"inner": {"size": 1}, "either": "x"}, "provider.either: expected a whole number or a list, found 'x'"),
        ({"inner": {"size": 1}, "x": 1}, "provider.x: unknown key 'x' of provider mine; expected one of inner, mode, names, either, anything"),
    ],
)  # fmt: skip
def test_section_of_a_plug_in_is_refused_with_its_key_path(raw, message):
    with pytest.raises(ConfigError) as caught:
        convert_section(raw, PlugIn, key="provider", owner="provider mine")
    assert str(caught.value) == message


def test_loading_a_job_without_provider_does_not_import_the_http_library():
    code = "import sys, batchchat.config as c; c.load_job(None); sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
