"""Doors, pace, connections, answers and dialects of the development server, and what it tells a test."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from batchchat.devserver import DevServer, Scenario, change_scenario
from batchchat.errors import ConfigError

SUBMIT = "/wp-json/mwai-ui/v1/chats/submit"
SESSION = "/wp-json/mwai/v1/start_session"
COMPLETIONS = "/v1/chat/completions"


class Client:
    """A plain client with one connection pool and the nonce it was given."""

    def __init__(self, server: DevServer, session: aiohttp.ClientSession) -> None:
        self.server, self.session = server, session
        self.nonce: str | None = None

    async def start(self, **headers: str) -> tuple[int, Any]:
        status, _, body = await self.call("POST", SESSION, headers=headers)
        self.nonce = json.loads(body).get("restNonce", self.nonce)
        return status, json.loads(body)

    async def submit(self, prompt: str = "hi", **fields: Any) -> tuple[int, Any]:
        headers = {"X-WP-Nonce": self.nonce} if self.nonce else {}
        body = {"botId": "default", "newMessage": prompt, "stream": False} | fields
        status, _, text = await self.call("POST", SUBMIT, json=body, headers=headers)
        return status, json.loads(text) if text.startswith("{") else text

    async def complete(self, prompt: str = "hi", *, key: str | None = None, **fields: Any) -> tuple[int, Any]:
        body = {"model": "m", "messages": [{"role": "user", "content": prompt}]} | fields
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        status, _, text = await self.call("POST", COMPLETIONS, json=body, headers=headers)
        return status, json.loads(text) if text.startswith("{") else text

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any, str]:
        async with self.session.request(method, self.server.base_url + path, allow_redirects=False, **more) as answer:
            return answer.status, answer.headers, await answer.text()


@pytest.fixture
async def client():
    async with DevServer() as server, aiohttp.ClientSession() as session:
        yield Client(server, session)


async def test_nonce_uses_kills_the_nonce_without_notice(client: Client) -> None:
    client.server.scenario = Scenario(nonce_uses=2)
    await client.start()
    assert [(await client.submit())[0] for _ in range(3)] == [200, 200, 403]
    assert (await client.submit())[1]["code"] == "rest_cookie_invalid_nonce"
    await client.start()
    status, answer = await client.submit()
    assert status == 200
    assert "new_token" not in answer


async def test_rotate_after_offers_a_new_token_before_the_old_one_dies(client: Client) -> None:
    client.server.scenario = Scenario(rotate_after=2)
    await client.start()
    answers = [await client.submit() for _ in range(5)]
    assert [status for status, _ in answers] == [200, 200, 200, 200, 403]
    tokens = [answer.get("new_token") for _, answer in answers[:4]]
    assert tokens[:2] == [None, None]
    assert tokens[2] == tokens[3] == client.server.nonce.previous
    await client.start()
    assert (await client.submit())[0] == 200


async def test_client_that_takes_over_new_tokens_is_never_refused(client: Client) -> None:
    client.server.scenario = Scenario(rotate_after=2)
    await client.start()
    for _ in range(12):
        status, answer = await client.submit()
        client.nonce = answer.get("new_token", client.nonce)
        assert status == 200
    assert len(client.server.sessions) == 1


async def test_nonce_refused_refuses_every_submit(client: Client) -> None:
    client.server.scenario = Scenario(nonce_refused=True)
    assert (await client.start())[0] == 200
    assert await client.submit() == (
        403,
        {"code": "rest_cookie_invalid_nonce", "message": "Cookie check failed", "data": {"status": 403}},
    )


async def test_nonce_missing_from_the_session(client: Client) -> None:
    client.server.scenario = Scenario(nonce_missing=True)
    status, session = await client.start()
    assert (status, list(session)) == (200, ["success", "sessionId"])


async def test_nonce_helpers_move_the_ticks(client: Client) -> None:
    await client.start()
    client.server.nonce.rotate()
    assert (await client.submit())[1]["new_token"] == client.server.nonce.current
    client.server.nonce.expire()
    assert (await client.submit())[0] == 403
    assert (await client.start(**{"X-WP-Nonce": "0000000000"}))[0] == 403


async def test_api_key_is_asked_for(client: Client) -> None:
    client.server.scenario = Scenario(api_key="sk-right")
    assert (await client.complete())[0] == 401
    status, refusal = await client.complete(key="sk-wrong")
    assert (status, refusal["error"]["code"]) == (401, "invalid_api_key")
    assert "sk-wrong" not in refusal["error"]["message"]
    assert (await client.complete(key="sk-right"))[0] == 200
    client.server.scenario = Scenario(auth_refused=True)
    assert (await client.complete(key="sk-right"))[0] == 401


async def test_quota_is_exhausted_after_the_given_answers(client: Client) -> None:
    client.server.scenario = Scenario(quota_exhausted_after=2)
    statuses = [(await client.complete())[0] for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert (await client.complete())[1]["error"]["code"] == "insufficient_quota"


async def test_maintenance_of_either_protocol(client: Client) -> None:
    client.server.scenario = Scenario(maintenance=True)
    for path in (COMPLETIONS, SESSION):
        status, headers, _ = await client.call("POST", path)
        assert (status, headers["Retry-After"]) == (503, "600")


async def test_down_until_request_counts_all_requests(client: Client) -> None:
    client.server.scenario = Scenario(down_until_request=2)
    assert [(await client.complete())[0] for _ in range(4)] == [503, 503, 200, 200]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect(client: Client, status: int) -> None:
    client.server.scenario = Scenario(redirect_to="https://other.example/v1", redirect_status=status)
    found, headers, body = await client.call("POST", COMPLETIONS, json={})
    assert (found, headers["Location"], body) == (status, "https://other.example/v1", "")


async def test_redirect_to_a_path_of_its_own_is_served_there(client: Client) -> None:
    client.server.scenario = Scenario(redirect_to="/moved/v1/models", redirect_status=308)
    assert (await client.call("GET", "/v1/models"))[0] == 308
    assert (await client.call("GET", "/moved/v1/models"))[0] == 200


async def test_rate_limit_refuses_what_is_over_it(client: Client) -> None:
    client.server.scenario = Scenario(rate_limit="2/h")
    assert [(await client.complete())[0] for _ in range(3)] == [200, 200, 429]
    _, headers, _ = await client.call("POST", SESSION)
    assert 3500 < int(headers["Retry-After"]) <= 3600
    assert [record.fault for record in client.server.requests] == [None, None, "rate_limit", "rate_limit"]


@pytest.mark.parametrize("value", ["2", "0.5", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "1" * 30])
async def test_retry_after_is_sent_as_written(client: Client, value: str) -> None:
    client.server.scenario = change_scenario(Scenario(), ["error_429=1", f"retry_after={value}"])
    _, headers, _ = await client.call("POST", COMPLETIONS, json={"model": "m", "messages": [{"role": "user"}]})
    assert headers["Retry-After"] == value


async def test_concurrency_limit_refuses_the_one_too_many(client: Client) -> None:
    client.server.scenario = Scenario(stall_before=1.0, concurrency_limit=2)
    waiting = [asyncio.create_task(client.complete(f"p{number}")) for number in range(2)]
    await client.server.wait_for_requests(2)
    assert (await client.complete())[0] == 429
    assert client.server.peak_in_flight == 3
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_capacity_steps_count_the_requests_that_were_let_in(client: Client) -> None:
    """The limit of the moment holds: two at a time, and after three requests one."""
    client.server.scenario = Scenario(stall_midway=1.0, concurrency_limit=2, capacity_steps=((3, 1),))
    waiting = [asyncio.create_task(client.complete(f"p{number}", stream=True)) for number in range(2)]
    await client.server.wait_for_requests(2)
    assert (await client.complete())[0] == 429
    waiting.pop().cancel()
    while client.server.in_flight > 1:
        await asyncio.sleep(0.01)
    waiting.append(asyncio.create_task(client.complete("p3", stream=True)))
    await client.server.wait_for_requests(4)
    waiting.pop(0).cancel()
    while client.server.in_flight > 1:
        await asyncio.sleep(0.01)
    assert (await client.complete())[0] == 429
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_slow_above_makes_answers_wait_as_they_are_more(client: Client) -> None:
    """Ten at a time where two are quick take as long as five rounds of two."""
    client.server.scenario = Scenario(latency_ms=100, slow_above=2)
    began = time.monotonic()
    await asyncio.gather(*(client.complete(f"p{number}") for number in range(10)))
    assert time.monotonic() - began >= 0.4


def test_capacity_steps_need_something_to_change() -> None:
    """Alone they would do nothing."""
    with pytest.raises(ConfigError, match="capacity_steps: expected concurrency_limit or slow_above beside it"):
        Scenario(capacity_steps=((3, 1),))


async def test_hundreds_of_streams_run_at_once() -> None:
    async with DevServer(Scenario(stall_midway=1.0)) as server:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            waiting = [
                asyncio.create_task(Client(server, session).complete(f"p{at}", stream=True)) for at in range(200)
            ]
            await server.wait_for_requests(200)
            assert server.peak_in_flight == server.in_flight == 200
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def test_latency_and_delta_interval_take_their_time(client: Client) -> None:
    client.server.scenario = Scenario(latency_ms=40, delta_interval_ms=20)
    start = time.monotonic()
    await client.complete("one two", stream=True)
    # Six events: the role, three words, the finish and [DONE]; five pauses between them.
    assert time.monotonic() - start >= 0.04 + 5 * 0.02 - 0.01


@pytest.mark.parametrize(("key", "announced"), [("keep_alive_close", "close"), ("keep_alive_drop", "keep-alive")])
async def test_connections_are_closed_every_nth_answer(key: str, announced: str) -> None:
    """With notice in the head, or without."""
    async with DevServer(change_scenario(Scenario(), [f"{key}=2"])) as server:
        host, port = server.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /v1/models HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode() * 2)
        seen = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    assert seen.count("HTTP/1.1 200 OK") == 2
    assert seen.count(f"Connection: {announced}") == (1 if announced == "close" else 2)


async def test_chunk_bytes_cuts_the_body_into_pieces_of_that_size() -> None:
    async with DevServer(Scenario(chunk_bytes=7)) as server:
        host, port = server.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (f"{host}:{port}".encode(), len(body), body)
        )
        framed = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        await writer.wait_closed()
    sizes = []
    while framed:
        size = int(framed.partition(b"\r\n")[0], 16)
        sizes.append(size)
        framed = framed.partition(b"\r\n")[2][size + 2 :]
    assert set(sizes[:-2]) == {7}
    assert 0 < sizes[-2] <= 7
    assert sizes[-1] == 0


async def test_pieces_do_not_change_an_answer(client: Client) -> None:
    whole = (await client.complete("one two"))[1]["choices"]
    client.server.scenario = Scenario(chunk_bytes=1)
    assert (await client.complete("one two"))[1]["choices"] == whole


@pytest.mark.parametrize("prompt", ["hi", "/long 5"])
async def test_reply_chars_and_long_give_answers_of_that_length(client: Client, prompt: str) -> None:
    client.server.scenario = Scenario(reply_chars=300_000)
    await client.start()
    expected = 300_000 if prompt == "hi" else 5
    assert len((await client.submit(prompt))[1]["reply"]) == expected
    assert len((await client.complete(prompt))[1]["choices"][0]["message"]["content"]) == expected


async def test_text_input_max_length_counts_characters(client: Client) -> None:
    client.server.scenario = Scenario(text_input_max_length=3)
    await client.start()
    assert (await client.submit("äöü"))[0] == 200
    assert (await client.submit("äöüß"))[0] == 500


async def test_chatter_stands_among_the_events_and_not_in_the_reply(client: Client) -> None:
    client.server.scenario = Scenario(chatter=True)
    await client.start()
    _, text = await client.submit("hi", stream=True)
    events = [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-1]]
    assert [event.get("subtype") for event in events] == ["status", "thinking", None, None, None]
    assert json.loads(events[-1]["data"])["reply"] == "Echo: hi"


async def test_lone_surrogate_reaches_the_client_escaped(client: Client) -> None:
    client.server.scenario = Scenario(lone_surrogate=True)
    await client.start()
    assert (await client.submit())[1]["reply"] == "Echo: hi\udc00"
    assert (await client.complete())[1]["choices"][0]["message"]["content"] == "Echo: hi\udc00"


async def stream_of(client: Client, *, include_usage: bool = False, **keys: bool) -> str:
    client.server.scenario = Scenario(**keys)
    return (await client.complete("one two", stream=True, stream_options={"include_usage": include_usage}))[1]


async def test_stream_of_chunks(client: Client) -> None:
    text = await stream_of(client, include_usage=True)
    *chunks, done = [event.removeprefix("data: ") for event in text.split("\n\n")[:-1]]
    choices = [json.loads(chunk)["choices"] for chunk in chunks]
    assert [choice[0]["delta"].get("content") for choice in choices[:-1]] == ["", "Echo: ", "one ", "two", None]
    assert choices[-2][0]["finish_reason"] == "stop"
    assert (choices[-1], done) == ([], "[DONE]")
    usage = json.loads(chunks[-1])["usage"]
    assert usage == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert [json.loads(chunk)["usage"] for chunk in chunks[:-1]] == [None] * 5
    assert '"usage"' not in await stream_of(client)


async def test_dialects_change_the_form_and_not_the_events(client: Client) -> None:
    plain = await stream_of(client)
    crlf = await stream_of(client, crlf=True)
    assert contents(crlf.replace("\r\n", "\n")) == contents(plain)
    assert crlf.count("\r\n") == crlf.count("\n")
    no_space = await stream_of(client, no_space=True)
    assert "data: " not in no_space
    assert contents(no_space.replace("data:", "data: ")) == contents(plain)
    comments = await stream_of(client, comments=True)
    assert contents(comments.replace(": keep-alive\n\n", "")) == contents(plain)
    assert comments.count(": keep-alive\n") == plain.count("data: ")
    split = await stream_of(client, multi_line_data=True)
    assert split.count("data: {\ndata: ") == plain.count("data: {")
    assert contents(split.replace("\ndata: ", "", 0).replace("{\ndata: ", "{\n")) == contents(plain)
    assert (await stream_of(client, bom=True)).startswith("\ufeffdata: ")
    assert (await stream_of(client, no_last_newline=True)).endswith("data: [DONE]")


def contents(text: str) -> list[Any]:
    data = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    return [each if each == "[DONE]" else json.loads(each)["choices"] for each in data]


async def test_dialects_leave_out_an_end(client: Client) -> None:
    no_done, no_finish = await stream_of(client, no_done=True), await stream_of(client, no_finish=True)
    assert "[DONE]" not in no_done
    assert '"finish_reason":"stop"' in no_done
    assert '"finish_reason":"stop"' not in no_finish
    assert no_finish.endswith("data: [DONE]\n\n")


async def test_debug_tells_what_an_ai_engine_request_held(client: Client) -> None:
    await client.start()
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    _, answer = await client.submit(
        "/debug me", messages=history, instructions="Be brief.", chatId="c-1", temperature=0.5
    )
    told = json.loads(answer["reply"])
    assert told == {
        "protocol": "ai-engine", "prompt": "/debug me", "messages": history, "instructions": "Be brief.", "history": 2,
        "turn": 2, "attempt": 1, "stream": False, "model": None, "botId": "default", "chatId": "c-1",
        "params": {"temperature": 0.5},
    }  # fmt: skip
    # Words of instructions, history and prompt; the reply has as many as it has.
    assert answer["usage"]["prompt_tokens"] == 6


async def test_debug_tells_what_a_chat_completion_held(client: Client) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "/debug"}]},
    ]
    _, answer = await client.complete(messages=messages, seed=3)
    told = json.loads(answer["choices"][0]["message"]["content"])
    assert (told["messages"], told["instructions"], told["history"], told["turn"]) == (messages, "Be brief.", 2, 2)
    assert (told["model"], told["params"]) == ("m", {"seed": 3})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", COMPLETIONS, b"{", 400),
        ("POST", COMPLETIONS, b"[]", 400),
        ("POST", COMPLETIONS, b'{"messages":[{"role":"user","content":"x"}]}', 400),
        ("POST", COMPLETIONS, b'{"model":"m","messages":[]}', 400),
        ("GET", COMPLETIONS, b"", 405),
        ("POST", "/v1/nothing", b"{}", 404),
    ],
)
async def test_openai_refusals_are_error_objects(
    client: Client, method: str, path: str, body: bytes, status: int
) -> None:
    found, _, text = await client.call(method, path, data=body)
    error = json.loads(text)["error"]
    assert (found, list(error)) == (status, ["message", "type", "param", "code"])
    assert error["type"] == "invalid_request_error"


async def test_models_are_those_of_the_scenario(client: Client) -> None:
    client.server.scenario = Scenario(models=("a", "b"))
    listed = json.loads((await client.call("GET", "/v1/models"))[2])
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["a", "b"])


async def test_health_is_told_and_not_counted(client: Client) -> None:
    assert (await client.call("GET", "/healthz"))[2] == '{"status":"ok"}'
    assert client.server.request_count == 0
    assert (await client.call("GET", "/elsewhere"))[0] == 404


async def test_requests_are_kept_with_what_became_of_them(client: Client) -> None:
    await client.start()
    await client.submit("hi", chatId="c")
    session, chat = client.server.requests
    assert (session.kind, session.method, session.path) == ("session", "POST", SESSION)
    assert (chat.kind, chat.prompt, chat.attempt, chat.status, chat.fault) == ("chat", "hi", 1, 200, None)
    assert (chat.nonce, chat.body["chatId"], chat.headers["x-wp-nonce"]) == (client.nonce, "c", client.nonce)
    assert chat.time_s > session.time_s
    assert chat.delivered
    assert client.server.chats == [chat]
    assert client.server.worst_window(3600) == 2
    assert client.server.worst_window((chat.time_s - session.time_s) / 2) == 1


async def test_waiting_for_requests_ends_with_the_last_of_them(client: Client) -> None:
    waiting = asyncio.create_task(client.server.wait_for_requests(2))
    await client.complete()
    assert not waiting.done()
    await client.complete()
    await waiting
    await client.server.wait_for_requests(1)


async def test_log_has_a_line_for_each_request_before_it_is_answered(tmp_path) -> None:
    path = tmp_path / "requests.jsonl"
    async with (
        DevServer(Scenario(stall_before=1.0), log_path=str(path), keep_requests=False) as server,
        aiohttp.ClientSession() as session,
    ):
        waiting = asyncio.create_task(Client(server, session).complete("é"))
        await server.wait_for_requests(1)
        line = json.loads(path.read_bytes())
        waiting.cancel()
        assert server.requests == []
    assert (line["number"], line["prompt"], line["attempt"], line["fault"]) == (1, "é", 1, "stall_before")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org"])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ConfigError, match="expected a loopback address"):
        DevServer(host=host)


async def test_port_that_is_taken_is_told() -> None:
    async with DevServer() as server:
        port = int(server.base_url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be listened on: .*choose another port"):
            async with DevServer(port=port):
                pass
