"""``batchchat serve`` as users start it: alone, and around a command."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchchat.cli.serve import command
from batchchat.errors import ConfigError

SERVE = [sys.executable, "-m", "batchchat", "serve", "--port", "0"]
# Asks the server it finds in its environment, says so, and waits for a signal.
ASKING = """
import os, signal, sys, urllib.request
def leave(number, frame):
    print("signal", number, flush=True)
    sys.exit(9)
signal.signal(signal.SIGINT, leave)
signal.signal(signal.SIGTERM, leave)
print(urllib.request.urlopen(os.environ["BATCHCHAT_BASE_URL"] + "/healthz").read().decode(), flush=True)
signal.pause()
"""


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERVE, *arguments], check=False, capture_output=True, text=True, timeout=60)


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [*SERVE, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_prints_its_address_once_ready_and_ends_cleanly_on_a_signal(number: int, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with started("--log", str(log), "--set", "models=[m]") as child:
        line = json.loads(child.stdout.readline())
        assert line.keys() == {"base_url"}
        with urllib.request.urlopen(line["base_url"] + "/v1/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "m"
        assert [json.loads(each)["path"] for each in log.read_text().splitlines()] == ["/v1/models"]
        child.send_signal(number)
        assert child.communicate(timeout=30) == ("", "")
        assert child.returncode == 0


def test_signal_ends_it_while_an_answer_stalls() -> None:
    with started("--set", "stall_before=1", "--log", "/dev/stdout") as child:
        address = json.loads(child.stdout.readline())["base_url"].removeprefix("http://").split(":")
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
        with socket.create_connection((address[0], int(address[1]))) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n"
                % (":".join(address).encode(), len(body))
                + body
            )
            assert json.loads(child.stdout.readline())["fault"] == "stall_before"
            child.send_signal(signal.SIGTERM)
            assert child.communicate(timeout=30) == ("", "")
        assert child.returncode == 0


def test_log_tells_the_end_of_each_answer_where_asked(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with started("--log", str(log), "--log-ends") as child:
        base_url = json.loads(child.stdout.readline())["base_url"]
        with urllib.request.urlopen(base_url + "/v1/models") as answer:
            answer.read()
        child.terminate()
        child.communicate(timeout=30)
    request, end = (json.loads(line) for line in log.read_text().splitlines())
    assert end == {"kind": "end", "number": request["number"], "time_s": end["time_s"], "delivered": True}
    assert end["time_s"] >= request["time_s"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_runs_with_the_address_and_gets_the_signals(number: int) -> None:
    """Its output is all there is, and its exit code is that of serve."""
    with started("--", sys.executable, "-c", ASKING) as child:
        assert child.stdout.readline() == '{"status":"ok"}\n'
        child.send_signal(number)
        assert child.communicate(timeout=30) == (f"signal {number:d}\n", "")
        assert child.returncode == 9


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(0)", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)  # fmt: skip
def test_exit_code_is_the_commands(code: str, expected: int) -> None:
    done = serve("--", sys.executable, "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")


def test_command_that_is_not_there_is_told() -> None:
    done = serve("no-such-command-here")
    assert done.returncode == 127
    assert done.stderr == "batchchat: no-such-command-here: the command cannot be run: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "host: '0.0.0.0' can be reached from other machines, expected a loopback address"),
        (["--set", "latensy_ms=1"], "unknown scenario key 'latensy_ms', did you mean 'latency_ms'?"),
        (["--scenario", "/nowhere/x.yaml"], "/nowhere/x.yaml: the scenario cannot be read: No such file or directory"),
        (["--log", "/dev/null/x.log"], "the log '/dev/null/x.log' cannot be written: Not a directory"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(command, ["--port", "0", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(sentence)
    assert result.output == ""


def test_other_backends_are_not_offered() -> None:
    result = CliRunner().invoke(command, ["--backend", "remote"])
    assert result.exit_code == 2
    assert "'echo', 'local'" in result.output


def test_a_model_is_for_the_local_backend_alone() -> None:
    result = CliRunner().invoke(command, ["--model", "m.gguf"])
    assert result.exit_code == 2
    assert "only --backend local runs a model" in result.output


def test_options_after_the_command_belong_to_it() -> None:
    done = serve(sys.executable, "-c", "import sys; print(sys.argv[1:])", "--port", "x")
    assert done.stdout == "['--port', 'x']\n"
