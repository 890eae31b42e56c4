"""What a run is given to keep stays kept: services that repeat it in every way, and every artefact searched."""

import asyncio
import base64
import io
import json
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from batchchat.config import load_job
from batchchat.errors import ConfigError
from batchchat.progress import JsonProgress, LineProgress
from batchchat.providers.nonce_store import NonceStore, StoredNonce
from batchchat.results.spill import Spill
from batchchat.runner import run_job
from tests.runs import BATCHCHAT, write_prompts

KEY, VALUE, PASSWORD, QUERY, NONCE = (
    "sk-k3y/with+signs",
    "tok/en+0f&header",
    "pa/ss+w0rd%x",
    "qu3ry+secret",
    "n0nceabcdef",
)
# Of the answers, the last ones, which send a client elsewhere.
_MOVES = 2
SECRETS = (KEY, VALUE, PASSWORD, QUERY, NONCE)

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "json": lambda text: json.dumps(text).replace("/", "\\/"),
    "letters": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "percent": lambda text: quote(text, safe=""),
    "base64": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "html": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "hex": lambda text: text.encode().hex(),
    "cut": lambda text: "x" * 190 + text,
}


def response(status: int, body: bytes, *lines: str, kind: str = "application/json") -> bytes:
    head = [
        f"HTTP/1.1 {status} {'.'.join(SECRETS[:2])}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode() + body


def stream(*events: Any) -> bytes:
    body = "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body.encode()


def answers(told: str) -> list[bytes]:
    """Everything that a service can do wrong, with a text in each place that it has."""
    error = json.dumps({"error": {"message": told, "type": told, "code": told, "param": told}}).encode()
    site = json.dumps({"success": False, "code": told, "message": told, "data": {"status": 400}}).encode()
    page = f"<html><title>{told}</title><body>{told}</body></html>".encode()
    half = len(told) // 2
    deltas = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in ("It was ", told[:half], told[half:])]
    lives = [{"type": "live", "data": part} for part in ("It was ", told[:half], told[half:])]
    location = f"Location: http://{quote(told, safe='')}.example/{quote(told)}?token={quote(told)}"
    return [
        *(response(status, body) for status in (400, 404, 409, 413, 422, 500, 503) for body in (error, site)),
        response(502, page, kind="text/html"),
        response(200, page, kind="text/html"),
        response(400, told.encode(), f"X-Told: {told}", f"Retry-After: {told}", f"Set-Cookie: a={told}"),
        response(200, told.encode()),
        response(200, json.dumps({told: told}).encode()),
        stream(*deltas),  # cut: what had arrived is the error's partial text
        stream(*lives),
        stream(*deltas, {"error": {"message": told, "code": 500}}),
        stream(*lives, {"type": "error", "data": told}),
        stream({"choices": [{"index": 0, "delta": {"refusal": told}, "finish_reason": "content_filter"}]}, "[DONE]"),
        stream(f"{{{told}", f"[{told}"),
        f"{told} is no HTTP\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\n{told}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 99\r\n\r\n{told}".encode(),
        b"",
        # Last, as a chat that moves away asks this service nothing more.
        response(302, b"", location),
        response(308, b"", location),
    ]


class Echo:
    """Gives the next of its answers to each prompt, and notes what it was sent."""

    def __init__(self, given: list[bytes]) -> None:
        self.given, self.seen = given, b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.seen += head
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
            )
            await reader.readexactly(length)
            if b"start_session" in head:
                writer.write(response(200, json.dumps({"success": True, "restNonce": NONCE}).encode()))
            else:
                writer.write(self.given.pop(0) if self.given else b"")
            await writer.drain()
        writer.close()


@asynccontextmanager
async def echoing(given: list[bytes]) -> AsyncIterator[tuple[Echo, str]]:
    echo = Echo(given)
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        yield echo, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def found(text: str) -> list[str]:
    """The secrets that a text tells, in any spelling."""
    told = []
    for secret in SECRETS:
        spelled = {each(secret) for name, each in SPELLINGS.items() if name not in ("cut", "base64")}
        spelled |= {
            secret[:10],
            json.dumps(secret)[1:-1],
            quote(secret),
            SPELLINGS["letters"](secret).replace("\\", "\\\\"),
        }
        cores = {base64.b64encode(b"x" * shift + secret.encode()).decode()[4:-4] for shift in range(3)}
        told += [each for each in spelled | cores if each in text]
    return told


