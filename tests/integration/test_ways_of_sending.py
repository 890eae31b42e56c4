"""A request goes past the session or through it, and nobody can tell by what is sent or by what comes of it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from batchchat.errors import ProviderError
from batchchat.providers import http
from batchchat.providers.ai_engine import AIEngine, AIEngineConfig
from batchchat.providers.base import ProviderContext
from batchchat.providers.http import HttpClient
from tests.integration.test_bad_servers import RawServer, choice, plain, stream, then
from tests.integration.test_bad_servers import ask as run
from tests.wire import HELLO, ask, whole

ANSWER = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}
WAYS = ["past the session", "through it"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "through it":
        monkeypatch.setattr(http, "can_send_directly", lambda session: False)
    return request.param


@pytest.fixture
def session_posts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a session is asked to post to."""
    asked: list[str] = []
    original = HttpClient._sent_by_session

    async def noted(self: HttpClient, url: str, *more: Any) -> Any:
        asked.append(url)
        return await original(self, url, *more)

    monkeypatch.setattr(HttpClient, "_sent_by_session", noted)
    return asked


async def test_ordinary_request_goes_past_the_session(session_posts: list[str]) -> None:
    completion, _ = await ask(whole(ANSWER))
    assert completion.text == "hello"
    assert session_posts == []


