"""A service without structured answers is told of the schema where its system prompt stands."""

import json

import pytest

from batchchat.devserver import DevServer, Scenario
from batchchat.providers.ai_engine import AIEngine, AIEngineConfig
from batchchat.providers.base import ChatRequest, ProviderContext, schema_instruction

SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}}


@pytest.mark.parametrize("system", [None, "Be brief."])
async def test_ai_engine_is_told_in_its_instructions(system: str | None) -> None:
    request = ChatRequest(messages=[{"role": "user", "content": "/debug"}], system=system, answer_schema=SCHEMA)
    async with DevServer() as server, AIEngine(AIEngineConfig(base_url=server.base_url), ProviderContext()) as provider:
        seen = json.loads((await provider.complete(request)).text)
    assert seen["instructions"] == "\n\n".join(filter(None, (system, schema_instruction(SCHEMA))))
    assert seen["prompt"] == "/debug"


async def test_public_api_is_told_behind_the_prompt_as_it_takes_no_instructions() -> None:
    request = ChatRequest(messages=[{"role": "user", "content": "/debug"}], answer_schema=SCHEMA, given=1)
    config = {"api": "public", "api_key_env": "TOKEN"}
    context = ProviderContext(environ={"TOKEN": "token-1234"})
    async with DevServer(Scenario(public_api_token="token-1234")) as server:
        async with AIEngine(AIEngineConfig(base_url=server.base_url, **config), context) as provider:
            seen = json.loads((await provider.complete(request)).text)
    assert seen["prompt"] == f"/debug\n\n{schema_instruction(SCHEMA)}"


def test_instruction_holds_the_schema_as_json() -> None:
    assert json.loads(schema_instruction(SCHEMA).partition("\n")[2]) == SCHEMA
