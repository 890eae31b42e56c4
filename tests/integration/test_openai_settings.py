"""What the ``openai`` provider sends where, with which key, and what it does with schemas and several choices."""

import json
import sys
from typing import Any

import pytest

from batchchat.errors import ConfigError, ProviderError
from batchchat.providers.base import ChatRequest, ProviderContext, schema_instruction
from batchchat.providers.openai import EndpointConfig, OpenAIChat, OpenAIChatConfig
from tests.wire import ask, chunk, stream, whole

ANSWER = whole({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})
SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
ASKED = ChatRequest(messages=[{"role": "user", "content": "hi"}], answer_schema=SCHEMA)


def test_azure_and_others_have_their_addresses_and_keys() -> None:
    cases: list[tuple[dict[str, Any], str, str | None]] = [
        ({"base_url": "https://h.openai.azure.com/openai/deployments/d", "api_version": "2024-10-21"},
         "https://h.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21", "api-key"),
        ({"base_url": "https://h.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21"},
         "https://h.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21", "api-key"),
        ({"base_url": "https://h.openai.azure.com/openai/v1/"},
         "https://h.openai.azure.com/openai/v1/chat/completions", "api-key"),
        ({"base_url": "https://h.openai.azure.com"}, "https://h.openai.azure.com/openai/v1/chat/completions", "api-key"),
        ({"base_url": "https://h.openai.azure.com", "api": "responses", "auth": "bearer"},
         "https://h.openai.azure.com/openai/v1/responses", "Authorization"),
        ({"base_url": "https://gateway.example/azure/d", "api_version": "2024-10-21"},
         "https://gateway.example/azure/d/chat/completions?api-version=2024-10-21", "api-key"),
        ({"base_url": "https://gateway.example/x?team=a%20b&q=1"},
         "https://gateway.example/x/chat/completions?team=a%20b&q=1", "Authorization"),
        ({"base_url": "https://gateway.example?team=1", "api_version": "preview", "auth": "bearer"},
         "https://gateway.example/v1/chat/completions?team=1&api-version=preview", "Authorization"),
        ({"base_url": "http://127.0.0.1:8080", "auth": "api-key"}, "http://127.0.0.1:8080/v1/chat/completions", "api-key"),
        ({"base_url": "https://evil-openai.azure.com.example/v1"},
         "https://evil-openai.azure.com.example/v1/chat/completions", "Authorization"),
    ]  # fmt: skip
    for settings, url, header in cases:
        provider = OpenAIChat(
            OpenAIChatConfig(model="m", **settings), ProviderContext(environ={"OPENAI_API_KEY": "key-1234"})
        )
        endpoint = provider._endpoints[0]
        assert endpoint.url == url
        value = "key-1234" if header == "api-key" else "Bearer key-1234"
        assert {name: text for name, text in endpoint.headers.items() if "key-1234" in text} == {header: value}


async def test_request_carries_version_organization_and_project() -> None:
    _, wire = await ask(
        ANSWER, path="/openai/deployments/d", api_version="2024-10-21", api_key_env="KEY", model=None,
        organization="org-1", project="proj-1",
        context=ProviderContext(environ={"KEY": "key-1234"}),
    )  # fmt: skip
    target, headers, body = wire.requests[0]
    assert target == "/openai/deployments/d/chat/completions?api-version=2024-10-21"
    assert (headers["api-key"], headers["openai-organization"], headers["openai-project"]) == (
        "key-1234",
        "org-1",
        "proj-1",
    )
    assert "authorization" not in headers
    assert "model" not in body  # the deployment is the model


async def test_header_that_the_user_gives_takes_the_place_of_ours() -> None:
    _, wire = await ask(
        ANSWER,
        api_key_env="KEY",
        headers={"authorization": "Basic abc", "openai-organization": "mine"},
        organization="org-1",
    )
    _, headers, _ = wire.requests[0]
    assert (headers["authorization"], headers["openai-organization"]) == ("Basic abc", "mine")


