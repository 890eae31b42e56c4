"""Chat completions of the OpenAI protocol, as many services and local servers speak it."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import msgspec
import orjson

from batchchat.errors import ConfigError, InvalidRequestError, ProtocolError, ProviderError
from batchchat.jsonl import dump_line
from batchchat.providers.address import checked_base_url, moved_base
from batchchat.providers.base import (
    ChatRequest,
    ProviderContext,
    StreamEvent,
    api_key,
    checked_headers,
    collect,
    end_if_cancelled,
)
from batchchat.providers.http import Exchange, HttpClient
from batchchat.providers.masking import Masker
from batchchat.providers.openai_body import CompletionReader
from batchchat.providers.openai_errors import object_error
from batchchat.providers.proxy import choose_proxy
from batchchat.providers.text import load_lenient
from batchchat.records import Completion, Prompt

__all__ = ["OpenAIChat", "OpenAIChatConfig"]

_ENDPOINT = "/chat/completions"
_RESERVED = frozenset(("model", "messages", "stream", "stream_options"))
_MOST_MOVES = 4
_NO_MODEL = "no model is named; give --model or provider.model"


class OpenAIChatConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an OpenAI-compatible service.

    Attributes:
        base_url: Address of the API; without a path it gets ``/v1``.
        model: Model for every prompt whose line names none.
        api_key_env: Environment variable that holds the key. The default one may be unset, for servers without keys.
        stream: Whether the answer is streamed; only the way of delivery changes.
        headers: Extra request headers.
    """

    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    stream: bool = True
    headers: dict[str, str] = {}


class OpenAIChat:
    """Provider ``openai``: any service or local server with ``/chat/completions``."""

    kind: ClassVar[str] = "openai"
    Config: ClassVar[type[msgspec.Struct]] = OpenAIChatConfig

    def __init__(self, config: OpenAIChatConfig, context: ProviderContext) -> None:
        self.config = config
        base = checked_base_url(config.base_url, self.kind).removesuffix(_ENDPOINT)
        self._base = base if urlsplit(base).path else f"{base}/v1"
        named = config.api_key_env is not None
        key = api_key(context.environ, config.api_key_env or "OPENAI_API_KEY", required=named)
        self._headers = {"Content-Type": "application/json"}
        if key and urlsplit(base).username is not None:
            raise ConfigError("base_url holds a user name and a key is given as well; leave one of them out")
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._headers |= checked_headers(config.headers)
        proxy = choose_proxy(self._base, context.proxy, context.environ)
        self._context = msgspec.structs.replace(context, proxy=proxy)
        self._http = HttpClient(self._context)
        self._masker = Masker([key], headers=config.headers, urls=[self._base, proxy])
        self._stream_options = True

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__()

    def check_prompt(self, prompt: Prompt) -> None:
        """Finds before any request what every prompt like this one would meet.

        Raises:
            ConfigError: Neither the prompt nor the settings name a model.
        """
        if not (prompt.model or self.config.model):
            raise ConfigError(_NO_MODEL)

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        """Model, texts and parameters: what the answer depends on, and nothing else."""
        return {
            "kind": self.kind,
            "model": prompt.model or self.config.model,
            "system": prompt.system,
            "messages": prompt.messages,
            "turns": prompt.turns,
            "params": {name: value for name, value in params.items() if name not in _RESERVED},
        }

    async def complete(self, request: ChatRequest) -> Completion:
        """One attempt to its end; see ``Provider.complete``."""
        return await collect(self._events(request, deltas=False))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent]:
        """One attempt, told piece by piece; see ``Provider.stream``."""
        async with aclosing(self._events(request, deltas=True)) as events:
            async for event in events:
                yield event
        end_if_cancelled()

    async def _events(self, request: ChatRequest, *, deltas: bool) -> AsyncGenerator[StreamEvent]:
        for _ in range(_MOST_MOVES):
            reader = CompletionReader(deltas=deltas)
            try:
                async with aclosing(self._attempt(request, reader)) as events:
                    async for event in events:
                        yield event
            except ProviderError as error:
                error.partial = error.partial or reader.partial or None
                self._masker.hide(error)
                raise
            if reader.finished:
                return
        raise ProtocolError("the service redirects on and on; see --base-url", stops_run=True)

    async def _attempt(self, request: ChatRequest, reader: CompletionReader) -> AsyncGenerator[StreamEvent]:
        """One exchange; ends without a finished reader where the address or the options had to change first."""
        await self._context.gate.admit()
        base, with_options = self._base, self._stream_options
        body, url = self._body(request), base + _ENDPOINT
        async with self._http.exchange(url, headers=self._headers, body=body) as reply:
            if reply.status == 200:
                async with aclosing(reader.read(reply)) as events:
                    async for event in events:
                        yield event
            else:
                await self._refused(reply, base, with_options=with_options)

    def _body(self, request: ChatRequest) -> bytes:
        model = request.model or self.config.model
        if not model:
            raise InvalidRequestError(_NO_MODEL, stops_run=True)
        messages = request.messages
        if request.system:
            messages = [{"role": "system", "content": request.system}, *messages]
        body: dict[str, Any] = {"model": model, "messages": messages}
        body |= {name: value for name, value in request.params.items() if name not in _RESERVED}
        if self.config.stream:
            body["stream"] = True
            if self._stream_options:
                body["stream_options"] = {"include_usage": True}
        try:
            return orjson.dumps(body)
        except TypeError:
            return dump_line(body)

    async def _refused(self, reply: Exchange, base: str, *, with_options: bool) -> None:
        """Returns where another try is due at once: the address moved, or the server knows no ``stream_options``.

        Other requests may have found the same meanwhile, so what counts is what this one was sent with.

        Raises:
            ProviderError: Otherwise.
        """
        body = await reply.read_whole()
        if 300 <= reply.status < 400:
            moved = moved_base(base, base + _ENDPOINT, reply.status, reply.headers.get("Location"))
            if self._base == base:
                self._base = moved
            return
        try:
            parsed = load_lenient(body)
        except json.JSONDecodeError:
            parsed = None
        if reply.status in (400, 422) and with_options and b"stream_options" in body:
            if self._stream_options:
                self._stream_options = False
                self._context.notice("the service does not know stream_options; sending none", 1)
            return
        raise object_error(reply.status, body, parsed, reply.headers)