@pytest.mark.parametrize("headers", [{}, {"X-Own": "1", "Accept": "text/event-stream"}, {"User-Agent": "mine/1"}])
async def test_same_request_is_sent_either_way(headers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, direct = await ask(whole(ANSWER), headers=headers, path="/v1?key=a%20b")
    monkeypatch.setattr(http, "can_send_directly", lambda session: False)
    _, session = await ask(whole(ANSWER), headers=headers, path="/v1?key=a%20b")
    sent = [
        [(path, {**told, "host": "here"}, body) for path, told, body in wire.requests] for wire in (direct, session)
    ]
    assert sent[0] == sent[1]
    assert sent[0][0][1]["user-agent"].startswith(headers.get("User-Agent", "batchchat/"))


ODD_ANSWERS: dict[str, Any] = {
    "status": plain(503, "no", "Retry-After: 3"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "closed before": then("close"),
    "closed in the head": then(b"HTTP/1.1 200 OK\r\nContent-", "close"),
    "closed in the body": then(plain(200, "{", length=99), "close"),
    "reset": then("reset"),
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + stream(choice()),
    "until the end": then(b"HTTP/1.1 200 OK\r\n\r\n" + stream(choice()).partition(b"\r\n\r\n")[2], "close"),
    "no body": plain(204, ""),
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "moved": plain(307, "", "Location: https://example.org/"),
    "too many headers": plain(200, "{}", *(f"X-{number}: {'x' * 8000}" for number in range(9))),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
async def test_same_comes_of_odd_answers_either_way(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for number, direct in enumerate((True, False)):
        if not direct:
            monkeypatch.setattr(http, "can_send_directly", lambda session: False)
        folder = tmp_path / str(number)
        folder.mkdir()
        async with RawServer(ODD_ANSWERS[name]) as server:
            code, answers, errors, _ = await run(server, folder, "openai", retry__retries=0, count=1)
            place = server.url.removeprefix("http://")
        lines = json.loads(json.dumps([line.get("error") or line.get("response") for line in answers + errors]))
        told.append((code, json.dumps(lines).replace(place, "HOST")))
    assert told[0] == told[1]


async def test_silence_and_refused_connections_are_told_alike(way: str) -> None:
    context = ProviderContext(environ={"KEY": "sk-1"}, attempt_s=0.1)
    async with RawServer(then("silence")) as server:
        error, _ = await ask(whole(ANSWER), context=context, base_url=server.url)
    assert (error.type, error.message.endswith("(--timeout)")) == ("timeout", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiohttp.TCPConnector, "_create_connection", _never)
        slow = ProviderContext(environ={"KEY": "sk-1"}, connect_s=0.1)
        error, _ = await ask(whole(ANSWER), context=slow)
    assert (error.type, "--connect-timeout" in error.message) == ("network", True)


async def _never(*_: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def test_user_name_in_the_address_is_sent_as_basic_authorization(way: str) -> None:
    async with RawServer(plain(200, json.dumps(ANSWER))) as server:
        heads: list[bytes] = []

        async def noted(server: RawServer, reader: Any, writer: Any, head: bytes) -> None:
            heads.append(head)
            writer.write(plain(200, json.dumps({"success": True, "reply": "hello"})))

        server.answer = noted
        config = AIEngineConfig(base_url=server.url.replace("//", "//me:secret@"), stream=False)
        async with AIEngine(config, ProviderContext()) as provider:
            assert (await provider.complete(HELLO)).text == "hello"
    assert b"Authorization: Basic bWU6c2VjcmV0\r\n" in heads[0]


async def test_cookie_that_a_later_answer_sets_goes_back_from_then_on(way: str) -> None:
    heads: list[bytes] = []

    async def baking(server: RawServer, reader: Any, writer: Any, head: bytes) -> None:
        heads.append(head)
        cookie = ["Set-Cookie: visit=abcdef123456; Path=/; HttpOnly"] if len(heads) == 2 else []
        writer.write(plain(200, json.dumps({"success": True, "reply": "hello"}), *cookie))

    async with RawServer(baking) as server:
        async with AIEngine(AIEngineConfig(base_url=server.url), ProviderContext()) as provider:
            for _ in range(4):
                await provider.complete(HELLO)
    assert [b"Cookie: visit=abcdef123456" in head for head in heads] == [False, False, True, True]


@pytest.mark.parametrize("size", [1 << 10, 3 << 20])
async def test_request_of_any_size_arrives_whole(size: int, way: str) -> None:
    request = type(HELLO)(messages=[{"role": "user", "content": "x" * size}], given=1)
    completion, wire = await ask(whole(ANSWER), request=request)
    assert completion.text == "hello"
    assert len(wire.requests[0][2]["messages"][0]["content"]) == size


async def test_connection_serves_again_and_is_closed_after_a_fault(way: str) -> None:
    """Two answers and a refusal on one connection; an answer that was cut ends it."""
    connections = 0

    class Counting(RawServer):
        async def _converse(self, *more: Any) -> None:
            nonlocal connections
            connections += 1
            await super()._converse(*more)

    answers = [
        plain(200, json.dumps(ANSWER)),
        plain(500, "no"),
        stream(choice()),
        stream({"choices": []}),
        stream(choice()),
    ]

    async def next_one(server: RawServer, reader: Any, writer: Any, head: bytes) -> None:
        writer.write(answers.pop(0))

    from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig

    async with Counting(next_one) as server:
        async with OpenAIChat(OpenAIChatConfig(base_url=server.url, model="m"), ProviderContext()) as provider:
            for fault in (False, True, False, True, False):
                try:
                    await provider.complete(HELLO)
                    assert not fault
                except ProviderError:
                    assert fault
    assert connections <= 3


async def test_session_that_is_watched_or_stood_in_for_sends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with aiohttp.ClientSession() as session:
        assert http.can_send_directly(session)
    async with aiohttp.ClientSession(trace_configs=[aiohttp.TraceConfig()]) as traced:
        assert not http.can_send_directly(traced)

    async def stand_in(self: Any, *_: Any, **__: Any) -> None:
        raise aiohttp.ClientConnectionError("not today")

    for name in ("_request", "post"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aiohttp.ClientSession, name, stand_in)
            error, wire = await ask(whole(ANSWER))
            assert (error.type, wire.requests) == ("network", [])
    _, wire = await ask(whole(ANSWER))
    assert len(wire.requests) == 1, "and afterwards again by itself"


async def test_aiohttp_of_another_shape_is_left_to_its_session(
    monkeypatch: pytest.MonkeyPatch, session_posts: list[str]
) -> None:
    async def connect(self: Any, request: Any, traces: Any, timeout: Any, more: Any) -> None:
        raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiohttp.TCPConnector, "connect", connect)
        async with aiohttp.ClientSession() as session:
            assert not http.can_send_directly(session)