async def test_content_filter_of_azure_is_a_refusal() -> None:
    error = {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }  # fmt: skip
    told, _ = await ask(whole({"error": error}, "400 Bad Request"))
    assert (told.type, told.status) == ("refused", 400)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "https://h.openai.azure.com", "api_version": "2024-10-21"}, "deployments"),
        ({"base_url": "https://h.openai.azure.com/openai/deployments/d", "api": "responses"}, "openai/v1"),
        ({"base_url": "https://h/x?api-version=1", "api_version": "2"}, "api-version"),
        ({"base_url": "https://h/v1", "endpoints": [EndpointConfig(base_url="https://i/v1")]}, "both"),
        ({"endpoints": [EndpointConfig(base_url="ftp://i/v1")]}, "http"),
        ({"base_url": "https://h/v1", "api_key_env": "A", "api_key_command": "b"}, "api_key_env and api_key_command"),
        ({"endpoints": [EndpointConfig(base_url="https://i/v1", api_key_command="b", api_key_keyring="c/d")]}, "one source"),
        ({"base_url": "https://h/v1", "api_key_command": "pass 'x"}, "quot"),
        ({"base_url": "https://h/v1", "api_key_command": " "}, "expected a command"),
        ({"base_url": "https://h/v1", "api_key_keyring": "openai"}, "service/user"),
        ({"base_url": "https://h/v1", "organization": "a\nb"}, "organization"),
        ({"base_url": "https://u:pw@h/v1", "api_key_env": "KEY"}, "user name"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_told_before_any_request(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){words}"):
        OpenAIChat(OpenAIChatConfig(**settings), ProviderContext(environ={"KEY": "key-1234"}))


async def test_schema_is_sent_as_response_format() -> None:
    _, wire = await ask(ANSWER, request=ASKED)
    body = wire.requests[0][2]
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert body["messages"] == ASKED.messages


async def test_response_format_of_the_prompt_itself_counts() -> None:
    request = ChatRequest(
        messages=ASKED.messages, answer_schema=SCHEMA, params={"response_format": {"type": "json_object"}}
    )
    _, wire = await ask(ANSWER, request=request)
    assert wire.requests[0][2]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    "refusal",
    [
        whole(
            {"error": {"message": "Invalid parameter: 'response_format' of type 'json_schema' is not supported"}},
            "400 X",
        ),
        whole({"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text'"}]}, "422 X"),
        whole(b"unknown field: response_format", "400 X"),
    ],
)
@pytest.mark.parametrize(
    ("messages", "system", "told"),
    [
        ([], None, schema_instruction(SCHEMA)),
        ([], "Be brief.", f"Be brief.\n\n{schema_instruction(SCHEMA)}"),
        ([{"role": "developer", "content": "Be kind."}], None, f"Be kind.\n\n{schema_instruction(SCHEMA)}"),
        ([{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}], None,
         [{"type": "text", "text": "Be kind."}, {"type": "text", "text": schema_instruction(SCHEMA)}]),
    ],
)  # fmt: skip
async def test_service_that_refuses_schemas_is_told_in_words_from_then_on(
    refusal: bytes, messages: list[dict[str, Any]], system: str | None, told: Any
) -> None:
    notices: list[tuple[str, int]] = []
    context = ProviderContext(notice=lambda message, level: notices.append((message, level)))
    request = ChatRequest(messages=[*messages, *ASKED.messages], system=system, answer_schema=SCHEMA)
    completion, wire = await ask(refusal, ANSWER, request=request, context=context)
    assert completion.text == "x"
    first, second = (body for _, _, body in wire.requests)
    assert "response_format" in first
    assert "response_format" not in second
    assert second["messages"][0]["content"] == told
    assert [message["role"] in ("system", "developer") for message in second["messages"]].count(True) == 1
    assert [level for _, level in notices] == [1]


@pytest.mark.parametrize(
    "error",
    [
        {"message": "maximum context length is 10 tokens; see response_format", "code": "context_length_exceeded"},
        {"message": "filtered, response_format or not", "code": "content_filter"},
        {"message": "temperature must be below 2"},
    ],
)
async def test_other_refusals_of_a_request_with_a_schema_are_told(error: dict[str, Any]) -> None:
    told, wire = await ask(whole({"error": error}, "400 X"), request=ASKED)
    assert isinstance(told, ProviderError)
    assert len(wire.requests) == 1


def many(*choices: tuple[int, str | None, str | None]) -> bytes:
    """A stream of pieces of several choices."""
    pieces = [
        {
            "choices": [
                {"index": index, "delta": {"content": content} if content is not None else {}, "finish_reason": finish}
            ]
        }
        for index, content, finish in choices
    ]
    return stream(*map(json.dumps, pieces))


THREE = ChatRequest(messages=ASKED.messages, params={"n": 3})
WHOLE_THREE = [{"index": n, "message": {"content": f"text {n}"}, "finish_reason": "stop"} for n in range(3)]


@pytest.mark.parametrize(
    "answer",
    [
        many((0, "te", None), (1, "text", None), (0, "xt 0", "stop"), (2, "text 2", None), (1, " 1", "stop"), (2, None, "stop")),
        many((2, "text 2", "stop"), (1, "text 1", "stop"), (0, "text 0", "stop")),
        whole({"choices": WHOLE_THREE}),
        whole({"choices": WHOLE_THREE[::-1]}),
        whole({"choices": [{key: value for key, value in choice.items() if key != "index"} for choice in WHOLE_THREE]}),
    ],
)  # fmt: skip
async def test_every_choice_that_was_paid_for_is_kept(answer: bytes) -> None:
    completion, _ = await ask(answer, request=THREE)
    assert completion.text == "text 0"
    assert completion.choices == ["text 0", "text 1", "text 2"]


