"""The development server says what recorded sites said, byte for byte where nothing in it is the site's own."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from batchchat.devserver import DevServer, Scenario

CAPTURES = Path(__file__).parent.parent / "captures"
SITE_NONCE, OLD_NONCE = b"b3fa3492d0", b"a5c769d49c"
# Headers of the site's web server and of its address, not of the protocol.
NOT_COMPARED = {"server", "date", "link", "connection"}

SAME_BODY = [
    "03-start-session-get", "04-start-session-bad-nonce", "30j-nonce-missing", "30s-nonce-missing",
    "31j-nonce-invalid", "31s-nonce-invalid", "33j-nonce-expired", "33s-nonce-expired", "37-old-nonce-rejected",
    "41j-bot-missing", "41s-bot-missing", "42j-message-missing", "42s-message-missing", "43j-message-blank",
    "43s-message-blank", "44j-message-null", "44s-message-null", "46j-message-list", "46s-message-list",
    "48j-message-513", "48s-message-513", "80-bad-json", "81-empty-body", "82-form-encoded",
    "83-json-as-text-plain", "84-no-content-type", "85-json-array-body", "86-invalid-utf8-body", "88-submit-get",
    "89-route-absent", "93-lone-surrogate", "c0-public-api-off", "cf-bearer-on-submit",
]  # fmt: skip
WITH_SCENARIO = {
    "52j-limit": Scenario(quota_exhausted_after=0),
    "52s-limit": Scenario(quota_exhausted_after=0),
    "53j-not-allowed": Scenario(auth_refused=True),
    "53s-not-allowed": Scenario(auth_refused=True),
    "94b-maintenance-start-session": Scenario(maintenance=True),
    "94s-maintenance": Scenario(maintenance=True),
}
PUBLIC_REFUSALS = ["c1-auth-check", "c2-no-token", "c3-bad-token", "c5-simple-text-missing",
                   "c8-simple-chatbot-missing", "c9-simple-chatbot-too-long"]  # fmt: skip
PUBLIC = Scenario(public_api_token="test-token", text_input_max_length=512)
SAME_SHAPE = [
    "01-start-session", "05-start-session-json-body", "06-start-session-good-nonce", "07-start-session-query-route",
    "10-stream-basic", "11-json-basic", "14-json-utf8", "28-multi-turn", "29-multi-turn-json",
    "32j-nonce-previous-tick", "32s-nonce-previous-tick", "c4-simple-text", "c7-simple-chatbot", "45j-message-number", "45s-message-number",
    "47j-message-512", "47s-message-512", "87-charset-content-type", "91-accept-no-sse", "92-stream-string-false",
]  # fmt: skip
# The site opens a PHP session for these, with headers of its own for every answer.
SESSION_ROUTES = re.compile(rb"/mwai/v1/")


class Recorded:
    """A capture: the request as sent, and the response's parts."""

    def __init__(self, name: str) -> None:
        text = (CAPTURES / f"{name}.http").read_bytes()
        request, _, response = text.partition(b"---- response ----\n")
        head, _, self.body = request.replace(b"\r\n", b"\n").partition(b"\n\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        self.body = self.body[: int(length[1])] if length else b""
        self.head = head
        self.status, self.headers, self.answer = parse(response)

    def request_for(self, server: DevServer) -> bytes:
        """The request with the site's nonces replaced by the server's."""
        head = self.head.replace(SITE_NONCE, server.nonce.current.encode())
        head = head.replace(OLD_NONCE, server.nonce.previous.encode())
        head = re.sub(rb"(?m)^Host: .*", b"Host: " + server.base_url.removeprefix("http://").encode(), head)
        head = re.sub(rb"(?m)^Connection: .*\n?", b"", head).strip() + b"\nConnection: close"
        return head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + self.body


def parse(response: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers, and the body without its chunk framing."""
    head, _, body = response.partition(b"\r\n\r\n") if b"\r\n\r\n" in response else response.partition(b"\n\n")
    lines = head.decode().replace("\r\n", "\n").split("\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:])]
    if ("transfer-encoding", "chunked") in headers:
        body = b"".join(chunks_of(body))
    return int(lines[0].split(" ")[1]), headers, body


def chunks_of(body: bytes) -> list[bytes]:
    """The payloads of a chunked body up to its last chunk or its end."""
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        found.append(rest[:length])
        body = rest[length + 2 :]
    return found


async def exchange(server: DevServer, request: bytes) -> bytes:
    """Everything the server sends until it closes the connection."""
    host, _, port = server.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def names(headers: list[tuple[str, str]]) -> list[str]:
    return sorted(name for name, _ in headers if name not in NOT_COMPARED)


def events(body: bytes) -> list[dict]:
    assert body.endswith(b"\n\n")
    return [json.loads(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")[:-1]]


def skeleton(value):
    """Keys in their order and the types of values; texts and numbers may differ."""
    if isinstance(value, dict):
        return [(key, skeleton(each)) for key, each in value.items()]
    return [skeleton(each) for each in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("name", [*SAME_BODY, *WITH_SCENARIO, *PUBLIC_REFUSALS])
async def test_refusals_are_those_of_a_site(name: str) -> None:
    """Status, body and headers are what the recorded site sent for the same request."""
    recorded = Recorded(name)
    scenario = WITH_SCENARIO.get(name, PUBLIC if name in PUBLIC_REFUSALS else Scenario(text_input_max_length=512))
    async with DevServer(scenario) as server:
        status, headers, body = parse(await exchange(server, recorded.request_for(server)))
        current = server.nonce.current.encode()
    assert (status, body.replace(current, SITE_NONCE)) == (recorded.status, recorded.answer)
    if not SESSION_ROUTES.search(recorded.head):
        assert names(headers) == names(recorded.headers)
    sent, expected = dict(headers), dict(recorded.headers)
    for header in ("content-type", "retry-after"):
        assert sent.get(header) == expected.get(header)


@pytest.mark.parametrize("name", SAME_SHAPE)
async def test_answers_have_the_shape_of_a_sites(name: str) -> None:
    """Headers, events and keys come in the recorded order, with values of the recorded types."""
    recorded = Recorded(name)
    async with DevServer(PUBLIC) as server:
        status, headers, body = parse(await exchange(server, recorded.request_for(server)))
        current = server.nonce.current
    assert status == recorded.status
    assert dict(headers)["content-type"] == dict(recorded.headers)["content-type"]
    if not name.startswith("c"):
        assert names(headers) == names(recorded.headers)
    assert body.isascii()
    if not body.startswith(b"data: "):
        assert skeleton(json.loads(body)) == skeleton(json.loads(recorded.answer))
        answer = json.loads(body)
    else:
        sent, expected = events(body), events(recorded.answer)
        assert {event["type"] for event in sent} == {event["type"] for event in expected} == {"live", "end"}
        assert skeleton(json.loads(sent[-1]["data"])) == skeleton(json.loads(expected[-1]["data"]))
        answer = json.loads(sent[-1]["data"])
        assert "".join(event["data"] for event in sent[:-1]).strip() == answer["reply"]
    if OLD_NONCE in recorded.head:
        assert answer["new_token"] == current
    if SITE_NONCE in recorded.head or OLD_NONCE in recorded.head:
        assert dict(headers)["x-wp-nonce"] == current


async def test_slashes_are_escaped_as_php_does() -> None:
    async with DevServer() as server:
        body = b'{"botId":"default","newMessage":"<b>\xc3\xa9</b>","stream":false}'
        answer = await exchange(server, submit(server, body))
    assert b'"reply":"Echo: <b>\\u00e9<\\/b>"' in answer


async def test_each_event_comes_in_its_own_chunk() -> None:
    async with DevServer() as server:
        answer = await exchange(server, submit(server, b'{"botId":"default","newMessage":"one two","stream":true}'))
    framed = answer.partition(b"\r\n\r\n")[2]
    assert framed.endswith(b"\r\n0\r\n\r\n")
    assert [chunk[:15] for chunk in chunks_of(framed)] == [b'data: {"type":"'] * 4
    assert all(chunk.endswith(b"}\n\n") and chunk.count(b"\n") == 2 for chunk in chunks_of(framed))


@pytest.mark.parametrize("path", ["/wp-json/mwai-ui/v1/chats/submit", "/wp-json/mwai-ui/v1/chats/submit/",
                                  "/?rest_route=/mwai-ui/v1/chats/submit", "/index.php?rest_route=/mwai-ui/v1/chats/submit/",
                                  "/blog/wp-json/mwai-ui/v1/chats/submit"])  # fmt: skip
async def test_submit_is_found_where_sites_have_it(path: str) -> None:
    async with DevServer() as server:
        body = b'{"botId":"default","newMessage":"hi","stream":false}'
        answer = await exchange(server, submit(server, body, path=path))
        assert server.requests[0].kind == "chat"
    assert b'"reply":"Echo: hi"' in answer


async def test_visitor_with_a_cookie_gets_no_second_one() -> None:
    async with DevServer() as server:
        body = b'{"botId":"default","newMessage":"hi"}'
        fresh = await exchange(server, submit(server, body))
        known = await exchange(server, submit(server, body, more=b"Cookie: mwai_session_id=abc\r\n"))
    assert b"Set-Cookie: mwai_session_id=" in fresh
    assert b"Set-Cookie" not in known


def submit(
    server: DevServer, body: bytes, *, path: str = "/wp-json/mwai-ui/v1/chats/submit", more: bytes = b""
) -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Type: application/json\r\nX-WP-Nonce: %b\r\n"
        b"%bContent-Length: %d\r\n\r\n%b"
    ) % (path.encode(), server.base_url[7:].encode(), server.nonce.current.encode(), more, len(body), body)
