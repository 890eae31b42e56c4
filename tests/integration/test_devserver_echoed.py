"""``echo_request``: every error that has a text tells the request back, and no answer does."""

import html
from typing import Any

import aiohttp
import pytest

from batchchat.devserver import DevServer, Scenario
from batchchat.devserver.scenario import FAULTS

SECRET = 'k3y/with"quotes'
ERRORS = [
    "error_429",
    "error_500",
    "error_502_html",
    "error_503",
    "html_200",
    "html_403",
    "error_event",
    "error_in_stream",
]
ASKED = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    "/v1/responses": {"model": "m", "input": [{"role": "user", "content": "hello"}]},
    "/wp-json/mwai-ui/v1/chats/submit": {"botId": "default", "newMessage": "hello"},
}  # fmt: skip
DOORS: list[dict[str, Any]] = [
    {"maintenance": True},
    {"quota_exhausted_after": 0},
    {"auth_refused": True},
    {"down_until_request": 999},
]


async def told(server: DevServer, path: str, *, stream: bool = True) -> str:
    """The body of an answer, as who unescapes it reads it."""
    headers = {"X-Secret": SECRET}
    if path.startswith("/wp-json"):
        headers["X-WP-Nonce"] = server.nonce.current
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.base_url + path, json=ASKED[path] | {"stream": stream}, headers=headers) as response,
    ):
        text = html.unescape(await response.text()).replace("\\/", "/").replace('\\"', '"').replace("\\\\", "\\")
    return text.replace("\\", "")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ASKED)
async def test_every_error_tells_the_request_back(path: str, stream: bool) -> None:
    async with DevServer() as server:
        given = [{fault: 1.0} for fault in ERRORS] + DOORS
        for settings in given:
            server.scenario = Scenario(**settings)
            assert SECRET not in await told(server, path, stream=stream), settings
            server.scenario = Scenario(**settings, echo_request=True)
            text = await told(server, path, stream=stream)
            assert f"x-secret: {SECRET}" in text, settings
            assert "hello" in text
            if path.startswith("/wp-json"):
                assert f"x-wp-nonce: {server.nonce.current}" in text


@pytest.mark.parametrize("path", ASKED)
async def test_answers_do_not(path: str) -> None:
    whole = [fault for fault in FAULTS if fault not in ERRORS and not fault.startswith(("cut", "reset", "stall"))]
    async with DevServer() as server:
        for settings in [{}, *({fault: 1.0} for fault in whole)]:
            server.scenario = Scenario(**settings, echo_request=True)
            assert SECRET not in await told(server, path), settings
