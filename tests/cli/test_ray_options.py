"""What cannot run on a cluster is told in one sentence, before anything starts or is written."""

import os
import socket
from pathlib import Path

import pytest

from tests.runs import run, write_prompts

pytestmark = pytest.mark.process


def told(tmp_path: Path, *more: str, **environment: str) -> tuple[int, str]:
    """Exit code and message of a run; nothing was sent, and no results or parts were made."""
    prompts = write_prompts(tmp_path / "in.jsonl", 2)
    arguments = ("http://127.0.0.1:9", prompts, tmp_path / "out.jsonl", "--engine", "ray", *more)
    code, out, err = run(*arguments, env={**os.environ, **environment}, cwd=tmp_path)
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert not (tmp_path / "out.jsonl.parts").exists()
    assert not (tmp_path / "out.jsonl").exists() or (tmp_path / "out.jsonl").read_bytes() == b""
    return code, err


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--processes", "2"], "leave --processes out"),
        (["--rate-scope", "host"], "leave --rate-scope out"),
        (["--dedup", "--order", "input"], "leave --dedup or --order input out"),
        (["-o", "-"], "name a file with -o"),
        (["--ray-address", "ray://127.0.0.1:10001"], "HOST:PORT of the cluster's head"),
        (["--ray-address", "nonsense"], "HOST:PORT of the cluster's head"),
    ],
)
def test_what_cannot_be_combined(tmp_path, options, what):
    code, message = told(tmp_path, *options)
    assert code == 2
    assert what in message


def test_an_address_where_nobody_answers(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, message = told(tmp_path, "--ray-address", address)
    assert code == 2
    assert f"no Ray cluster can be used at {address} (" in message
    assert "--engine local" in message


def test_ray_that_is_not_installed(tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('no such thing')\n")
    code, message = told(tmp_path, PYTHONPATH=f"{tmp_path}")
    assert code == 2
    assert "pip install 'batchchat[ray]'" in message