async def run_told(folder: Path, provider: dict[str, Any], count: int, **more: Any) -> str:
    """All that a run says at -vv, in both forms, and all that it leaves behind."""
    said = io.StringIO()
    write_prompts(folder / "in.jsonl", count)
    job = {"input": [str(folder / "in.jsonl")], "output": {"path": str(folder / "out.jsonl")}, "provider": provider,
           "retry": {"retries": 0}, "concurrency": 1, **more}  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    environ = {"SERVICE_KEY": KEY, "HEADER": VALUE}
    observers = [LineProgress(said.write, verbosity=2), JsonProgress(said.write, verbosity=2)]
    report = await run_job(load_job(str(folder / "job.json"), {}, environ), observers=observers, environ=environ)
    for observer in observers:
        observer.close()
    left = [path.read_text() for path in folder.glob("out*")]
    return "\n".join([said.getvalue(), repr(report), *left])


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("protocol", ["openai", "ai-engine"])
async def test_nothing_secret_is_told_whatever_a_service_repeats(tmp_path: Path, protocol: str, spelling: str) -> None:
    for number, secret in enumerate(SECRETS):
        given = answers(SPELLINGS[spelling](secret))
        count = len(given)
        folder = tmp_path / str(number)
        folder.mkdir()
        async with echoing(given) as (_echo, address):
            user = f"me:{quote(PASSWORD, safe='')}@"
            provider: dict[str, Any] = {"name": protocol, "headers": {"X-Auth": "Token ${HEADER}"}}
            if protocol == "openai":
                provider |= {
                    "model": "m",
                    "api_key_env": "SERVICE_KEY",
                    "base_url": f"http://{address}/v1?k={quote(QUERY)}",
                }
            else:
                provider["base_url"] = f"http://{user}{address}/"
            more = {"proxy": f"http://{user}{address}"} if protocol == "openai" and secret == PASSWORD else {}
            told = await run_told(folder, provider, count, nonce_cache=False, stop={"max_failures": count}, **more)
        sent = {"openai": (KEY, VALUE, QUERY, PASSWORD), "ai-engine": (VALUE, NONCE, PASSWORD)}[protocol]
        if secret in sent:
            assert found(told) == [], (secret, found(told))
        assert len(given) < _MOVES, f"{len(given)} of {count} answers were never asked for"


async def test_answer_is_stored_as_it_came(tmp_path: Path) -> None:
    """What is paid for is not changed, whatever stands in it; only messages are masked."""
    given = [
        stream(
            {"choices": [{"index": 0, "delta": {"content": f"your key is {KEY}"}, "finish_reason": "stop"}]}, "[DONE]"
        )
    ]
    async with echoing(given) as (_, address):
        provider = {"name": "openai", "model": "m", "api_key_env": "SERVICE_KEY", "base_url": f"http://{address}"}
        await run_told(tmp_path, provider, 1)
    assert json.loads((tmp_path / "out.jsonl").read_text())["response"] == f"your key is {KEY}"


async def test_answer_that_does_not_fit_its_schema_is_told_without_secrets(tmp_path: Path) -> None:
    text = json.dumps({"key": KEY})
    given = [stream({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}, "[DONE]")] * 3
    async with echoing(given) as (_, address):
        provider = {"name": "openai", "model": "m", "api_key_env": "SERVICE_KEY", "base_url": f"http://{address}"}
        told = await run_told(tmp_path, provider, 1, answer={"schema": {"properties": {"key": {"type": "integer"}}}})
    assert "is not of type 'integer'" in told
    assert found(told) == []


