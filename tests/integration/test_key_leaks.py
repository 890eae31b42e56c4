"""No key reaches anything that a run writes or says, whatever the service does with it."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import pytest

from batchchat.config import load_job
from batchchat.devserver import DevServer
from batchchat.errors import ConfigError
from batchchat.progress import JsonProgress, LineProgress
from batchchat.runner import run_job
from batchchat.summary_text import render_summary
from tests.runs import BATCHCHAT, assert_all_answered, finish, read_lines, serving, write_prompts

KEY = "sk-live/Zm9v+YmFy_0123456789"
STATUSES = [
    "200 OK",
    "302 Found",
    "400 Bad",
    "401 No",
    "403 No",
    "404 Gone",
    "408 Late",
    "429 Busy",
    "500 Broken",
    "503 Busy",
    "299 Odd",
]


class Echo:
    """A server that answers with a status and with everything that it was sent, in headers and body."""

    def __init__(self) -> None:
        self.status, self.form = "200 OK", "error"
        self.keys_seen = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r")[0])
            await reader.readexactly(length)
            self.keys_seen += KEY in unquote(head)
            writer.write(self._answer(head))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, head: str) -> bytes:
        told = " ".join(head.split())
        body = {
            "error": json.dumps({"error": {"message": told, "type": told, "code": told, "param": told}}),
            "page": f"<html><body>{told}</body></html>",
            "stream": "data: "
            + json.dumps({"choices": [{"delta": {"content": told}}]})
            + "\n\ndata: {broken "
            + told
            + "\n\n",
            "event": "data: " + json.dumps({"type": "error", "error": {"message": told}}) + "\n\n",
        }[self.form].encode()
        lines = [f"HTTP/1.1 {self.status}", f"Content-Length: {len(body)}", f"X-Echo: {told}", f"Location: http://x.example/{KEY}",
                 f"x-ratelimit-remaining-requests: {KEY}", f"Retry-After: {KEY}", "Connection: close"]  # fmt: skip
        return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Echo, str]]:
    echo = Echo()
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        yield echo, "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]


async def told_by(folder: Path, provider: dict[str, Any], *, env_file: bool) -> str:
    """Runs a job at -vv, told in both forms; all that it said and wrote."""
    job, said = folder / "job.yaml", io.StringIO()
    output = {"output": {"path": str(folder / "out.jsonl")}, "input": [str(folder / "in.jsonl")]}
    job.write_text(json.dumps({**output, "provider": provider, "retry": {"retries": 0}}))
    (folder / "keys.env").write_text(f"export SERVICE_KEY='{KEY}'\n")
    environ = {"PATH": os.environ["PATH"]} | ({} if env_file else {"SERVICE_KEY": KEY})
    loaded = load_job(str(job), {"env_file": str(folder / "keys.env")} if env_file else {}, environ)
    observers = [LineProgress(said.write, verbosity=2), JsonProgress(said.write, verbosity=2)]
    try:
        report = await run_job(loaded, observers=observers, environ=environ)
    finally:
        for observer in observers:
            observer.close()
    said.write("\n".join(render_summary(report, loaded, quiet=False, answers=3)))
    written = [path.read_text() for path in folder.glob("out*")]
    assert len(written) >= 2
    return "\n".join([said.getvalue(), *written])


def spellings(key: str) -> set[str]:
    return {key, key.replace("/", "\\/"), quote(key, safe=""), key[:12]}


@pytest.mark.parametrize("form", ["error", "page", "stream", "event"])
@pytest.mark.parametrize(
    "source", ["env", "env_file", "command", "query", "header", "azure", "endpoints", "responses", "keyring"]
)
async def test_no_key_is_told_whatever_comes_back(
    tmp_path: Path, source: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "in.jsonl", 1)
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_password=lambda *_: KEY))
    (tmp_path / "key.txt").write_text(f"{KEY}\nlogin: me\n")
    async with echoing() as (echo, url):
        echo.form = form
        keyless: dict[str, Any] = {"name": "openai", "model": "m", "base_url": url}
        base = {**keyless, "api_key_env": "SERVICE_KEY"}
        command = {"api_key_command": f"cat '{tmp_path}/key.txt'"}
        pair = [{"base_url": url, "api_key_env": "SERVICE_KEY"}, {"base_url": url, **command}]
        provider = {
            "env": base,
            "env_file": base,
            "command": {**keyless, **command},
            "query": {**keyless, "base_url": f"{url}/v1?token=${{SERVICE_KEY}}"},
            "header": {**keyless, "headers": {"X-Auth": "Token ${SERVICE_KEY}"}},
            "azure": {**base, "api_version": "2024-10-21"},
            "endpoints": {"name": "openai", "model": "m", "endpoints": pair},
            "responses": {**base, "api": "responses"},
            "keyring": {**keyless, "api_key_keyring": "service/me"},
        }[source]
        for status in STATUSES:
            echo.status = status
            told = await told_by(tmp_path, provider, env_file=source == "env_file")
            for secret in spellings(KEY):
                assert secret not in told, status
        assert echo.keys_seen


@pytest.mark.process
def test_run_as_a_command_tells_no_key_of_an_env_file(tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", 3)
    (tmp_path / "keys.env").write_text(f"MY_KEY='{KEY}'\nMY_MODEL=from-file\n")
    (tmp_path / "job.yaml").write_text("provider: {name: openai, model: '${MY_MODEL}', api_key_env: MY_KEY}\n")
    with serving(tmp_path, api_key=KEY) as server:
        arguments = ["-j", "job.yaml", "--base-url", server.base_url, "-o", "out.jsonl", "-vv", "in.jsonl"]
        for more, code in (([], 2), (["--env-file", "keys.env"], 0)):
            process = subprocess.Popen(
                [*BATCHCHAT, "run", *arguments, *more],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            found, out, err = finish(process)
            assert found == code, err
            assert KEY not in out + err
    assert_all_answered(tmp_path / "out.jsonl", range(3))
    assert {line["model"] for line in read_lines(tmp_path / "out.jsonl")} == {"from-file"}
    assert KEY not in "".join(path.read_text() for path in tmp_path.glob("out*"))


async def test_key_that_is_not_to_be_had_ends_a_run_before_it_begins(tmp_path: Path) -> None:
    """No file says that a run is going on, and nothing is asked where nothing is left to send."""
    write_prompts(tmp_path / "in.jsonl", 2)
    overrides = {
        "input": [str(tmp_path / "in.jsonl")],
        "output.path": str(tmp_path / "out.jsonl"),
        "provider.model": "m",
    }
    async with DevServer() as server:
        overrides |= {"provider.name": "openai", "provider.base_url": server.base_url}
        broken = load_job(None, {**overrides, "provider.api_key_command": "false"})
        with pytest.raises(ConfigError, match="exit code 1"):
            await run_job(broken, environ={})
        assert not (tmp_path / "out.run.json").exists()
        assert (await run_job(load_job(None, overrides), environ={})).exit_code == 0
        assert (await run_job(broken, environ={})).exit_code == 0
        assert len(server.chats) == 2
