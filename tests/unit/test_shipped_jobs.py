"""The jobs and sample inputs that ship: each is valid, and its input has no fault."""

from pathlib import Path

import pytest

from batchchat.config import load_job, provider_config
from batchchat.prompts import PromptReader
from batchchat.records import Prompt

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))


def test_the_promised_jobs_are_there():
    assert {"sample.yaml", "nightly.yaml", "openai.yaml", "compare-models.yaml"} <= {job.name for job in JOBS}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_loads_without_any_variable_set(path):
    job = load_job(str(path), environ={})
    provider, settings = provider_config(job)
    assert provider.kind == job.provider["name"]
    addresses = [settings.base_url] if settings.base_url else [each.base_url for each in settings.endpoints]
    assert all(address.startswith("http") for address in addresses)
    assert job.output.path.startswith("results/")


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_takes_its_service_from_the_development_server(path):
    job = load_job(str(path), environ={"BATCHCHAT_BASE_URL": "http://127.0.0.1:1"})
    first = job.provider if "base_url" in job.provider else job.provider["endpoints"][0]
    assert first["base_url"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_reads_its_input_without_a_fault(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    items = list(PromptReader(load_job(str(path), environ={}).input_settings()))
    assert len(items) >= 6
    assert [item for item in items if not isinstance(item, Prompt)] == []


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_points_editors_to_the_schema_beside_it(path):
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=./job.schema.json\n")
    assert (path.parent / "job.schema.json").is_file()


def test_every_sample_input_is_used_by_a_job():
    jobs = [load_job(str(path), environ={}) for path in JOBS]
    used = {Path(name).name for job in jobs for name in job.input}
    used |= {Path(job.prompt.examples.path).name for job in jobs if job.prompt.examples is not None}
    assert used == {path.name for path in (ROOT / "sample_inputs").iterdir()}


def test_models_are_compared_on_the_same_lines(monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = load_job("jobs/compare-models.yaml", environ={}).input_settings()
    prompts = list(PromptReader(settings))
    assert [prompt.id for prompt in prompts[:4]] == [
        "wp-1/plain@gpt-4o-mini",
        "wp-1/plain@gpt-4o",
        "wp-1/steps@gpt-4o-mini",
        "wp-1/steps@gpt-4o",
    ]
    assert len(prompts) == 24
    assert [message["role"] for message in prompts[2].messages] == ["user", "assistant"] * 2 + ["user"]
    assert all("step by step" in message["content"] for message in prompts[2].messages[::2])
