"""The OpenAI protocol, as many services and local servers speak it: chat completions, or the Responses API."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self
from weakref import WeakKeyDictionary

import msgspec

from batchchat.errors import ConfigError, InvalidRequestError, ProtocolError, ProviderError
from batchchat.providers.address import moved_base
from batchchat.providers.base import ChatRequest, ProviderContext, StreamEvent, end_if_cancelled, key_in
from batchchat.providers.exchange import Exchange
from batchchat.providers.masking import Masker
from batchchat.providers.openai_body import CompletionReader
from batchchat.providers.openai_endpoint import Endpoint, endpoint_settings
from batchchat.providers.openai_errors import object_error, refuses_schema
from batchchat.providers.openai_pool import EndpointPool
from batchchat.providers.openai_reader import OpenAIReader
from batchchat.providers.openai_request import (
    RESERVED,
    carries_schema,
    chat_body,
    choices_asked,
    dumped,
    responses_body,
)
from batchchat.providers.openai_responses import ResponsesReader
from batchchat.providers.openai_settings import EndpointConfig, OpenAIChatConfig
from batchchat.providers.text import load_lenient
from batchchat.rate_headers import parse_rate_headers
from batchchat.records import Completion, Prompt

__all__ = ["EndpointConfig", "OpenAIChat", "OpenAIChatConfig"]

_MOST_MOVES = 5
_NO_MODEL = "no model is named; give --model or provider.model"


class _Sent(NamedTuple):
    exchange: Exchange
    base: str
    body: dict[str, Any]


class OpenAIChat:
    """Provider ``openai``: any service or local server with ``/chat/completions`` or ``/responses``."""

    kind: ClassVar[str] = "openai"
    plain_identity: ClassVar[bool] = True
    keeps_conversations: ClassVar[bool] = False
    keeps_nonces: ClassVar[bool] = False
    Config: ClassVar[type[msgspec.Struct]] = OpenAIChatConfig

    def __init__(self, config: OpenAIChatConfig, context: ProviderContext) -> None:
        self.config = config
        self._context = context
        self._masker = Masker(headers={})
        self._endpoints = self._made_endpoints()
        self._pool = EndpointPool(self._endpoints, context.notice)
        self._open = AsyncExitStack()
        self._told_of_pace = self._prepared = False
        # Where the running task's last attempt failed, and for which request.
        self._failed_at: WeakKeyDictionary[asyncio.Task[Any], tuple[ChatRequest, Endpoint]] = WeakKeyDictionary()

    def _made_endpoints(self) -> list[Endpoint]:
        made = []
        for number, (settings, source) in enumerate(endpoint_settings(self.config), 1):
            endpoint = Endpoint(settings, source, self._context, api=self.config.api, number=number)
            keys, headers, urls = endpoint.secrets()
            self._masker.add(keys, headers=headers, urls=urls)
            made.append(endpoint)
        return made

    async def prepare(self) -> None:
        """Gets the keys that a command or the keyring holds; done once, at the latest when the provider is entered.

        Raises:
            ConfigError: One is not to be had.
        """
        if self._prepared:
            return
        for endpoint in self._endpoints:
            if (key := await endpoint.ask_key(self._context.environ)) is not None:
                self._masker.add([key])
        self._prepared = True

    def asked_keys(self) -> list[str | None]:
        """Of each endpoint the key that a command or the keyring gave, known once ``prepare`` is done."""
        return [each.asked_key for each in self._endpoints]

    def take_keys(self, keys: Sequence[str | None]) -> None:
        """Takes what ``asked_keys`` of another process gave, in the place of asking again."""
        for endpoint, key in zip(self._endpoints, keys, strict=True):
            if key is not None:
                endpoint.take_key(key)
                self._masker.add([key])
        self._prepared = True

    def failed_place(self) -> int | None:
        """At which of several endpoints the running task's last attempt failed."""
        task = asyncio.current_task()
        failed = self._failed_at.get(task) if task is not None else None
        return None if failed is None or len(self._endpoints) == 1 else self._endpoints.index(failed[1])

    def avoid(self, request: ChatRequest, place: int) -> None:
        """The running task's request failed there in another process, and should go elsewhere if possible."""
        if (task := asyncio.current_task()) is not None:
            self._failed_at[task] = (request, self._endpoints[place])

    def services(self) -> list[tuple[str, str | None]]:
        """Address and key of each endpoint, known once ``prepare`` is done."""
        return [(each.base, key_in(each.headers)) for each in self._endpoints]

    async def __aenter__(self) -> Self:
        await self.prepare()
        async with AsyncExitStack() as stack:
            for endpoint in self._endpoints:
                await stack.enter_async_context(endpoint.http)
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    def check_prompt(self, prompt: Prompt) -> None:
        """Finds before any request what every prompt like this one would meet.

        Raises:
            ConfigError: Neither the prompt nor the settings name a model.
        """
        if not (prompt.model or self.config.model or all(each.model or each.names_model for each in self._endpoints)):
            raise ConfigError(_NO_MODEL)

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        """Model, texts and parameters: what the answer depends on, and nothing else."""
        model = prompt.model or self.config.model
        return {
            "kind": self.kind,
            "model": model or next((each.model for each in self._endpoints if each.model), None),
            "system": prompt.system,
            "messages": prompt.messages,
            "turns": prompt.turns,
            "params": {name: value for name, value in params.items() if name not in RESERVED},
        }

    async def complete(self, request: ChatRequest) -> Completion:
        """One attempt to its end; see ``Provider.complete``."""
        refused: dict[Endpoint, ProviderError] = {}
        for _ in range(_MOST_MOVES * len(self._endpoints)):
            endpoint = await self._admitted_endpoint(request, refused)
            reader = self._reader(request, deltas=False)
            try:
                sent = self._sent(request, endpoint)
                async with sent.exchange as reply:
                    if await self._answers(reply, sent, endpoint, request):
                        completion = await reader.read(reply)
                        self._pool.succeeded(endpoint)
                        return completion
            except ProviderError as error:
                self._note_failure(error, reader, endpoint, request)
                refused[endpoint] = error
            finally:
                self._pool.left(endpoint)
        raise _moving_on_and_on()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent]:
        """One attempt, told piece by piece; see ``Provider.stream``."""
        refused: dict[Endpoint, ProviderError] = {}
        for _ in range(_MOST_MOVES * len(self._endpoints)):
            endpoint = await self._admitted_endpoint(request, refused)
            reader = self._reader(request, deltas=True)
            try:
                sent = self._sent(request, endpoint)
                async with sent.exchange as reply:
                    if await self._answers(reply, sent, endpoint, request):
                        async with aclosing(reader.stream(reply)) as events:
                            async for event in events:
                                yield event
            except ProviderError as error:
                self._note_failure(error, reader, endpoint, request)
                refused[endpoint] = error
            finally:
                self._pool.left(endpoint)
            if reader.finished:
                self._pool.succeeded(endpoint)
                end_if_cancelled()
                return
        raise _moving_on_and_on()

    async def _admitted_endpoint(self, request: ChatRequest, refused: Mapping[Endpoint, ProviderError]) -> Endpoint:
        """The endpoint for a request that may go out now; not the one where its last attempt failed, if possible.

        Raises:
            ProviderError: Only endpoints that refused it already are left; it is what one of them said.
        """
        task = asyncio.current_task() if self._failed_at else None
        failed = self._failed_at.pop(task, None) if task is not None else None
        avoided = {*refused, failed[1]} if failed is not None and failed[0] is request else refused
        while True:
            await self._context.gate.admit(self._pool.ready)
            if (endpoint := self._pool.pick(avoided)) is not None:
                if endpoint in refused:
                    raise refused[endpoint]
                return endpoint
            await self._pool.opened()

    def hide_secrets(self, error: ProviderError) -> None:
        """Masks in an error that was made of an answer what the service may have repeated of the request."""
        self._masker.hide(error)

    def _note_failure(
        self, error: ProviderError, reader: OpenAIReader, endpoint: Endpoint, request: ChatRequest
    ) -> None:
        """Returns where another endpoint is to be asked at once, which is never so after text has been told.

        Raises:
            ProviderError: Otherwise.
        """
        error.partial = error.partial or reader.partial or None
        self._masker.hide(error)
        if (task := asyncio.current_task()) is not None:
            self._failed_at[task] = (request, endpoint)
        another = self._pool.failed(endpoint, error, model_named=request.model is not None)
        if not another or (reader.deltas and reader.partial):
            raise error

    def _reader(self, request: ChatRequest, *, deltas: bool) -> OpenAIReader:
        if self.config.api == "responses":
            return ResponsesReader(deltas=deltas)
        return CompletionReader(deltas=deltas, choices=choices_asked(request.params))

    def _sent(self, request: ChatRequest, endpoint: Endpoint) -> _Sent:
        body = self._body(request, endpoint)
        exchange = endpoint.http.exchange(endpoint.url, headers=endpoint.headers, body=dumped(body))
        return _Sent(exchange, endpoint.base, body)

    async def _answers(self, reply: Exchange, sent: _Sent, endpoint: Endpoint, request: ChatRequest) -> bool:
        """Whether an answer is there to be read; not where the address or the options had to change first."""
        self._observe(endpoint, reply)
        if reply.status == 200:
            self._pool.answering(endpoint)
            return True
        await self._refused(reply, endpoint, sent.base, sent.body, request)
        return False

    def _observe(self, endpoint: Endpoint, reply: Exchange) -> None:
        """Passes on what the answer tells of limits: to the run, or to the pool where there are several endpoints."""
        if (told := parse_rate_headers(reply.headers)) is None:
            return
        if len(self._endpoints) > 1:
            quotas = (told.requests, told.tokens)
            self._pool.exhausted(
                endpoint, max((each.reset_s for each in quotas if each and not each.remaining), default=0.0)
            )
        elif (sentence := self._context.gate.observed(told)) is not None and not self._told_of_pace:
            self._told_of_pace = True
            self._context.notice(sentence, 1)

    def _body(self, request: ChatRequest, endpoint: Endpoint) -> dict[str, Any]:
        model = request.model or endpoint.model or self.config.model
        if not model and not endpoint.names_model:
            raise InvalidRequestError(_NO_MODEL, stops_run=True)
        made = responses_body if self.config.api == "responses" else chat_body
        body = made(request, model, structured=endpoint.takes_schema)
        if self.config.stream:
            body["stream"] = True
            if endpoint.takes_stream_options and self.config.api == "chat":
                body["stream_options"] = {"include_usage": True}
        return body

    async def _refused(
        self, reply: Exchange, endpoint: Endpoint, base: str, sent: Mapping[str, Any], request: ChatRequest
    ) -> None:
        """Returns where another try is due at once: the address moved, or the service does not know what was sent.

        Other requests may have found the same meanwhile, so what counts is what this one was sent with.

        Raises:
            ProviderError: Otherwise.
        """
        body = await reply.read_whole()
        if 300 <= reply.status < 400:
            url = base + endpoint.url.removeprefix(endpoint.base)
            moved = moved_base(base, url, reply.status, reply.headers.get("Location"))
            if endpoint.base == base:
                endpoint.base = moved
            return
        try:
            parsed = load_lenient(body)
        except json.JSONDecodeError:
            parsed = None
        error = object_error(reply.status, body, parsed, reply.headers)
        if reply.status not in (400, 422):
            raise error
        if "stream_options" in sent and b"stream_options" in body:
            self._leave_out(endpoint, "takes_stream_options", "does not know stream_options; sending none")
        elif carries_schema(sent, request) and refuses_schema(body, error):
            self._leave_out(endpoint, "takes_schema", "takes no schema of the answer; the model is told of it instead")
        else:
            raise error

    def _leave_out(self, endpoint: Endpoint, name: str, sentence: str) -> None:
        if getattr(endpoint, name):
            setattr(endpoint, name, False)
            who = "the service" if len(self._endpoints) == 1 else endpoint.label
            self._context.notice(f"{who} {sentence}", 1)


def _moving_on_and_on() -> ProtocolError:
    return ProtocolError("the service redirects on and on; see --base-url", stops_run=True)
