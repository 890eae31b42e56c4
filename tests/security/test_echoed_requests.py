"""Real runs against a server that repeats every request in its errors: nothing that was sent in secret is told."""

import asyncio
import base64
import html
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from batchchat.devserver import DevServer, Scenario
from batchchat.devserver.scenario import FAULTS, OPENAI_FAULTS
from tests.runs import BATCHCHAT, write_prompts

pytestmark = pytest.mark.process

KEY, HEADER, PASSWORD, PROXY, QUERY = (
    'sk-k3y/with+"signs"',
    "tok/en+0f&header",
    "pa/ss+w0rd%x",
    "pr0xy/pass+w0rd",
    "qu3ry+secret/x",
)
STOPPED = (0, 1, 4, 5)
# Few enough that answers come between them, as three refusals in a row stop a run.
SHARE = 0.03
FAULTY = {fault: SHARE for fault in FAULTS if not fault.startswith("stall")} | {
    "stall_before": 0.01,
    "stall_midway": 0.01,
}
DOORS: dict[str, list[dict[str, Any]]] = {
    "ai-engine": [
        {"nonce_refused": True},
        {"auth_refused": True},
        {"maintenance": True},
        {"redirect_to": f"/moved?token={quote(PASSWORD, safe='')}", "redirect_status": 307},
        {"quota_exhausted_after": 2, "rotate_after": 1},
        {"text_input_max_length": 3},
    ],
    "openai": [
        {"api_key": "another"},
        {"maintenance": True},
        {"redirect_to": f"/moved?token={quote(QUERY, safe='')}"},
        {"quota_exhausted_after": 2},
        {"rate_limit": "1/h", "rate_headers": True},
    ],
}


def spellings(secret: str) -> Iterator[str]:
    """A secret as it may stand in a file, and as what else reads it back."""
    plain = {secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), html.escape(secret)}
    plain |= {quote(secret), quote(secret, safe=""), quote(secret, safe="").lower(), secret.encode().hex()}
    for text in plain:
        yield text
        yield json.dumps(text)[1:-1]  # in JSON, once more
    for shift in range(3):
        yield base64.b64encode(b"x" * shift + secret.encode()).decode()[4:-4]


def secrets_sent(server: DevServer) -> dict[str, str]:
    """What went to the server and is nobody else's affair, by name."""
    sent = {"key": KEY, "header": HEADER, "password": PASSWORD, "proxy": PROXY, "query": QUERY}
    for number, request in enumerate(server.requests):
        if request.nonce:
            sent[f"nonce {number}"] = request.nonce
        for cookie in request.headers.get("cookie", "").split("; "):
            if cookie:
                sent[f"cookie {number}"] = cookie.partition("=")[2]
    return sent


def told(server: DevServer, texts: dict[str, str]) -> list[tuple[str, str, str]]:
    """Secrets in what a run said and left: where, which, how spelled."""
    found = []
    for secret, name in {secret: name for name, secret in secrets_sent(server).items()}.items():
        for spelled in set(spellings(secret)):
            found += [(where, name, spelled) for where, text in texts.items() if spelled in text]
    return found


async def run(folder: Path, *arguments: str, environ: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Exit code, and all that the run said and left behind, by name."""
    variables = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *BATCHCHAT, "run", *arguments, cwd=folder, env=variables | {"HOME": str(folder)} | environ,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 100)
    texts = {"stdout": out.decode(), "stderr": err.decode()}
    left = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    texts |= {str(path.relative_to(folder)): path.read_text(errors="replace") for path in left if path.name[0] != "_"}
    return process.returncode or 0, texts


def arguments_for(server: DevServer, protocol: str, form: str) -> tuple[list[str], dict[str, str]]:
    """A run that has a secret in each place that there is, and the environment that it needs."""
    address = server.base_url.removeprefix("http://")
    environ = {"SERVICE_KEY": KEY}
    more = ["_in.jsonl", "-o", "out.jsonl", "--header", f"X-Secret: Token {HEADER}", "-vv", "--log-format", form,
            "--metrics", "run.prom", "--proxy", f"http://me:{quote(PROXY, safe='')}@{address}"]  # fmt: skip
    if protocol == "openai":
        url = f"http://{address}/v1?k={quote(QUERY, safe='')}"
        more += ["--provider", "openai", "--model", "m", "--api-key-env", "SERVICE_KEY", "--base-url", url]
    else:
        more += ["--provider", "ai-engine", "--base-url", f"http://me:{quote(PASSWORD, safe='')}@{address}"]
    return more, environ


@pytest.mark.parametrize("protocol", DOORS)
async def test_no_fault_makes_a_run_tell_what_it_sent(tmp_path: Path, protocol: str) -> None:
    write_prompts(tmp_path / "_in.jsonl", 250)
    async with DevServer(Scenario(**FAULTY, echo_request=True, seed=2, rotate_after=20)) as server:
        for form in itertools.islice(itertools.cycle(["json", "text"]), 6):
            arguments, environ = arguments_for(server, protocol, form)
            limits = ["--retries", "1", "--timeout", "2s", "--idle-timeout", "2s", "--concurrency", "32"]
            code, texts = await run(tmp_path, *arguments, *limits, environ=environ)
            assert code in STOPPED, texts["stderr"][-2000:]
            assert "Traceback" not in texts["stderr"]
            assert told(server, texts) == []
            if code in (0, 1):
                break
        assert {"out.jsonl", "out.errors.jsonl", "out.run.json", "run.prom"} <= set(texts)
        met = {request.fault for request in server.chats}
        assert met >= set(FAULTS) - (OPENAI_FAULTS if protocol == "ai-engine" else set())
        assert_sent(server, protocol)


@pytest.mark.parametrize("protocol", DOORS)
async def test_no_door_makes_a_run_tell_what_it_sent(tmp_path: Path, protocol: str) -> None:
    repeated = 0
    limits = ["--retries", "0", "--max-retry-wait", "5s", "--concurrency", "2"]
    async with DevServer() as server:
        for number, door in enumerate(DOORS[protocol]):
            folder = tmp_path / str(number)
            folder.mkdir()
            write_prompts(folder / "_in.jsonl", 8)
            server.scenario = Scenario(**door, echo_request=True)
            arguments, environ = arguments_for(server, protocol, "json" if number % 2 else "text")
            code, texts = await run(folder, *arguments, *limits, environ=environ)
            assert code in (1, 4), (door, texts["stderr"])
            assert "Traceback" not in texts["stderr"]
            assert told(server, texts) == [], (door, texts["stderr"])
            assert any(request.fault for request in server.requests), door
            repeated += "x-secret" in texts["out.errors.jsonl"] + texts["stderr"]
        assert repeated > 1, "no message shows what the server repeated"
        assert_sent(server, protocol)


def assert_sent(server: DevServer, protocol: str) -> None:
    """The secrets did go out; else the test would tell nothing."""
    seen = "".join(f"{request.path} {request.headers}" for request in server.requests)
    basics = [base64.b64encode(f"me:{PROXY}".encode()).decode()]
    basics += [KEY, quote(QUERY)] if protocol == "openai" else [base64.b64encode(f"me:{PASSWORD}".encode()).decode()]
    for secret in (HEADER, *basics):
        assert secret in seen, secret
