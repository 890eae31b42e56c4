"""The development server serves this machine: no page of another site, no one from elsewhere without the token."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError
from batchchat.web_guard import Guard, checked_token
from tests.runs import BATCHCHAT

TOKEN = "0123456789abcdef0123"
BODY = b'{"model": "echo", "messages": [{"role": "user", "content": "hi"}]}'


async def sent(url: str, head: str, body: bytes = b"") -> bytes:
    """All that comes back for raw bytes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    with contextlib.suppress(OSError):
        writer.write(head.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + body)
        await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


async def asked(url: str, host: str, *lines: str, method: str = "POST") -> int:
    """Status of a chat request with those headers."""
    head = "".join(f"{line}\n" for line in (f"Host: {host}", *lines))
    request = f"{method} /v1/chat/completions HTTP/1.1\n{head}Content-Length: {len(BODY)}\nConnection: close\n\n"
    return int((await sent(url, request, BODY)).split()[1])


async def test_host_must_name_this_machine() -> None:
    async with DevServer() as server:
        port = urlsplit(server.base_url).port
        for name in (
            f"127.0.0.1:{port}",
            f"localhost:{port}",
            f"LOCALHOST:{port}",
            f"[::1]:{port}",
            f"127.9.9.9:{port}",
            "127.0.0.1",
            "localhost",
            f"localhost:{port + 1}",
        ):
            assert await asked(server.base_url, name) == 200, name
        before = server.request_count
        for name in (
            f"evil.example:{port}", "evil.example", "", "localhost:port",
            f"127.0.0.1.evil.example:{port}", f"localhost.evil.example:{port}", f"localhost@evil.example:{port}",
            f"evil.example#localhost:{port}", f"0.0.0.0:{port}", f"[::]:{port}", f"192.168.0.1:{port}",
            f"localhost:{port}/x", f"user@localhost:{port}", "[::1", f"localhost:{port}, evil.example",
        ):  # fmt: skip
            assert await asked(server.base_url, name) in (400, 421), name
        assert server.request_count == before


async def test_pages_of_other_sites_may_not_use_it() -> None:
    async with DevServer() as server:
        host = urlsplit(server.base_url).netloc
        own = f"http://{host}"
        assert await asked(server.base_url, host, f"Origin: {own}") == 200
        assert await asked(server.base_url, host, "Sec-Fetch-Site: same-origin", f"Origin: {own}") == 200
        assert await asked(server.base_url, host, "Sec-Fetch-Site: none") == 200
        for lines in (
            ["Origin: http://evil.example"], ["Origin: null"], ["Origin: "], [f"Origin: {own}.evil.example"],
            ["Origin: http://localhost:1"], ["Origin: file://"], ["Sec-Fetch-Site: cross-site"],
            ["Sec-Fetch-Site: same-site"], ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"],
            [f"Origin: {own}", "Sec-Fetch-Site: cross-site"],
        ):  # fmt: skip
            assert await asked(server.base_url, host, *lines) == 403, lines
            assert await asked(server.base_url, host, *lines, method="OPTIONS") == 403, lines


async def test_no_answer_lets_other_sites_read_it() -> None:
    async with DevServer() as server:
        host = urlsplit(server.base_url).netloc
        for method, path in (("POST", "/v1/chat/completions"), ("OPTIONS", "/v1/models"), ("GET", "/wp-json/")):
            head = f"{method} {path} HTTP/1.1\nHost: {host}\nContent-Length: {len(BODY)}\nConnection: close\n\n"
            assert b"access-control-allow-origin" not in (await sent(server.base_url, head, BODY)).lower()


async def test_scenario_may_let_every_host_in() -> None:
    async with DevServer(Scenario(any_host=True)) as server:
        assert await asked(server.base_url, "chat.example.org", "Origin: https://chat.example.org") == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org"])
def test_other_addresses_need_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines, expected a loopback address"):
        DevServer(host=host)
    DevServer(host=host, token=TOKEN)


