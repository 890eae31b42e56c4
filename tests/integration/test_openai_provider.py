"""Chat completions in the dialects that servers speak, each ending in its text or in the error it is."""

import json
from typing import Any

import pytest

from batchchat.errors import ConfigError, ProviderError
from batchchat.providers.base import ChatRequest, ProviderContext, StreamEnd, TextDelta
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig
from tests.wire import HELLO, USAGE, ask, chunk, stream, whole, wired


@pytest.mark.parametrize(
    "answer",
    [
        stream(chunk("Hel"), chunk("lo"), chunk(finish="stop"), "[DONE]"),
        stream(chunk("Hel"), chunk("lo"), chunk(finish="stop"), "[DONE]", field="data:"),
        stream(chunk("Hel"), chunk("lo"), chunk(finish="stop"), "[DONE]", end="\r\n\r\n"),
        stream(chunk("Hel"), chunk("lo"), chunk(finish="stop")),
        stream(chunk("Hel"), chunk("lo"), "[DONE]"),
        stream(chunk("Hel"), chunk("lo", finish="stop")).removesuffix(b"\n\n"),
        stream(chunk("Hel"), chunk("lo"), chunk(finish="stop"), field=": ping\n\nevent: message\ndata: "),
        stream(chunk("Hello", finish="stop").replace('"choices"', '\ndata: "choices"')),
        stream(chunk(role="assistant", content="Hello"), chunk("", finish="stop"), '{"choices": [], "usage": null}'),
        stream(chunk(content=None), chunk("Hello", finish="stop")),
        stream(
            json.dumps(
                {"choices": [{"delta": {"content": [{"type": "text", "text": "Hello"}]}, "finish_reason": "stop"}]}
            )
        ),
        whole({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}),
        whole(b"\xef\xbb\xbf" + stream(chunk("Hello", finish="stop")).partition(b"\r\n\r\n")[2]),
    ],
)
async def test_every_dialect_gives_the_text(answer: bytes) -> None:
    completion, _ = await ask(answer)
    assert not isinstance(completion, ProviderError), completion
    assert completion.text == "Hello"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (stream(chunk("Hel")), "incomplete"),
        (stream(chunk("Hel"), '{"choices": [{"delta": {"con').removesuffix(b"\n\n"), "incomplete"),
        (stream(": ping", field=""), "incomplete"),
        (stream(chunk("", finish="stop"), "[DONE]"), "incomplete"),
        (stream(chunk(content=None, finish="stop"), "[DONE]"), "incomplete"),
        (stream("[DONE]"), "protocol"),
        (stream('{"choices": []}', "[DONE]"), "protocol"),
        (stream('{"error": {"message": "overloaded", "code": 502}}', "[DONE]"), "server"),
        (stream(chunk("Hel"), '{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}'), "rate_limit"),
        (stream('{"object": "error", "message": "bad model", "code": 400}'), "invalid_request"),
        (stream(chunk(finish="content_filter"), "[DONE]"), "refused"),
        (stream(chunk(refusal="I can't help with that.", finish="stop"), "[DONE]"), "refused"),
        (stream("{broken", chunk("x", finish="stop")), "protocol"),
        (whole({"choices": []}), "protocol"),
        (whole({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}), "refused"),
        (whole({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}), "incomplete"),
        (whole({"error": {"message": "x", "type": "server_error"}}), "server"),
        (whole(b"<!DOCTYPE html><html><body>Welcome</body></html>"), "protocol"),
        (whole(b"[1, 2]"), "protocol"),
        (whole(b""), "incomplete"),
        (whole({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, "429 X"), "quota"),
        (whole({"error": {"message": "slow down", "code": None}}, "429 X"), "rate_limit"),
        (whole({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, "401 X"), "auth"),
        (whole({"error": {"message": "country", "code": "unsupported_country"}}, "403 X"), "auth"),
        (whole(b"<html>Access denied</html>", "403 X"), "blocked"),
        (whole({"error": {"message": "no such model", "code": "model_not_found"}}, "404 X"), "invalid_request"),
        (whole({"detail": "Not Found"}, "404 X"), "invalid_request"),
        (whole({"error": {"message": "max", "code": "context_length_exceeded"}}, "400 X"), "invalid_request"),
        (whole({"error": {"message": "filtered", "code": "content_filter"}}, "400 X"), "refused"),
        (whole({"error": "payment"}, "402 X"), "quota"),
        (whole(b"busy", "503 X"), "server"),
        (whole(b"", "500 X"), "server"),
        (whole({"error": {"message": "late"}}, "408 X"), "timeout"),
        (whole({"error": {"message": "too large"}}, "413 X"), "invalid_request"),
        (whole({"error": {"message": "teapot"}}, "418 X"), "invalid_request"),
        (b"not http at all\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "network"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"choi", "incomplete"),
        (b"", "network"),
    ],
)  # fmt: skip
async def test_every_failure_is_told_as_what_it_is(answer: bytes, kind: str) -> None:
    error, _ = await ask(answer)
    assert isinstance(error, ProviderError), error
    assert error.type == kind
    assert "\n" not in error.message


async def test_connection_that_dies_after_the_finish_reason_costs_nothing() -> None:
    """The answer is whole; only usage and [DONE] are missing."""
    cut = stream(chunk("Hello", finish="stop")).replace(b"\r\n\r\n", b"\r\nContent-Length: 9999\r\n\r\n", 1)
    completion, _ = await ask(cut)
    assert completion.text == "Hello"


@pytest.mark.parametrize("after", ["{broken", '{"error": {"message": "late", "code": 500}}', '{"choices": [3]}'])
async def test_what_follows_the_finish_reason_takes_no_answer_away(after: str) -> None:
    completion, _ = await ask(stream(chunk("Hello", finish="stop"), after, "[DONE]"))
    assert not isinstance(completion, ProviderError), completion
    assert completion.text == "Hello"


async def test_usage_and_model_come_from_the_service() -> None:
    answer = stream(chunk("Hello", finish="length"), json.dumps({"choices": [], "usage": USAGE}), "[DONE]")
    completion, wire = await ask(answer)
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, 2)
    assert (completion.model, completion.finish_reason) == ("m-1", "length")
    assert wire.requests[0][2]["stream_options"] == {"include_usage": True}


