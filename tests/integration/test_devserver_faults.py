"""Every way in which the development server can misbehave, seen by a plain client."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from batchchat.devserver import FAULTS, DevServer, Scenario
from batchchat.devserver.scenario import DEFAULT_ERROR_TEXT, OPENAI_FAULTS

SUBMIT = "/wp-json/mwai-ui/v1/chats/submit"
SESSION = "/wp-json/mwai/v1/start_session"
COMPLETIONS = "/v1/chat/completions"
PROTOCOLS = ["ai-engine", "openai"]
EOF_ERROR, RESET = "ClientPayloadError", "ConnectionResetError"


class Seen:
    """What a client got: status, headers, bytes until the end, and how it ended ("" for well)."""

    def __init__(self) -> None:
        self.status, self.body, self.ending = 0, b"", ""
        self.headers: dict[str, str] = {}

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[str]:
        """The data of each event of a stream."""
        return [event.removeprefix("data: ") for event in self.text.split("\n\n") if event]

    @property
    def reply(self) -> str:
        """The text of an AI Engine answer."""
        return (
            json.loads(json.loads(self.data[-1])["data"])["reply"]
            if self.text.startswith("data")
            else self.json["reply"]
        )


async def send(
    server: DevServer,
    protocol: str,
    prompt: str = "one two three",
    *,
    stream: bool = True,
    client: aiohttp.ClientSession | None = None,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Seen:
    """One request by a plain client, which takes what comes."""
    if client is None:
        async with aiohttp.ClientSession() as own:
            return await send(server, protocol, prompt, stream=stream, client=own, headers=headers, **fields)
    if protocol == "openai":
        path, sent = COMPLETIONS, {}
        body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    else:
        path, sent = SUBMIT, {"X-WP-Nonce": server.nonce.current}
        body = {"botId": "default", "newMessage": prompt, "stream": stream}
    seen = Seen()
    try:
        async with client.post(
            server.base_url + path, json=body | fields, headers=sent | (headers or {}), allow_redirects=False
        ) as answer:
            seen.status, seen.headers = answer.status, dict(answer.headers)
            async for part in answer.content.iter_any():
                seen.body += part
    except aiohttp.ClientError as error:
        cause = str(error)
        seen.ending = RESET if RESET in cause or isinstance(error, aiohttp.ClientOSError) else type(error).__name__
    return seen


async def send_to(scenario: Scenario, protocol: str, prompt: str = "one two three", **more: Any) -> Seen:
    async with DevServer(scenario) as server:
        return await send(server, protocol, prompt, **more)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("fault", "status"),
    [("error_429", 429), ("error_500", 500), ("error_502_html", 502), ("error_503", 503), ("html_200", 200), ("html_403", 403)],
)  # fmt: skip
async def test_status_faults(fault: str, status: int, protocol: str, stream: bool) -> None:
    """The status, with the page or the object that the protocol would send."""
    seen = await send_to(Scenario(**{fault: 1.0}, retry_after="7"), protocol, stream=stream)
    assert (seen.status, seen.ending) == (status, "")
    assert seen.headers.get("Retry-After") == ("7" if fault in ("error_429", "error_503") else None)
    has_object = (protocol == "openai" and fault in ("error_429", "error_500", "error_503")) or fault == "error_500"
    if has_object:
        assert seen.json.keys() >= ({"error"} if protocol == "openai" else {"code", "message", "data"})
    else:
        assert "<html>" in seen.text
        assert seen.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("fault", "ending"),
    [("cut_mid_event", EOF_ERROR), ("cut_mid_character", EOF_ERROR), ("cut_no_end", ""), ("cut_reset", RESET)],
)
async def test_cuts_come_in_the_middle_of_the_answer(fault: str, ending: str, protocol: str, stream: bool) -> None:
    """Part of the answer arrives, and the connection ends as the fault says: EOF, RST, or politely."""
    scenario = Scenario(**{fault: 1.0})
    seen, whole = await send_to(scenario, protocol, stream=stream), await send_to(Scenario(), protocol, stream=stream)
    assert (seen.status, seen.ending) == (200, ending)
    assert 0 < len(seen.body) < len(whole.body)
    assert b"[DONE]" not in seen.body
    assert b'"end"' not in seen.body


async def test_cut_mid_event_leaves_half_an_event() -> None:
    seen = await send_to(Scenario(cut_mid_event=1.0), "ai-engine")
    assert seen.text.startswith('data: {"type":"live","data":"Echo: "}\n\n')
    assert not seen.text.endswith("}\n\n")


async def test_cut_mid_character_falls_between_the_bytes_of_one_character() -> None:
    seen = await send_to(Scenario(cut_mid_character=1.0), "openai")
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        seen.body.decode()
    assert (await send_to(Scenario(cut_mid_character=1.0), "ai-engine")).text.endswith('"data":"\\ud')


async def test_cut_no_end_has_all_the_text_and_a_polite_end() -> None:
    seen = await send_to(Scenario(cut_no_end=1.0), "ai-engine")
    assert [json.loads(data)["data"] for data in seen.data] == ["Echo: ", "one ", "two ", "three"]
    chunks = (await send_to(Scenario(cut_no_end=1.0), "openai")).data
    assert [json.loads(data)["choices"][0]["finish_reason"] for data in chunks] == [None] * 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_reset_before_the_first_byte(protocol: str) -> None:
    seen = await send_to(Scenario(reset_before=1.0), protocol)
    assert (seen.status, seen.body, seen.ending) == (0, b"", RESET)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("fault", "status"), [("stall_before", 0), ("stall_midway", 200)])
async def test_stall_lasts_until_the_client_leaves(fault: str, status: int, protocol: str) -> None:
    async with DevServer(Scenario(**{fault: 1.0})) as server, aiohttp.ClientSession() as client:
        asking = asyncio.create_task(send(server, protocol, client=client))
        await server.wait_for_requests(1)
        assert server.in_flight == 1
        assert server.requests[0].status == status
        done, _ = await asyncio.wait({asking}, timeout=0.05)
        assert not done
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        while server.in_flight:
            await asyncio.sleep(0)
        assert not server.requests[0].delivered


async def test_leaving_the_server_ends_stalled_answers() -> None:
    async with DevServer(Scenario(stall_midway=1.0)) as server:
        asking = asyncio.create_task(send(server, "ai-engine"))
        await server.wait_for_requests(1)
    assert (await asking).ending


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_empty_reply_is_told_as_a_success(protocol: str, stream: bool) -> None:
    seen = await send_to(Scenario(empty_reply=1.0), protocol, stream=stream)
    assert (seen.status, seen.ending) == (200, "")
    if protocol == "ai-engine":
        answer = json.loads(json.loads(seen.data[0])["data"]) if stream else seen.json
        assert (answer["success"], answer["reply"], answer["usage"]["completion_tokens"]) == (True, "", 0)
        assert "responseId" not in answer
    elif not stream:
        assert seen.json["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("protocol", "stream", "fault", "status", "last"),
    [
        ("ai-engine", True, "error_event", 200, {"type": "error", "data": "Gone"}),
        ("ai-engine", False, "error_event", 500, {"success": False, "message": "Gone"}),
        ("ai-engine", True, "error_in_stream", 200, {"type": "error", "data": "Gone"}),
        ("ai-engine", False, "error_in_stream", 200, {"success": False, "message": "Gone"}),
        ("openai", True, "error_event", 200, {"error": {"message": "Gone", "type": "server_error", "param": None, "code": "server_error"}}),
        ("openai", False, "error_event", 500, {"error": {"message": "Gone", "type": "server_error", "param": None, "code": "server_error"}}),
        ("openai", True, "error_in_stream", 200, {"error": {"message": "Gone", "code": 502}}),
        ("openai", False, "error_in_stream", 200, {"error": {"message": "Gone", "code": 502}}),
    ],
)  # fmt: skip
async def test_errors_are_told_with_the_given_text(
    protocol: str, stream: bool, fault: str, status: int, last: dict[str, Any]
) -> None:
    seen = await send_to(Scenario(**{fault: 1.0}, error_event_text="Gone"), protocol, stream=stream)
    assert seen.status == status
    events = [data for data in seen.data if data != "[DONE]"] if stream else [seen.text]
    assert json.loads(events[-1]) == last
    assert (len(events) > 1) == (stream and fault == "error_in_stream")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fault", "finish", "message"),
    [
        ("content_null", "stop", {"role": "assistant", "content": None}),
        ("refusal", "stop", {"content": None, "refusal": "I'm sorry, I can't help with that."}),
        ("content_filter", "content_filter", {"content": "The first part of the answer"}),
        ("tool_call", "tool_calls", {"content": None, "arguments": '{"text": "echo"}'}),
    ],
)
async def test_answers_of_models_that_do_otherwise(
    fault: str, finish: str, message: dict[str, Any], stream: bool
) -> None:
    """Null content, a refusal, a filter, a tool call: whole, or put together from a stream, they are the same."""
    seen = await send_to(Scenario(**{fault: 1.0}), "openai", stream=stream)
    choices = (
        [json.loads(data)["choices"][0] for data in seen.data if data != "[DONE]"] if stream else seen.json["choices"]
    )
    made: dict[str, Any] = {}
    for choice in choices:
        part = choice.get("delta") or choice.get("message") or {}
        for call in part.pop("tool_calls", []):
            part["arguments"] = call["function"]["arguments"]
        for key, value in part.items():
            made[key] = (
                made[key] + value if made.get(key) and value else value if key not in made or value else made[key]
            )
    assert choices[-1]["finish_reason"] == finish
    assert {key: made[key] for key in message} == message


async def test_choices_empty() -> None:
    assert (await send_to(Scenario(choices_empty=1.0), "openai", stream=False)).json["choices"] == []
    data = (await send_to(Scenario(choices_empty=1.0), "openai")).data
    assert [json.loads(data[0])["choices"], data[1]] == [[], "[DONE]"]


@pytest.mark.parametrize("fault", sorted(OPENAI_FAULTS))
async def test_faults_of_the_other_protocol_leave_ai_engine_alone(fault: str) -> None:
    async with DevServer(Scenario(**{fault: 1.0})) as server:
        assert (await send(server, "ai-engine")).reply == "Echo: one two three"
        assert server.requests[0].fault is None


def test_faults_are_all_tried_here() -> None:
    """A fault that is added to the server needs a test in this file."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    assert [fault for fault in FAULTS if f'"{fault}"' not in text and f"{fault}=" not in text] == []


async def test_fail_first_fails_each_prompt_as_often_as_told() -> None:
    scenario = Scenario(fail_first=2, fail_with="error_503")
    async with DevServer(scenario) as server:
        for prompt in ("a", "b"):
            assert [(await send(server, "ai-engine", prompt)).status for _ in range(4)] == [503, 503, 200, 200]
        assert [record.attempt for record in server.requests] == [1, 2, 3, 4] * 2
        assert [record.fault for record in server.requests] == ["error_503", "error_503", None, None] * 2


async def test_default_error_text_is_of_a_provider_that_failed() -> None:
    assert json.loads((await send_to(Scenario(error_event=1.0), "ai-engine")).data[0])["data"] == DEFAULT_ERROR_TEXT
