"""A model on this machine, run by llama.cpp's server and spoken to as any OpenAI-compatible service is."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta

from batchchat.errors import ConfigError, ServerError
from batchchat.local import LocalServer, ServerSettings, check_runtime, find_model
from batchchat.providers.base import ChatRequest, ProviderContext, StreamEvent
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig
from batchchat.records import Completion, Prompt

__all__ = ["LocalConfig", "LocalModel"]

_MOST_SLOTS = 8
_MOST_STARTS = 4
_KEY = "BATCHCHAT_LOCAL_KEY"
_NOWHERE = "http://127.0.0.1:9"


class LocalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a model on this machine.

    Attributes:
        model: Path of a ``.gguf`` file; without one, the small model that ``batchchat model install`` brings.
        slots: Answers made at the same time; without it, the run's concurrency, at most 8.
        context: Tokens that one prompt and its answer may take together.
        threads: Threads that compute; without it, one for each processor.
    """

    model: Annotated[str, Meta(min_length=1)] | None = None
    slots: Annotated[int, Meta(ge=1, le=256)] | None = None
    context: Annotated[int, Meta(ge=256, le=999_999)] = 2048
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None


class LocalModel:
    """Provider ``local``: a model in GGUF form, run on this machine; no account and no network."""

    kind: ClassVar[str] = "local"
    keeps_conversations: ClassVar[bool] = False
    keeps_nonces: ClassVar[bool] = False
    free: ClassVar[bool] = True
    Config: ClassVar[type[msgspec.Struct]] = LocalConfig

    def __init__(self, config: LocalConfig, context: ProviderContext) -> None:
        self.config, self._context = config, context
        model = find_model(config.model)
        self._settings = ServerSettings(
            model=model,
            slots=config.slots or min(context.concurrency, _MOST_SLOTS),
            context=config.context,
            threads=config.threads,
        )
        self._digest = model.digest()
        # Builds requests and identities, and is never sent anything.
        self._form = self._client_at(_NOWHERE, "none")
        self._client = self._form
        self._server: LocalServer | None = None
        self._starting = asyncio.Lock()
        self._starts = 0
        self._stack = AsyncExitStack()

    @staticmethod
    def check_usable(config: LocalConfig) -> None:
        """Finds what no run with these settings could do without.

        Raises:
            ConfigError: The extra is not installed, or there is no model.
        """
        check_runtime()
        find_model(config.model)

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        """As of the ``openai`` provider, with the model's name and digest; a line's own model plays no part."""
        made = self._form.identity(msgspec.structs.replace(prompt, model=None), params)
        return made | {"kind": self.kind, "digest": self._digest}

    def check_prompt(self, prompt: Prompt) -> None:
        """Finds before any request what would give answers of another model than was asked for.

        Raises:
            ConfigError: The job compares models, and one model runs here.
        """
        if (prompt.variant or {}).get("model") is not None:
            raise ConfigError(
                "provider local runs one model, so a job cannot compare several; run it once for each provider.model, "
                "with a results file for each"
            )

    async def complete(self, request: ChatRequest) -> Completion:
        """One attempt to its end; see ``Provider.complete``."""
        client = await self._running_client()
        return await client.complete(msgspec.structs.replace(request, model=None))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent]:
        """One attempt, told piece by piece; see ``Provider.stream``."""
        client = await self._running_client()
        async with aclosing(client.stream(msgspec.structs.replace(request, model=None))) as events:
            async for event in events:
                yield event

    async def _running_client(self) -> OpenAIChat:
        """The client of a server that runs; one that ended by itself is started again, a few times at most.

        Raises:
            ServerError: It ends again and again, or does not start again.
        """
        if self._server is None or self._server.alive:
            return self._client
        async with self._starting:
            if not self._server.alive:
                why = self._server.why_ended()
                if self._starts >= _MOST_STARTS:
                    raise ServerError(
                        f"the model's server ended {self._starts} times: {why}; fewer slots or a smaller context "
                        "take less memory",
                        stops_run=True,
                    )
                self._context.notice(f"the model's server is started again: {why}", 0)
                try:
                    await self._start()
                except ConfigError as error:
                    raise ServerError(str(error), stops_run=True) from error
        return self._client

    async def _start(self) -> None:
        self._starts += 1
        server = LocalServer(self._settings, lambda line: self._context.notice(f"model: {line}", 2))
        self._server = await self._stack.enter_async_context(server)
        self._client = await self._stack.enter_async_context(self._client_at(server.base_url, server.key))

    def _client_at(self, base_url: str, key: str) -> OpenAIChat:
        """Never through a proxy: it may be on another machine, where loopback is not this one."""
        config = OpenAIChatConfig(base_url=base_url, model=self._settings.model.name, api_key_env=_KEY)
        return OpenAIChat(config, msgspec.structs.replace(self._context, proxy=None, environ={_KEY: key}))