async def test_tool_call_is_an_answer() -> None:
    """Its arguments come in pieces."""
    first = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":'}}]
    rest = [{"index": 0, "function": {"arguments": "1}"}}]
    answer = stream(chunk(tool_calls=first), chunk(tool_calls=rest), chunk(finish="tool_calls"), "[DONE]")
    completion, _ = await ask(answer)
    assert completion.text is None
    assert completion.tool_calls == [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    ]


async def test_refusal_carries_its_text() -> None:
    error, _ = await ask(stream(chunk(refusal="I can't "), chunk(refusal="help."), chunk(finish="stop")))
    assert error.message == "I can't help."


async def test_server_that_knows_no_stream_options_is_asked_without() -> None:
    refusal = whole({"error": {"message": "Unrecognized field: stream_options"}}, "400 Bad Request")
    completion, wire = await ask(refusal, stream(chunk("Hello", finish="stop"), "[DONE]"))
    assert completion.text == "Hello"
    assert "stream_options" not in wire.requests[1][2]


@pytest.mark.parametrize(
    ("path", "target"),
    [("", "/v1/chat/completions"), ("/", "/v1/chat/completions"), ("/v1", "/v1/chat/completions"),
     ("/v1/", "/v1/chat/completions"), ("/api/openai", "/api/openai/chat/completions"),
     ("/v1/chat/completions", "/v1/chat/completions")],
)  # fmt: skip
async def test_base_url_may_have_a_path_or_none(path: str, target: str) -> None:
    _, wire = await ask(whole({"choices": [{"message": {"content": "x"}}]}), path=path)
    assert wire.requests[0][0] == target


