"""Servers that answer in any way but the agreed one: each prompt gets its answer or one error line, and no run dies."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.errors import ConfigError
from batchchat.runner import run_job
from tests.runs import read_lines, write_prompts

KEY, NONCE = "sk-k3y/with+signs", "n0ncen0nce"
Handler = Callable[["RawServer", asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


class RawServer:
    """Answers each request with the bytes it is told to, whatever they are."""

    def __init__(self, answer: "bytes | Handler", session: bytes | None = None) -> None:
        self.answer, self.chats = answer, 0
        self.session = session or plain(200, json.dumps({"success": True, "restNonce": NONCE}))
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "RawServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
                )
                await reader.readexactly(length)
                if b"start_session" in head.split(b"\r\n")[0]:
                    writer.write(self.session)
                else:
                    self.chats += 1
                    if callable(self.answer):
                        await self.answer(self, reader, writer, head)
                    else:
                        writer.write(self.answer)
                await writer.drain()


def plain(status: Any, body: str | bytes, *headers: str, length: Any = None) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(content) if length is None else length}"]
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + content


def stream(*events: Any) -> bytes:
    return plain(
        200,
        "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events),
        "Content-Type: text/event-stream",
    )


def end(**more: Any) -> dict[str, Any]:
    return {"type": "end", "data": json.dumps({"success": True, "reply": "hello", **more})}


def raw_end(text: str) -> str:
    return json.dumps({"type": "end", "data": text})


def choice(**more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop", **more}]}


def then(*steps: Any) -> Handler:
    """Writes bytes; ``close`` and ``reset`` end the connection, ``silence`` waits until the client leaves."""

    async def handle(
        server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        for step in steps:
            if step == "reset":
                writer.transport.abort()
            elif step == "close":
                writer.close()
            elif step == "silence":
                await reader.read()
            else:
                writer.write(step)
                await writer.drain()

    return handle


def forever(first: bytes, again: bytes) -> Handler:
    async def handle(
        server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        writer.write(first)
        while not writer.is_closing():
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0)

    return handle


async def ask(server: RawServer | str, folder: Path, provider: str = "ai-engine", count: int = 2, **settings: Any):
    """Runs some prompts; exit code, answers, errors and the text of every file of the run."""
    prompts, results = write_prompts(folder / "prompts.jsonl", count), folder / "results.jsonl"
    overrides: dict[str, Any] = {
        "input": [str(prompts)],
        "output.path": str(results),
        "provider.name": provider,
        "provider.base_url": server if isinstance(server, str) else server.url,
        "nonce_cache": False,
        "retry.retries": 0,
    }
    if provider == "openai":
        overrides |= {"provider.model": "m", "provider.api_key_env": "KEY"}
    overrides |= {key.replace("__", "."): value for key, value in settings.items()}
    report = await run_job(load_job(None, overrides), environ={"KEY": KEY})
    answers, errors = read_lines(results), read_lines(folder / "results.errors.jsonl")
    assert len(answers) + len(errors) == count or report.exit_code == 4, report
    told = "".join(path.read_text() for path in sorted(folder.glob("results*")))
    return report.exit_code, answers, errors, told


LONG = "9" * 5000
DEEP = "[" * 5000 + "]" * 5000
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

ANSWERED = {
    "extra is a list": ("ai-engine", stream(end(extra=[1]))),
    "extra is text": ("ai-engine", stream(end(extra="x"))),
    "usage is a list": ("ai-engine", stream(end(usage=[1]))),
    "usage is absurd": ("ai-engine", stream(raw_end(f'{{"success":true,"reply":"hello","usage":{{"prompt_tokens":{LONG}}}}}'))),
    "event with a huge number": ("ai-engine", stream(f'{{"type":"live","x":{LONG}}}', end())),
    "type is a list": ("ai-engine", stream({"type": ["x"]}, end())),
    "live data is a list": ("ai-engine", stream({"type": "live", "data": [1]}, end())),
    "new token with a line feed": ("ai-engine", stream(end(new_token="a\r\nX: y"))),
    "new token with half a pair": ("ai-engine", stream(raw_end('{"success":true,"reply":"hello","new_token":"a\\ud83d"}'))),
    "new token without end": ("ai-engine", stream(end(new_token="a" * 100_000))),
    "cookie without sense": ("ai-engine", stream(end()).replace(b"\r\n\r\n", b"\r\nSet-Cookie: =;;;,\xff; Max-Age=99999999999999999999\r\n\r\n", 1)),
    "an early 100": ("ai-engine", b"HTTP/1.1 100 Continue\r\n\r\n" + stream(end())),
    "closed behind the end": ("ai-engine", then(stream(end()).replace(b"Content-Length: ", b"Content-Length: 9"), "close")),
    "usage is text": ("openai", stream({**choice(), "usage": "x"}, "[DONE]")),
    "model is a number": ("openai", stream({**choice(), "model": 4})),
    "whole answer with a huge number": ("openai", plain(200, f'{{"choices":[{{"message":{{"content":"hello"}}}}],"n":{LONG}}}')),
    "finish reason is a list": ("openai", stream(choice(finish_reason=["x"]))),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERED)
async def test_answer_is_kept_whatever_stands_around_it(tmp_path: Path, case: str) -> None:
    provider, answer = ANSWERED[case]
    async with RawServer(answer) as server:
        code, answers, errors, _ = await ask(server, tmp_path, provider, concurrency=1)
    assert (code, errors) == (0, [])
    assert [line["response"] for line in answers] == ["hello"] * 2


FAILED = {
    "reply null": ("ai-engine", plain(200, '{"success":true,"reply":null}'), "incomplete"),
    "actions is text": ("ai-engine", plain(200, '{"success":true,"reply":"","actions":"x"}'), "incomplete"),
    "actions nested deeply": ("ai-engine", plain(200, '{"success":true,"reply":"","actions":[%s]}' % ("[" * 600 + "]" * 600)), "protocol"),
    "message is an object": ("ai-engine", plain(500, '{"success":false,"message":{"a":1}}'), "server"),
    "code is a list": ("ai-engine", plain(403, '{"code":["x"],"message":3}'), "auth"),
    "code is a huge number": ("ai-engine", plain(403, f'{{"code":{LONG}}}'), "auth"),
    "event nested deeply": ("ai-engine", stream('{"type":"end","data":%s}' % DEEP), "protocol"),
    "end holds no object": ("ai-engine", stream('{"type":"end","data":7}'), "protocol"),
    "error event of an object": ("ai-engine", stream({"type": "error", "data": {"a": 1}}), "server"),
    "a wait without end": ("ai-engine", plain(200, '{"success":false,"message":"rate limit, try again in %sh"}' % LONG[:400]), "rate_limit"),
    "choices is a number": ("openai", plain(200, '{"choices":3}'), "protocol"),
    "choices is an object": ("openai", plain(200, '{"choices":{"a":1}}'), "protocol"),
    "delta is text": ("openai", stream(choice(delta="x")), "protocol"),
    "message is a list": ("openai", plain(200, '{"choices":[{"message":["x"]}]}'), "protocol"),
    "tool calls is a number": ("openai", stream(choice(delta={"tool_calls": 3})), "incomplete"),
    "tool calls nested deeply": ("openai", plain(200, '{"choices":[{"message":{"tool_calls":[{"x":%s}]}}]}' % ("[" * 600 + "]" * 600)), "protocol"),
    "error is true": ("openai", stream({"error": True}), "server"),
    "error code no digit of ours": ("openai", plain(400, '{"error":{"code":"²²²"}}'), "invalid_request"),
    "error code of many digits": ("openai", plain(400, f'{{"error":{{"code":"{LONG}"}}}}'), "invalid_request"),
    "body nested deeply": ("openai", plain(200, '{"choices":%s}' % DEEP), "protocol"),
    "a list": ("openai", plain(200, "[1]"), "protocol"),
    "nothing": ("openai", plain(200, ""), "incomplete"),
    "a page": ("openai", plain(200, "<html>Welcome</html>"), "protocol"),
    "a page with 403": ("openai", plain(403, "<html>no</html>"), "blocked"),
    "a page with 503": ("ai-engine", plain(503, "<html>no</html>"), "server"),
    "a wrong path": ("openai", plain(404, "nope"), "invalid_request"),
    "no content": ("openai", b"HTTP/1.1 204 NC\r\n\r\n", "protocol"),
    "status 999": ("openai", plain(999, "x"), "server"),
    "status abc": ("openai", plain("abc", "x"), "protocol"),
    "another protocol": ("openai", then(b"SSH-2.0-OpenSSH_9\r\n", "close"), "protocol"),
    "a negative length": ("openai", plain(200, "x", length=-5), "protocol"),
    "two lengths": ("openai", plain(200, "abc", "Content-Length: 9"), "protocol"),
    "a length too long": ("ai-engine", then(plain(200, 'data: {"type":"li', length=500), "close"), "incomplete"),
    "garbage as a chunk's size": ("ai-engine", CHUNKED + b"zz\r\nabc\r\n", "protocol"),
    "a chunk beyond all size": ("openai", CHUNKED + b"f" * 20 + b"\r\nabc\r\n", "protocol"),
    "a header of 100 kB": ("ai-engine", plain(200, "x", "X-A: " + "y" * 100_000), "protocol"),
    "headers without end": ("ai-engine", forever(b"HTTP/1.1 200 OK\r\n", b"X-A: yyyyyyyy\r\n" * 50), "protocol"),
    "no gzip": ("ai-engine", plain(200, b"not gzip", "Content-Encoding: gzip"), "network"),
    "bytes without end": ("ai-engine", forever(CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n"), "protocol"),
    "one event without end": ("openai", forever(CHUNKED + b"6\r\ndata: \r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"), "protocol"),
    "reset before the head": ("ai-engine", then("reset"), "network"),
    "closed before the head": ("ai-engine", then("close"), "network"),
    "closed in the head": ("ai-engine", then(b"HTTP/1.1 20", "close"), "network"),
    "closed behind the head": ("openai", then(CHUNKED, "close"), "network"),
    "closed in the body": ("openai", then(CHUNKED + b"5\r\nabcde\r\n", "close"), "incomplete"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILED)
async def test_fault_of_a_server_is_one_error_line(tmp_path: Path, case: str) -> None:
    provider, answer, kind = FAILED[case]
    async with RawServer(answer) as server:
        code, answers, errors, _ = await ask(server, tmp_path, provider, max_response_bytes=500_000)
    assert code in (1, 4)
    assert answers == []
    assert {line["error"]["type"] for line in errors} == {kind}
    for line in errors:
        assert 0 < len(line["error"]["message"]) <= 600
        assert "\n" not in line["error"]["message"]


@pytest.mark.parametrize(
    "steps", [("silence",), (CHUNKED, "silence"), (CHUNKED + b'10\r\ndata: {"type":"l\r\n', "silence")]
)
@pytest.mark.parametrize("provider", ["ai-engine", "openai"])
async def test_silence_ends_in_a_timeout(tmp_path: Path, provider: str, steps: tuple) -> None:
    async with RawServer(then(*steps)) as server:
        code, _, errors, _ = await ask(server, tmp_path, provider, timeout__attempt="300ms", timeout__idle="200ms")
    assert code == 1
    assert {line["error"]["type"] for line in errors} == {"timeout"}


@pytest.mark.parametrize(
    "location", ["https://elsewhere.invalid/x", "http://[::1/x", "http://a:99999999/chat/completions", "", "/"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirected_post_stops_the_run_with_a_sentence(tmp_path: Path, status: int, location: str) -> None:
    async with RawServer(plain(status, "", f"Location: {location}")) as server:
        code, _, errors, _ = await ask(server, tmp_path, "openai", count=3, concurrency=1)
    assert code == 4
    assert all("redirects" in line["error"]["message"] for line in errors)


async def test_wait_told_in_prose_without_any_sense_does_not_pause_the_run(tmp_path: Path) -> None:
    """With ``--max-retry-wait 0`` any wait is made, and one without end would be made for ever."""
    absurd = plain(200, '{"success":false,"message":"rate limit, try again in %sh"}' % LONG[:400])
    async with RawServer(absurd) as server:
        code, _, errors, _ = await ask(server, tmp_path, count=1, retry__retries=1, retry__max_wait="0")
    assert code == 1
    assert [(line["error"]["type"], line["attempts"]) for line in errors] == [("rate_limit", 2)]


async def test_compressed_answer_counts_with_its_whole_length(tmp_path: Path) -> None:
    """A gzip bomb is stopped at the ceiling of an answer, as any long one."""
    bomb = gzip.compress(b"x" * 50_000_000)
    async with RawServer(plain(200, bomb, "Content-Encoding: gzip")) as server:
        _, _, errors, _ = await ask(server, tmp_path, max_response_bytes=1_000_000)
    assert {line["error"]["type"] for line in errors} == {"protocol"}
    assert "--max-response-bytes" in errors[0]["error"]["message"]


async def test_answer_of_20_megabytes_is_kept_whole(tmp_path: Path) -> None:
    text = "0123456789" * 2_000_000
    async with RawServer(stream(end(reply=text))) as server:
        code, answers, _, _ = await ask(server, tmp_path, count=1)
    assert code == 0
    assert answers[0]["response"] == text


@pytest.mark.parametrize("session", ['{"success":true}', '{"restNonce":null}', '{"restNonce":""}', '{"restNonce":"a b"}', '["x"]', "", "7",
                                     '{"restNonce":%s}' % LONG, "<html>x</html>"])  # fmt: skip
async def test_session_without_a_nonce_is_told_and_no_prompt_is_sent(tmp_path: Path, session: str) -> None:
    async with RawServer(stream(end()), plain(200, session)) as server:
        code, _, errors, _ = await ask(server, tmp_path)
    assert code == 1
    assert server.chats == 0
    assert all("nonce" in line["error"]["message"] for line in errors)


def _echo(status: int, *, html: bool = False) -> Handler:
    async def handle(
        server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        told = head.decode()
        page = (
            f"<html>{told}</html>"
            if html
            else json.dumps({"success": False, "message": told, "error": {"message": told}})
        )
        writer.write(plain(status, page))

    return handle


def _echo_bare(status: int) -> Handler:
    """The secret alone, once in each place it may stand, and cut by the length of a preview."""

    async def handle(
        server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        secret = next(
            line.rpartition(" ")[2]
            for line in head.decode().splitlines()
            if line.lower().startswith(("x-wp-nonce:", "authorization:"))
        )
        page = json.dumps({"a": f"{secret} {secret}"}).replace("/", "\\/") + " " * 3
        writer.write(
            plain(
                status, "x" * (200 - len(secret)) + " " + secret if status == 500 else page, f"Location: /?k={secret}"
            )
        )

    return handle


async def _echo_events(
    server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
) -> None:
    writer.write(
        stream(
            {"type": "live", "data": head.decode()},
            {"type": "error", "data": head.decode()},
            choice(delta={"content": head.decode()}, finish_reason=None),
        )
    )


ECHOES = {
    **{f"json {status}": _echo(status) for status in (400, 401, 403, 404, 429, 500)},
    **{f"page {status}": _echo(status, html=True) for status in (200, 400, 403, 503)},
    **{f"bare {status}": _echo_bare(status) for status in (200, 302, 400, 500)},
    "events": _echo_events,
}  # fmt: skip


@pytest.mark.parametrize("provider", ["ai-engine", "openai"])
@pytest.mark.parametrize("case", ECHOES)
async def test_secret_that_a_server_echoes_is_told_nowhere(tmp_path: Path, provider: str, case: str) -> None:
    headers = {"X-Token": "t0ken-of-mine", "Proxy-Authorization": "Basic dXNlcjpwYXNz"}
    async with RawServer(ECHOES[case]) as server:
        url = server.url.replace("://", "://someone:p4ssw0rd@") if provider == "ai-engine" else server.url
        _, answers, errors, told = await ask(url, tmp_path, provider, count=3, provider__headers=headers)
    assert answers == []
    assert len(errors) == 3
    for secret in (
        KEY,
        KEY.replace("/", "\\/"),
        KEY.replace("/", "\\\\/"),
        KEY[:6],
        NONCE,
        "t0ken-of-mine",
        "dXNlcjpwYXNz",
        "p4ssw0rd",
        "c29tZW9uZTpwNHNzdzByZA==",
    ):
        assert secret not in told


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X\nY": "b"},
        {"X Y": "b"},
        {"": "b"},
        {"Content-Length": "5"},
        {"transfer-encoding": "chunked"},
    ],
)
@pytest.mark.parametrize("provider", ["ai-engine", "openai"])
async def test_header_that_cannot_be_sent_is_refused_before_anything_is(
    tmp_path: Path, provider: str, headers: dict
) -> None:
    with pytest.raises(ConfigError, match="headers"):
        await ask("http://127.0.0.1:9", tmp_path, provider, provider__headers=headers)


async def test_connection_that_is_dropped_while_idle_costs_no_prompt(tmp_path: Path) -> None:
    """The server closes each connection after its answer without a word, as one does whose keep-alive time is over."""
    async with RawServer(then(stream(end()), "close")) as server:
        code, answers, _, _ = await ask(server, tmp_path, count=30, concurrency=3, retry__retries=5)
    assert code == 0
    assert len(answers) == 30


async def test_answer_before_the_request_is_read_is_taken(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(plain(413, "too long", "Connection: close"))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        code, _, errors, _ = await ask(url, tmp_path, "openai", provider__model="m" * 5_000_000)
    assert code == 1
    assert {line["error"]["type"] for line in errors} == {"invalid_request"}


async def test_forced_nonce_refusals_end_the_run_after_few_requests(tmp_path: Path) -> None:
    refusal = plain(403, '{"code":"rest_cookie_invalid_nonce","message":"Cookie check failed"}')
    async with RawServer(refusal) as server:
        code, _, errors, _ = await ask(server, tmp_path, count=40, concurrency=4)
    assert code == 4
    assert {line["error"]["type"] for line in errors} == {"auth"}
    assert server.chats <= 40
