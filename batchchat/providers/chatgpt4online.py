"""The AI Engine site that the ``Chatgpt4Online`` client was made for, in that client's shape."""

import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, NoReturn

import aiohttp
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from batchchat.errors import ConfigError, IncompleteError, ProviderError
from batchchat.providers.ai_engine import AIEngine, AIEngineConfig
from batchchat.providers.base import ChatRequest, ProviderContext, TextDelta
from batchchat.providers.generator import AsyncGeneratorProvider

__all__ = ["Chatgpt4Online"]


class Chatgpt4Online(AIEngine, AsyncGeneratorProvider):
    """Provider ``chatgpt4online``: the ``ai-engine`` provider preset for one site.

    ``working`` is False, as the site is not known to answer; a run needs another ``base_url``. Both class methods
    go through the provider's own code, with the ``url`` and ``api_endpoint`` of the class they are called on.
    """

    kind: ClassVar[str] = "chatgpt4online"
    Config: ClassVar[type[msgspec.Struct]] = AIEngineConfig
    url: ClassVar[str | None] = "https://chatgpt4online.org"
    api_endpoint: ClassVar[str] = "/wp-json/mwai-ui/v1/chats/submit"
    working: ClassVar[bool] = False
    default_model: ClassVar[str | None] = "gpt-4"
    models: ClassVar[list[str]] = ["gpt-4"]

    @classmethod
    def check_usable(cls, config: AIEngineConfig) -> None:
        """Refuses a run against a site that is not known to work.

        Raises:
            ConfigError: No ``base_url`` was given and ``working`` is False.
        """
        if config.base_url is None and not cls.working:
            raise ConfigError(
                f"provider {cls.kind} is marked as not working ({cls.url}); give --base-url for a site that answers"
            )

    @classmethod
    async def get_nonce(cls, headers: Mapping[str, str]) -> str:
        """A nonce from the site's ``start_session``.

        Raises:
            aiohttp.ClientError: The request failed, or was answered with another status than 200.
            json.JSONDecodeError: The answer is no JSON.
            ProviderError: The answer holds no nonce.
        """
        async with cls._client(headers, proxy=None) as client:
            try:
                return await client._start_session()
            except ProviderError as error:
                client._raise_original(error)

    @classmethod
    async def create_async_generator(
        cls, model: str, messages: list[dict[str, Any]], proxy: str | None = None, **kwargs: Any
    ) -> AsyncGenerator[str]:
        """Yields the parts of the answer: each ``live`` text, then what ``end`` adds to them.

        Args:
            model: Kept for its callers; the site's chatbot decides which model answers.
            messages: ``{"role": …, "content": …}`` objects, the last one from the user.
            proxy: ``http://host:port``, else the environment's.
            kwargs: ``headers`` (mapping), ``timeout`` (seconds); others go to the site as sampling parameters.

        Raises:
            aiohttp.ClientError: A request failed, or was answered with another status than 200.
            json.JSONDecodeError: An event, or the answer of ``start_session``, is no JSON.
            ProviderError: The site sent an ``error`` event, or cut the stream.
        """
        headers, timeout = kwargs.pop("headers", {}), kwargs.pop("timeout", None)
        request = ChatRequest(messages=messages, model=model, params=kwargs, given=len(messages))
        async with cls._client(headers, proxy=proxy, timeout=timeout) as client:
            joined = ""
            try:
                async with aclosing(client.stream(request)) as events:
                    async for event in events:
                        if isinstance(event, TextDelta):
                            joined += event.text
                            yield event.text
                        elif rest := _added(joined, event.completion.text or ""):
                            yield rest
            except ProviderError as error:
                client._raise_original(error)

    @classmethod
    def _client(
        cls, headers: Mapping[str, str], *, proxy: str | None, timeout: float | None = None
    ) -> "Chatgpt4Online":
        config = AIEngineConfig(base_url=cls.url, headers=dict(headers))
        context = ProviderContext(proxy=proxy, environ=os.environ, attempt_s=300.0 if timeout is None else timeout)
        return cls(config, context)

    def _raise_original(self, error: ProviderError) -> NoReturn:
        """Raises what callers of the original client expect: the HTTP library's or the parser's own error."""
        cause = error.__cause__
        if isinstance(error, IncompleteError):  # a cut stream is no failed request, however it was noticed
            raise error
        if isinstance(cause, aiohttp.ClientError | json.JSONDecodeError):
            raise cause from error
        if error.status is not None and error.status != 200:
            url = URL(self._submit_url())
            request = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict[str]()), url)
            raise aiohttp.ClientResponseError(request, (), status=error.status, message=error.message) from error
        raise error


def _added(joined: str, reply: str) -> str:
    """What the final reply adds to the text that streamed; the reply is stripped of white space, the stream not."""
    if not joined:
        return reply
    return reply[len(joined) :] if reply.startswith(joined) else ""