async def test_request_holds_what_was_asked_and_an_honest_agent() -> None:
    request = ChatRequest(
        messages=[{"role": "user", "content": "hi"}],
        system="Be brief.",
        model="other",
        params={"temperature": 0, "seed": 7},
        given=1,
    )
    _, wire = await ask(
        whole({"choices": [{"message": {"content": "x"}}]}), request=request, api_key_env="KEY", headers={"X-Team": "a"}
    )
    _, headers, body = wire.requests[0]
    assert body == {
        "model": "other",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "temperature": 0,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert headers["authorization"] == "Bearer sk-1"
    assert headers["x-team"] == "a"
    assert headers["user-agent"].startswith("batchchat/")


async def test_deltas_stream_as_they_come_and_make_the_text() -> None:
    async with wired(stream(chunk("Hel"), chunk("lo"), chunk(finish="stop"), "[DONE]")) as wire:
        async with OpenAIChat(OpenAIChatConfig(base_url=wire.base_url, model="m"), ProviderContext()) as provider:
            events = [event async for event in provider.stream(HELLO)]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    assert [event.completion.text for event in events if isinstance(event, StreamEnd)] == ["Hello"]


@pytest.mark.parametrize("status", ["301 X", "302 X", "303 X", "307 X"])
async def test_redirect_to_another_host_is_told_and_not_followed(status: str) -> None:
    location = "Location: https://other.example/v1/chat/completions\r\n"
    error, wire = await ask(whole(b"", status, location))
    assert error.type == "protocol"
    assert error.stops_run
    assert "--base-url https://other.example/v1" in error.message
    assert len(wire.requests) == 1


async def test_permanent_redirect_on_the_same_host_is_followed_with_its_body() -> None:
    location = "Location: /api/v1/chat/completions\r\n"
    completion, wire = await ask(whole(b"", "308 X", location), whole({"choices": [{"message": {"content": "x"}}]}))
    assert completion.text == "x"
    assert [request[0] for request in wire.requests] == ["/v1/chat/completions", "/api/v1/chat/completions"]
    assert wire.requests[1][2]["messages"] == HELLO.messages


async def test_silence_before_the_answer_ends_with_the_attempt_clock() -> None:
    error, _ = await ask(b"HTTP/1.1 200 OK\r\n\r\nHOLD".replace(b"HOLD", b""), context=ProviderContext(attempt_s=0.2))
    assert error.type in ("timeout", "incomplete")


async def test_silence_in_the_middle_ends_with_the_idle_clock() -> None:
    answer = stream(chunk("Hel")) + b": HOLD"
    error, _ = await ask(answer, context=ProviderContext(idle_s=0.2, attempt_s=30))
    assert error.type == "timeout"
    assert "--idle-timeout" in error.message
    assert error.partial == "Hel"


async def test_silence_after_the_head_ends_with_the_attempt_clock_not_the_idle_one() -> None:
    """Services stay silent until the first token."""
    answer = b"HTTP/1.1 200 OK\r\nX-Pad: HOLD"
    error, _ = await ask(answer, context=ProviderContext(idle_s=0.05, attempt_s=0.4))
    assert error.type == "timeout"
    assert "--timeout" in error.message


async def test_answer_above_the_ceiling_is_given_up() -> None:
    error, _ = await ask(stream(chunk("x" * 5000)), context=ProviderContext(max_response_bytes=1000))
    assert error.type == "protocol"
    assert "--max-response-bytes" in error.message


async def test_refused_connection_is_network() -> None:
    async with OpenAIChat(OpenAIChatConfig(base_url="http://127.0.0.1:9", model="m"), ProviderContext()) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.complete(HELLO)
    assert caught.value.type == "network"
    assert caught.value.may_retry


async def test_plain_http_server_behind_https_is_one_sentence() -> None:
    async with wired(whole(b"x")) as wire:
        config = OpenAIChatConfig(base_url=wire.base_url.replace("http:", "https:"), model="m")
        async with OpenAIChat(config, ProviderContext()) as provider:
            with pytest.raises(ProviderError) as caught:
                await provider.complete(HELLO)
    assert caught.value.type == "network"


async def test_missing_model_stops_the_run() -> None:
    error, _ = await ask(whole(b"x"), model=None)
    assert error.type == "invalid_request"
    assert error.stops_run
    assert "--model" in error.message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": None}, "--base-url"),
        ({"base_url": "ftp://x"}, "http"),
        ({"base_url": "http://"}, "http"),
        ({"base_url": "http://x:99999"}, "address"),
        ({"base_url": "http://x", "api_key_env": "UNSET"}, "UNSET"),
    ],
)
def test_settings_that_cannot_work_are_told_before_any_request(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OpenAIChat(OpenAIChatConfig(**settings), ProviderContext())
