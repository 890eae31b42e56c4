"""Keys from a command and from the keyring: the first line, within limits, and no output in any message."""

import sys
import time
from types import SimpleNamespace

import pytest

from batchchat.errors import ConfigError
from batchchat.providers import keys
from batchchat.providers.keys import KeySource


def python(code: str) -> KeySource:
    return KeySource(command=(sys.executable, "-c", code))


@pytest.mark.parametrize(
    "code",
    [
        "print('key-1234')",
        "print('key-1234\\nlogin: me\\nurl: x')",
        "print('  key-1234 \\r')",
        "import sys; sys.stdout.write('key-1234')",
        "import os; print(os.environ['GIVEN'])",
        "import sys; print('noise', file=sys.stderr); print('key-1234')",
    ],
)
async def test_first_line_of_a_command_is_the_key(code: str) -> None:
    assert await python(code).ask({"GIVEN": "key-1234"}) == "key-1234"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("pass", "is empty"),
        ("print('\\nsecret-on-the-second-line')", "is empty"),
        ("print('secret-key'); raise SystemExit(3)", "exit code 3"),
        ("print('secret-ké')", "characters"),
        ("print('secret\\x00key')", "characters"),
        ("import sys; sys.stdout.buffer.write(b'secret\\xff')", "characters"),
        ("print('secret-' * 100_000)", "64 kB"),
        ("while True: print('secret-endless')", "64 kB"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
async def test_output_that_is_no_key_is_refused_without_being_told(code: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        await python(code).ask({})
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["/no/such/program", "no-such-program-here", "/etc", "a\0b"])
async def test_command_that_cannot_be_started_is_one_sentence(command: str) -> None:
    with pytest.raises(ConfigError, match="cannot be started"):
        await KeySource(command=(command,)).ask({})


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "import subprocess, sys; print('secret', flush=True); subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3)'])",
        "import sys, os, time; os.close(1); time.sleep(60)",
    ],
)
async def test_command_that_does_not_end_is_given_up(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a program that it started holds its output open."""
    monkeypatch.setattr(keys, "_LIMIT_S", 0.5)
    before = time.monotonic()
    with pytest.raises(ConfigError, match="did not end within"):
        await python(code).ask({})
    assert time.monotonic() - before < 30


async def test_command_reads_no_standard_input() -> None:
    """It may be the run's input."""
    assert await python("import sys; print('key-' + str(len(sys.stdin.read())))").ask({}) == "key-0"


async def test_no_other_source_is_asked() -> None:
    assert await KeySource(env="X").ask({"X": "key-1234"}) is None


def fake_keyring(monkeypatch: pytest.MonkeyPatch, answer) -> None:
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_password=answer))


async def test_keyring_is_asked_for_service_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_keyring(monkeypatch, lambda service, user: f"{service}-{user}-key")
    settings = SimpleNamespace(api_key_env=None, api_key_command=None, api_key_keyring="my/service/me")
    assert await keys.key_source(settings, default=KeySource()).ask({}) == "my/service-me-key"


def locked(service: str, user: str) -> str:
    raise RuntimeError("secret words of a backend")


@pytest.mark.parametrize(
    ("answer", "words"),
    [(lambda *_: None, "holds nothing for a/b"), (lambda *_: "", "is empty"), (locked, "cannot be asked")],
)
async def test_keyring_without_the_key_is_one_sentence(answer, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_keyring(monkeypatch, answer)
    with pytest.raises(ConfigError, match=words) as caught:
        await KeySource(keyring=("a", "b")).ask({})
    assert "secret" not in str(caught.value)


async def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match=r"batchchat\[keyring\]"):
        await KeySource(keyring=("a", "b")).ask({})