@pytest.mark.parametrize(
    "lines",
    [
        "provider: {name: openai, model: m, base_url: 'http://h', api_key: KEY}",
        "provider: {name: openai, model: m, base_url: 'http://h', api_key_env: KEY}",
        "provider: {name: openai, model: m, base_url: 'ftp://u:KEY@h'}",
        "provider: {name: openai, model: m, base_url: 'http://u:KEY@h:port'}",
        "provider: {name: openai, model: m, base_url: 'http://h?key=KEY', headers: {'bad name': KEY}}",
        "provider: {name: openai, model: m, base_url: 'http://h', headers: {Authorization: \"Bearer KEY\\n\"}}",
        "provider: {name: openai, model: m, base_url: 'http://h'}\nproxy: 'socks5://u:KEY@h'",
        "provider: {name: openai, model: m, base_url: 'http://h'}\nproxy: 'http://u:KEY@h:port'",
        "provider: {name: openai, model: m, base_url: 'http://h', api_key_command: 'printf KEY; exit 3'}",
        "provider: {name: ai-engine, base_url: 'http://h', token: KEY}",
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
async def test_job_with_a_secret_in_the_wrong_place_is_refused_without_it(
    tmp_path: Path, lines: str, command: str
) -> None:
    write_prompts(tmp_path / "in.jsonl", 1)
    (tmp_path / "job.yaml").write_text(lines.replace("KEY", KEY) + "\n")
    done = subprocess.run(
        [*BATCHCHAT, command, "in.jsonl", "-j", "job.yaml", "-o", "out.jsonl", *(["-vv", "--retries", "0"] if command == "run" else [])],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if command == "run":
        assert done.returncode in (1, 2, 4), done.stderr
    assert KEY[:6] not in done.stdout + done.stderr + "".join(path.read_text() for path in tmp_path.glob("out*"))
    assert "Traceback" not in done.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def no_umask() -> Any:
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.usefixtures("no_umask")
def test_nonce_files_are_the_users_alone(tmp_path: Path) -> None:
    """Whatever the umask, and where a file of a wider mode or a link lay in their place."""
    folder = tmp_path / "cache"
    store = NonceStore(str(folder), "http://h")
    store.write(StoredNonce(value="nonce-1", age_s=1.0))
    assert mode(folder) == 0o700
    (path,) = folder.glob("*.json")
    path.chmod(0o666)
    store.write(StoredNonce(value="nonce-2", age_s=0.0))
    assert {mode(each) for each in folder.iterdir()} == {0o600}
    other = tmp_path / "other"
    other.write_text("{}")
    path.unlink()
    path.symlink_to(other)
    store.write(StoredNonce(value="nonce-3", age_s=0.0))
    assert other.read_text() == "{}"
    assert not path.is_symlink()


@pytest.mark.usefixtures("no_umask")
def test_spilled_answers_are_the_users_alone_and_follow_no_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    trap = tmp_path / f"batchchat-spill-{os.getpid()}-1.jsonl"
    trap.symlink_to(target)
    spill = Spill([str(tmp_path)])
    spill.add([b'{"id":"q"}\n'])
    spill.close()
    assert not target.exists()
    assert [Path(path).name for path in spill.paths] == [f"batchchat-spill-{os.getpid()}-2.jsonl"]
    assert mode(Path(spill.paths[0])) == 0o600


def test_key_that_no_header_may_carry_is_told_by_its_variable(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 1)
    overrides = {"input": [str(tmp_path / "in.jsonl")], "output.path": str(tmp_path / "o"), "provider.name": "openai",
                 "provider.model": "m", "provider.base_url": "http://h", "provider.api_key_env": "K"}  # fmt: skip
    for key in (KEY + "\nX: y", KEY + "é", KEY + "\x7f"):
        with pytest.raises(ConfigError, match="environment variable K") as caught:
            asyncio.run(run_job(load_job(None, overrides), environ={"K": key}))
        assert KEY not in str(caught.value)


def test_check_runs_no_command_of_a_job_file(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 1)
    (tmp_path / "job.yaml").write_text(
        f"provider: {{name: openai, model: m, base_url: 'http://h', api_key_command: 'touch {tmp_path}/ran'}}\n"
    )
    done = subprocess.run(
        [*BATCHCHAT, "check", "in.jsonl", "-j", "job.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system ['touch ran']", "a: !!python/name:os.system x", "!!python/module:os {}",
     "a: !include /etc/passwd", "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c "
     "[*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]",
     "a: &a {<<: *a}", "concurrency: " + "9" * 6000, "a: " + "[" * 5000, "a: " + "{a: " * 3000],
)  # fmt: skip
def test_job_file_is_data_and_bounded(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError):
        load_job(str(tmp_path / "job.yaml"))
    assert not (tmp_path / "ran").exists()