async def test_token_is_needed_for_every_request_and_taken_in_three_ways() -> None:
    async with DevServer(host="0.0.0.0", token=TOKEN) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        for line in (f"Authorization: Bearer {TOKEN}", f"authorization: bearer {TOKEN}", f"api-key: {TOKEN}",
                     f"X-Batchchat-Token: {TOKEN}"):  # fmt: skip
            assert await asked(server.base_url, "models.example.lan", line) == 200, line
        for line in ("X: y", "Authorization: Bearer ", f"Authorization: Bearer {TOKEN[:-1]}", f"Authorization: {TOKEN}",
                     f"Authorization: Basic {TOKEN}", f"Authorization: Bearer {TOKEN}x", "Authorization: Bearer é"):  # fmt: skip
            assert await asked(server.base_url, "models.example.lan", line) == 401, line
        assert await asked(server.base_url, "x", f"api-key: {TOKEN}", "Origin: http://evil.example") == 403
        health = await sent(server.base_url, "GET /healthz HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert health.startswith(b"HTTP/1.1 401")


async def test_token_stands_beside_the_key_of_a_scenario() -> None:
    async with DevServer(Scenario(api_key="the-services-key"), token=TOKEN) as server:
        host = urlsplit(server.base_url).netloc
        lines = ["Authorization: Bearer the-services-key", f"X-Batchchat-Token: {TOKEN}"]
        assert await asked(server.base_url, host, *lines) == 200
        assert await asked(server.base_url, host, lines[0]) == 401
        assert await asked(server.base_url, host, lines[1]) == 401


@pytest.mark.parametrize(
    ("value", "why"),
    [(None, "is not set"), ("  ", "is not set"), ("short", "at least 16"), ("with space 0123456789", "no HTTP header"),
     ("é" * 20, "no HTTP header"), ("a\nb" * 10, "no HTTP header")],
)  # fmt: skip
def test_token_that_is_none_is_told_without_it(value: str | None, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        checked_token(value, "TOKEN")
    assert not (value or "").strip() or value not in str(caught.value)


@given(st.dictionaries(st.sampled_from(["Host", "Origin", "Sec-Fetch-Site", "Authorization", "api-key"]), st.text()))
@settings(max_examples=300)
def test_guard_judges_any_headers_without_raising(headers: dict[str, str]) -> None:
    assert Guard("127.0.0.1", TOKEN).refusal("POST", headers) is not None
    refusal = Guard("127.0.0.1").refusal("POST", headers)
    assert refusal is not None or headers["Host"].lower().startswith(("127.", "localhost", "[::1]"))


MALFORMED: dict[str, Any] = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "no number": b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: many\r\n\r\n",
    "length and chunked": b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "bad chunk": b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "bad chunk later": b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n-1\r\n",
    "cut body": b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 500\r\n\r\n{",
    "bad gzip": b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "bad deflate": b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Encoding: deflate\r\nContent-Length: 5\r\n\r\nabcde",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : {host}\r\n\r\n",
    "long line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: {host}\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: {host}\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)) + b"\r\n",
    "bad target": b"GET http://[::1/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "bad query": b"GET /?rest_route=%ff%fe&&==%zz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    "connect": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "bad cookie": b"POST /wp-json/mwai/v1/start_session HTTP/1.1\r\nHost: {host}\r\nCookie: =;;\xff==a\r\nConnection: close\r\n\r\n",
    "expectation": b"POST / HTTP/1.1\r\nHost: {host}\r\nExpect: the-impossible\r\nContent-Length: 2\r\n\r\n{}",
    "upgrade": b"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "header that is no UTF-8": b"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n",
    "JSON too deep": b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n" + b"[" * 100_000,
}  # fmt: skip


@pytest.mark.process
def test_malformed_requests_print_nothing_and_the_server_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*BATCHCHAT, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        base_url = json.loads(process.stdout.readline())["base_url"]
        host = urlsplit(base_url).netloc
        for name, raw in MALFORMED.items():
            with socket.create_connection(host.split(":"), 10) as connection, contextlib.suppress(OSError):
                connection.sendall(raw.replace(b"{host}", host.encode()))
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := connection.recv(1 << 16):
                    answer += piece
                assert not answer.startswith(b"HTTP/1.1 5"), name
                assert b"Traceback" not in answer, name
        assert asyncio.run(asked(base_url, host)) == 200
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert (out, err) == ("", "")


@pytest.mark.process
def test_serve_takes_its_token_from_a_variable_and_tells_it_nowhere(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [*BATCHCHAT, "serve", "--port", "0", "--host", "0.0.0.0", "--log", str(log)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "host: '0.0.0.0' can be reached from other machines, expected a loopback address" in refused.stderr
    script = (
        "from urllib.request import *; import os, sys, json\n"
        "def ask(**more):\n"
        "    url = os.environ['BATCHCHAT_BASE_URL'] + '/v1/models'\n"
        "    try: return urlopen(Request(url, headers=more)).status\n"
        "    except OSError as error: return error.code\n"
        "print(ask(), ask(Authorization='Bearer ' + os.environ['SERVE_TOKEN']))\n"
    )
    done = subprocess.run(
        [*command, "--token-env", "SERVE_TOKEN", "--", BATCHCHAT[0], "-c", script],
        capture_output=True, text=True, check=False, env={**os.environ, "SERVE_TOKEN": TOKEN},
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("401 200\n", "", 0)
    assert TOKEN not in log.read_text()
