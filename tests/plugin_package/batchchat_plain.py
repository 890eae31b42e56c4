"""Provider ``plain``: a service that takes ``{"text": …}`` at /generate and answers ``{"text": …}``."""

import msgspec

from batchchat.errors import IncompleteError, ServerError
from batchchat.providers.base import StreamEnd, api_key, text_of
from batchchat.providers.http import HttpClient
from batchchat.providers.status import status_error
from batchchat.records import Completion


class PlainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a plain service.

    Attributes:
        base_url: Its address.
        api_key_env: Environment variable that holds its key.
        shout: Whether prompts are sent in capitals.
    """

    base_url: str
    api_key_env: str | None = None
    shout: bool = False


class Plain:
    """Provider ``plain``: text in, text out."""

    kind = "plain"
    Config = PlainConfig

    def __init__(self, config, context):
        self.config, self._gate, self._http = config, context.gate, HttpClient(context)
        key = api_key(context.environ, config.api_key_env, required=True)
        self._headers = {"Content-Type": "application/json"} | ({"X-Key": key} if key else {})

    async def __aenter__(self):
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_):
        await self._http.__aexit__()

    def identity(self, prompt, params):
        return {"kind": self.kind, "shout": self.config.shout, "messages": prompt.messages, "params": dict(params)}

    async def complete(self, request):
        text = text_of(request.messages[-1]["content"])
        body = msgspec.json.encode({"text": text.upper() if self.config.shout else text})
        await self._gate.admit()
        async with self._http.exchange(f"{self.config.base_url}/generate", headers=self._headers, body=body) as reply:
            raw = await reply.read_whole()
            if reply.status != 200:
                raise status_error(reply.status, f"HTTP {reply.status}", reply.headers)
        try:
            answer = msgspec.json.decode(raw, type=dict[str, str])["text"]
        except (msgspec.MsgspecError, KeyError) as error:
            raise ServerError("the service's answer is not as expected") from error
        if not answer:
            raise IncompleteError("the service's answer is empty")
        return Completion(text=answer, finish_reason="stop", first_delta_s=reply.first_byte_s)

    async def stream(self, request):
        yield StreamEnd(await self.complete(request))