async def test_choices_that_the_service_gives_unasked_are_kept() -> None:
    completion, _ = await ask(whole({"choices": WHOLE_THREE}))
    assert completion.choices == ["text 0", "text 1", "text 2"]


async def test_service_that_knows_no_n_gives_one_answer() -> None:
    completion, _ = await ask(stream(chunk("x", finish="stop"), "[DONE]"), request=THREE)
    assert (completion.text, completion.choices) == ("x", None)


async def test_first_choice_that_is_an_answer_is_the_response() -> None:
    completion, _ = await ask(many((0, "a", "content_filter"), (1, "b", "stop"), (2, "", "stop")), request=THREE)
    assert (completion.text, completion.choices) == ("b", [None, "b", None])


@pytest.mark.parametrize("cut", [many((0, "a", "stop"), (1, "b", None)), many((1, "b", "stop"), (0, "a", None))])
async def test_stream_that_ends_inside_a_choice_is_incomplete(cut: bytes) -> None:
    error, _ = await ask(cut, request=THREE)
    assert error.type == "incomplete"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_thoughts_are_no_part_of_the_answer(name: str) -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "Hello"},
    ]
    for answer in (
        stream(chunk(**{name: "hm"}), chunk("Hello", **{name: "hm"}), chunk(finish="stop")),
        whole({"choices": [{"message": {"content": "Hello", name: "hm"}, "finish_reason": "stop"}]}),
        whole({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}),
    ):
        completion, _ = await ask(answer)
        assert completion.text == "Hello"
    error, _ = await ask(stream(chunk(**{name: "only thoughts"}), chunk(finish="length")))
    assert error.type == "incomplete"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4},
          "completion_tokens_details": {"reasoning_tokens": 5}}, (9, 7, 4, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 7, "prompt_cache_hit_tokens": 4}, (9, 7, 4, None)),
        ({"prompt_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": None}, (9, 0, None, None)),
        ({"prompt_tokens": 10**400, "completion_tokens": 10**13, "prompt_cache_hit_tokens": 2**64}, (None, None, None, None)),
        ({"prompt_tokens": "9", "completion_tokens": -1, "prompt_tokens_details": {"cached_tokens": True}}, (None, None, None, None)),
    ],
)  # fmt: skip
async def test_cached_and_reasoning_tokens_are_kept_apart(usage: dict[str, Any], counts: tuple[Any, ...]) -> None:
    answer = whole({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage})
    completion, _ = await ask(answer)
    told = completion.usage
    assert (told.input_tokens, told.output_tokens, told.cached_tokens, told.reasoning_tokens) == counts


ECHOES = [
    (
        "401 X",
        lambda secret: {"error": {"message": f"Incorrect API key provided: {secret}", "code": "invalid_api_key"}},
    ),
    ("400 X", lambda secret: {"error": {"message": f"no {secret}", "code": secret, "type": secret}}),
    ("500 X", lambda secret: f"<html>{secret}</html>".encode()),
    ("418 X", lambda secret: secret.encode()),
    ("200 OK", lambda secret: {"error": {"message": secret}}),
    ("307 X", lambda _: b""),
]


@pytest.mark.parametrize("source", ["env", "command", "query", "header"])
@pytest.mark.parametrize(("status", "body"), ECHOES)
async def test_key_that_the_service_echoes_is_never_told(status: str, body: Any, source: str) -> None:
    secret = 'sk-very"secret/key+1'.replace('"', "")
    settings: dict[str, Any] = {
        "env": {"api_key_env": "KEY"},
        "command": {"api_key_command": f"{sys.executable} -c 'print(\"{secret}\")'"},
        "query": {"path": "/v1?token=" + secret.replace("+", "%2B")},
        "header": {"headers": {"X-Auth": secret}},
    }[source]
    notices: list[str] = []
    context = ProviderContext(environ={"KEY": secret}, notice=lambda message, _: notices.append(message))
    extra = f"Location: http://other.example/{secret}\r\nX-Echo: {secret}\r\n"
    error, wire = await ask(whole(body(secret), status, extra), context=context, **settings)
    assert isinstance(error, ProviderError)
    assert secret in str(wire.requests[0]) or secret.replace("+", "%2B") in str(wire.requests[0])
    assert secret not in f"{error.message} {error.partial} {notices}"
