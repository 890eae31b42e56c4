"""What is sent and understood is what OpenAI's own client sends and understands."""

from typing import Any, get_type_hints

import openai
import pydantic
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from batchchat.devserver import DevServer, RequestRecord, Scenario
from batchchat.errors import ProviderError
from batchchat.providers.base import ChatRequest, ProviderContext
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig

ASKED = "a question with some words"
HTTP = {"max_retries": 0}


async def ours(
    server: DevServer, path: str = "/v1", request: ChatRequest | None = None, **settings: Any
) -> RequestRecord:
    config = OpenAIChatConfig(**{"base_url": server.base_url + path, "model": "m", **settings})
    async with OpenAIChat(config, ProviderContext(environ={"OPENAI_API_KEY": "key-1234"})) as provider:
        completion = await provider.complete(request or ChatRequest(messages=[{"role": "user", "content": ASKED}]))
    assert completion.text == f"Echo: {ASKED}"
    return server.chats[-1]


def told(record: RequestRecord) -> tuple[Any, ...]:
    """What says where a request goes and for whom."""
    names = ("authorization", "api-key", "openai-organization", "openai-project", "content-type")
    return record.method, record.path, {name: record.headers.get(name) for name in names}


async def test_azure_is_addressed_as_its_client_does_it() -> None:
    async with DevServer(Scenario(api_key="key-1234")) as server:
        base = f"{server.base_url}/openai/deployments/mini"
        async with openai.AsyncAzureOpenAI(
            api_key="key-1234", api_version="2024-10-21", base_url=base, **HTTP
        ) as client:
            await client.chat.completions.create(model="mini", messages=[{"role": "user", "content": ASKED}])
        theirs = server.chats[-1]
        mine = await ours(server, "/openai/deployments/mini", api_version="2024-10-21", model=None)
        assert told(mine) == told(theirs)


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_service_is_addressed_as_its_client_does_it(api: str) -> None:
    async with DevServer(Scenario(api_key="key-1234")) as server:
        async with openai.AsyncOpenAI(
            api_key="key-1234", organization="org", project="proj", base_url=f"{server.base_url}/v1", **HTTP
        ) as client:
            if api == "chat":
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": ASKED}])
            else:
                await client.responses.create(model="m", input=[{"role": "user", "content": ASKED}], store=False)
        theirs = server.chats[-1]
        mine = await ours(server, api=api, organization="org", project="proj", stream=False)
        assert told(mine) == told(theirs)
        assert mine.body == theirs.body


REQUEST = ChatRequest(
    messages=[
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
        {"role": "assistant", "content": "so 3"},
        {"role": "user", "content": [{"type": "text", "text": ASKED}]},
    ],
    system="Be brief.",
    params={"temperature": 0, "max_completion_tokens": 9, "reasoning_effort": "low", "top_p": 1,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": False}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}}},
    answer_schema={"type": "object"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("api", "form"), [("chat", CompletionCreateParamsStreaming), ("responses", ResponseCreateParamsStreaming)]
)
async def test_request_is_of_the_type_that_the_client_takes(api: str, form: Any) -> None:
    async with DevServer() as server:
        body = (await ours(server, api=api, request=REQUEST)).body
    assert set(body) <= set(get_type_hints(form))
    pydantic.TypeAdapter(form).validate_python(body)


@pytest.mark.parametrize("stream", [True, False])
async def test_answers_of_the_development_server_are_understood_by_the_client(stream: bool) -> None:
    async with (
        DevServer() as server,
        openai.AsyncOpenAI(api_key="k", base_url=f"{server.base_url}/v1", **HTTP) as client,
    ):
        if not stream:
            response = await client.responses.create(model="m", input=ASKED)
        else:
            async with client.responses.stream(model="m", input=ASKED) as events:
                kinds = [event.type async for event in events]
                response = await events.get_final_response()
            assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert response.output_text == f"Echo: {ASKED}"
        assert (response.status, response.usage.input_tokens, response.usage.output_tokens) == ("completed", 5, 6)


FAULTS = {
    "error_429": "rate_limit", "error_500": "server", "error_502_html": "server", "error_503": "server", "cut_mid_event": "incomplete",
    "cut_mid_character": "incomplete", "cut_no_end": "incomplete", "cut_reset": "incomplete", "reset_before": "network",
    "html_200": "protocol", "html_403": "blocked", "empty_reply": "incomplete", "error_event": "server", "error_in_stream": "server",
    "choices_empty": "incomplete", "content_null": "incomplete", "refusal": "refused", "content_filter": "refused",
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
async def test_faults_of_the_responses_api_are_told_as_what_they_are(fault: str, stream: bool) -> None:
    async with DevServer(Scenario(**{fault: 1.0})) as server:
        config = OpenAIChatConfig(base_url=server.base_url, model="m", api="responses", stream=stream)
        async with OpenAIChat(config, ProviderContext()) as provider:
            with pytest.raises(ProviderError) as caught:
                await provider.complete(ChatRequest(messages=[{"role": "user", "content": ASKED}]))
    assert caught.value.type == FAULTS[fault]


async def test_tool_call_of_the_responses_api_is_an_answer() -> None:
    async with DevServer(Scenario(tool_call=1)) as server:
        async with OpenAIChat(
            OpenAIChatConfig(base_url=server.base_url, model="m", api="responses"), ProviderContext()
        ) as provider:
            completion = await provider.complete(ChatRequest(messages=[{"role": "user", "content": ASKED}]))
    assert completion.tool_calls == [
        {"id": "call_echo", "type": "function", "function": {"name": "echo", "arguments": '{"text": "echo"}'}}
    ]
