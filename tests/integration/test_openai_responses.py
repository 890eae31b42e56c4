"""The Responses API: what is sent, what its events make, and that only a terminal event makes an answer."""

import json
from typing import Any

import pytest

from batchchat.errors import ProviderError
from batchchat.providers.base import ChatRequest, ProviderContext, StreamEnd, TextDelta
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig
from batchchat.providers.openai_request import responses_body
from batchchat.responses_input import chat_from_responses
from tests.wire import HELLO, ask, stream, whole, wired

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 16,
}


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "sequence_number": 1, **fields})


def delta(text: str) -> str:
    return event("response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta=text)


def response(*parts: dict[str, Any], status: str = "completed", **fields: Any) -> dict[str, Any]:
    message = {"type": "message", "role": "assistant", "status": "completed", "content": list(parts)}
    head = {"id": "resp_1", "object": "response", "model": "m-1", "error": None, "incomplete_details": None}
    return {**head, "status": status, "output": [message] if parts else [], "usage": USAGE, **fields}


def text(value: str) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": []}


def ended(*parts: dict[str, Any], status: str = "completed", **fields: Any) -> str:
    return event(f"response.{status}", response=response(*parts, status=status, **fields))


BEGUN = [event("response.created", response=response(status="in_progress")), delta("Hel"), delta("lo")]


@pytest.mark.parametrize(
    "answer",
    [
        stream(*BEGUN, ended(text("Hello"))),
        stream(*BEGUN, ended(text("Hel"), text("lo"))),
        stream(*BEGUN, ended()),  # a server whose last event repeats nothing
        stream(*BEGUN, ended(text("Hello")), "[DONE]"),
        stream(*BEGUN, ended(text("Hello")), field="event: x\ndata: "),
        stream(*BEGUN, ended(text("Hello"))).removesuffix(b"\n\n"),
        stream(event("response.reasoning_text.delta", delta="hm"), event("response.brand_new.delta", delta="x"), *BEGUN,
               event("response.output_text.done", text="Hello"), ended(text("Hello"))),
        stream(event("response.keepalive"), ended(text("Hello"))),
        whole(response(text("Hello"))),
        whole(response(text("Hello"), output=[{"type": "reasoning", "summary": [], "content": [text("hm")]},
                                              {"type": "message", "content": [text("Hello")]}])),
    ],
)  # fmt: skip
async def test_every_form_gives_the_text_and_what_it_cost(answer: bytes) -> None:
    completion, wire = await ask(answer, api="responses")
    assert not isinstance(completion, ProviderError), completion
    assert (completion.text, completion.finish_reason, completion.model) == ("Hello", "stop", "m-1")
    usage = completion.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (9, 7, 4, 5)
    assert wire.requests[0][0] == "/v1/responses"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (stream(*BEGUN), "incomplete"),
        (stream(*BEGUN, "[DONE]"), "incomplete"),
        (stream(*BEGUN, event("response.output_text.done", text="Hello"), event("response.output_item.done")), "incomplete"),
        (stream(*BEGUN, ended(text("Hello"))[:60]).removesuffix(b"\n\n"), "incomplete"),
        (stream(ended(text(" "))), "incomplete"),
        (stream(ended()), "incomplete"),
        (stream(*BEGUN, "{broken"), "protocol"),
        (stream(*BEGUN, event("response.completed")), "protocol"),
        (stream(*BEGUN, event("error", code="rate_limit_exceeded", message="slow down", param=None)), "rate_limit"),
        (stream(event("error", code=None, message="something went wrong", param=None)), "server"),
        (stream(event("error", error={"type": "server_error", "message": "x"})), "server"),
        (stream(*BEGUN, ended(status="failed", error={"code": "server_error", "message": "sorry"})), "server"),
        (stream(ended(status="failed", error={"code": "invalid_prompt", "message": "no"})), "invalid_request"),
        (stream(ended(status="failed", error={"code": "insufficient_quota", "message": "no"})), "quota"),
        (stream(ended(status="failed")), "server"),
        (stream(ended(text("Hel"), status="incomplete", incomplete_details={"reason": "content_filter"})), "refused"),
        (stream(event("response.refusal.delta", delta="No."), ended({"type": "refusal", "refusal": "No."})), "refused"),
        (whole(response(status="failed", error={"code": "server_error", "message": "sorry"})), "server"),
        (whole(response(status="in_progress")), "server"),
        (whole(response(status="cancelled")), "server"),
        (whole({"choices": [{"message": {"content": "a chat completion"}}]}), "protocol"),
        (whole(b"<html>hello</html>"), "protocol"),
        (whole({"error": {"message": "Invalid URL", "type": "invalid_request_error"}}, "404 X"), "invalid_request"),
        (whole(response({"type": "output_text", "text": 5}, {"type": "refusal"}, output=[3, {"content": 4}])), "incomplete"),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_told_as_what_it_is(answer: bytes, kind: str) -> None:
    error, _ = await ask(answer, api="responses")
    assert isinstance(error, ProviderError), error
    assert error.type == kind
    assert "\n" not in error.message


async def test_text_of_a_cut_answer_is_kept_as_partial() -> None:
    error, _ = await ask(stream(*BEGUN), api="responses")
    assert error.partial == "Hello"


@pytest.mark.parametrize("kept", range(1, 60, 3))
async def test_stream_that_is_cut_anywhere_is_incomplete_and_worth_another_try(kept: int) -> None:
    whole_stream = stream(*BEGUN, ended(text("Hello")), field="event: response.created\ndata: ")
    head, gap, body = whole_stream.partition(b"\r\n\r\n")
    error, _ = await ask(head + gap + body[:kept], api="responses")
    assert isinstance(error, ProviderError), error
    assert error.type == "incomplete"


async def test_refusal_carries_its_text() -> None:
    error, _ = await ask(whole(response({"type": "refusal", "refusal": "I can't help."})), api="responses")
    assert error.message == "I can't help."


@pytest.mark.parametrize("details", [{"reason": "max_output_tokens"}, None, {}])
async def test_answer_that_met_its_length_is_an_answer(details: Any) -> None:
    answer = stream(*BEGUN, ended(text("Hello"), status="incomplete", incomplete_details=details))
    completion, _ = await ask(answer, api="responses")
    assert (completion.text, completion.finish_reason) == ("Hello", "length")


@pytest.mark.parametrize("after", ["{broken", event("error", code="server_error", message="late")])
async def test_what_follows_the_terminal_event_takes_no_answer_away(after: str) -> None:
    completion, _ = await ask(stream(*BEGUN, ended(text("Hello")), after), api="responses")
    assert completion.text == "Hello"


async def test_function_call_is_an_answer_in_the_form_of_chat_completions() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
    for answer in (
        stream(event("response.output_item.done", item=call), ended(output=[call])),
        whole(response(output=[call])),
    ):
        completion, _ = await ask(answer, api="responses")
        assert (completion.text, completion.finish_reason) == (None, "tool_calls")
        assert completion.tool_calls == [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
        ]


async def test_deltas_stream_as_they_come() -> None:
    async with wired(stream(*BEGUN, ended(text("Hello")))) as wire:
        config = OpenAIChatConfig(base_url=wire.base_url, model="m", api="responses")
        async with OpenAIChat(config, ProviderContext()) as provider:
            events = [event async for event in provider.stream(HELLO)]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    assert [event.completion.text for event in events if isinstance(event, StreamEnd)] == ["Hello"]


async def sent(request: ChatRequest, **settings: Any) -> dict[str, Any]:
    _, wire = await ask(whole(response(text("x"))), request=request, api="responses", **settings)
    return wire.requests[0][2]


async def test_prompt_is_sent_as_instructions_and_input_and_is_not_stored() -> None:
    request = ChatRequest(
        messages=[{"role": "user", "content": "hi"}], system="Be brief.", params={"temperature": 0, "max_tokens": 5}
    )
    assert await sent(request) == {
        "model": "m",
        "instructions": "Be brief.",
        "input": [{"role": "user", "content": "hi"}],
        "store": False,
        "temperature": 0,
        "max_output_tokens": 5,
        "stream": True,
    }


async def test_parts_calls_and_their_results_have_their_names_there() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
            {"type": "new_part", "x": 1},
        ]},
        {"role": "assistant", "content": [{"type": "text", "text": "Adding."}], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "user", "content": "And?"},
    ]  # fmt: skip
    body = await sent(ChatRequest(messages=messages))
    assert body["instructions"] == "Be kind."
    assert body["input"] == [
        {"role": "user", "content": [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
            {"type": "new_part", "x": 1},
        ]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Adding."}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {"role": "user", "content": "And?"},
    ]  # fmt: skip


async def test_parameters_of_chat_completions_have_their_names_there() -> None:
    function = {"name": "add", "parameters": {"type": "object"}}
    params = {
        "reasoning_effort": "low",
        "reasoning": {"summary": "auto"},
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        "tools": [{"type": "function", "function": function}, {"type": "web_search"}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "n": 1,
        "store": True,
        "input": "no",
        "text": "odd",
    }
    body = await sent(ChatRequest(messages=[{"role": "user", "content": "hi"}], params={**params, "text": {}}))
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["text"] == {
        "verbosity": "low",
        "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True},
    }
    assert body["tools"] == [{"type": "function", **function}, {"type": "web_search"}]
    assert body["tool_choice"] == {"type": "function", "name": "add"}
    assert body["store"] is True
    assert body["input"] == [{"role": "user", "content": "hi"}]
    assert "n" not in body


@pytest.mark.parametrize(
    "body",
    [
        {"input": [{"role": "user", "content": "hi"}]},
        {"instructions": "Be brief.", "input": [{"role": "user", "content": "hi"}], "temperature": 0, "max_output_tokens": 5},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"},
                                                {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"}]}]},
        {"input": [{"role": "user", "content": "hi"}], "reasoning": {"effort": "low"}, "store": True, "metadata": {"a": "b"},
         "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}}},
        {"input": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "name": "f", "parameters": {}}],
         "tool_choice": {"type": "function", "name": "f"}},
        {"input": [{"role": "user", "content": "2+1?"},
                   {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                   {"type": "function_call_output", "call_id": "c", "output": "3"}]},
    ],
)  # fmt: skip
def test_batch_line_of_the_responses_api_is_sent_as_it_was_written(body: dict[str, Any]) -> None:
    messages, params = chat_from_responses(body)
    assert (
        responses_body(ChatRequest(messages=messages, params=params), None, structured=True) == {"store": False} | body
    )


async def test_schema_goes_as_the_text_format() -> None:
    schema = {"type": "object"}
    body = await sent(ChatRequest(messages=[{"role": "user", "content": "hi"}], answer_schema=schema))
    assert body["text"] == {"format": {"type": "json_schema", "name": "answer", "schema": schema}}
