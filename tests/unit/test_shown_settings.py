"""Settings as they stand in a summary: every one of them, and no secret."""

import json

import pytest

from batchchat.config import load_job
from batchchat.providers.address import masked_url
from batchchat.shown_settings import shown_settings

JOB = {"provider.name": "ai-engine", "provider.base_url": "https://user:s3cret@h.example/x?key=s3cret",
       "provider.headers.X-Key": "s3cret", "provider.headers.Authorization": "Bearer s3cret",
       "provider.headers.User-Agent": "mine/1", "proxy": "http://user:s3cret@p.example:3128",
       "output.path": "o.jsonl", "rate": ["5/s", "60/min"], "timeout.attempt": "30s"}  # fmt: skip


def test_no_secret_is_shown() -> None:
    shown = shown_settings(load_job(None, JOB))
    assert "s3cret" not in json.dumps(shown)
    assert shown["provider"]["headers"] == {"X-Key": "***", "Authorization": "***", "User-Agent": "mine/1"}
    assert shown["provider"]["base_url"] == "https://***@h.example/x?***"
    assert shown["proxy"] == "http://***@p.example:3128"


def test_no_secret_of_an_endpoint_is_shown() -> None:
    endpoint = {"base_url": "https://h/v1?key=s3cret", "headers": {"X-Key": "s3cret"}, "api_key_command": "echo s3cret"}
    job = load_job(None, {"provider.name": "openai", "provider.endpoints": [endpoint], "provider.model": "m"})
    shown = shown_settings(job)
    assert "s3cret" not in json.dumps(shown)
    assert shown["provider"]["endpoints"][0]["base_url"] == "https://h/v1?***"
    assert job.provider["endpoints"][0]["headers"]["X-Key"] == "s3cret"


def test_job_itself_is_left_as_it_is() -> None:
    job = load_job(None, JOB)
    shown_settings(job)
    assert job.provider["headers"]["X-Key"] == "s3cret"
    assert job.proxy == "http://user:s3cret@p.example:3128"


def test_settings_stand_under_their_keys_in_the_job_file() -> None:
    shown = shown_settings(load_job(None, JOB))
    assert shown["rate"] == ["5/s", "60/min"]
    assert shown["timeout"]["attempt"] == 30.0
    assert shown["output"]["path"] == "o.jsonl"
    assert shown["concurrency"] == 16
    assert json.loads(json.dumps(shown)) == shown


def test_key_is_shown_by_the_name_of_its_variable_only() -> None:
    job = load_job(None, {"provider.name": "openai", "provider.base_url": "http://h", "provider.api_key_env": "MY_KEY"})
    assert shown_settings(job)["provider"]["api_key_env"] == "MY_KEY"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h.example/v1", "http://h.example/v1"),
        ("http://u@h.example", "http://***@h.example"),
        ("http://u:a@b@h.example:80/x", "http://***@h.example:80/x"),
        ("https://h.example/?a=s3cret", "https://h.example/?***"),
        ("u:p@h.example:80", "***@h.example:80"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://[bad", "***"),
    ],
)
def test_address_is_shown_without_names_and_passwords(url: str, shown: str) -> None:
    assert masked_url(url) == shown
