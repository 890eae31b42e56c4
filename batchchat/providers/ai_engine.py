"""The chat of the WordPress plug-in AI Engine: a nonce from ``start_session``, then ``chats/submit``."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec

from batchchat.errors import AuthError, ConfigError, ProtocolError, ProviderError
from batchchat.providers.address import checked_base_url, moved_base
from batchchat.providers.ai_engine_body import AnswerReader
from batchchat.providers.ai_engine_errors import is_nonce_code, refusal_error
from batchchat.providers.ai_engine_wire import chat_body, public_body, site_params
from batchchat.providers.base import (
    ChatRequest,
    ProviderContext,
    StreamEvent,
    api_key,
    checked_headers,
    end_if_cancelled,
    key_in,
)
from batchchat.providers.exchange import Exchange
from batchchat.providers.http import HttpClient
from batchchat.providers.masking import Masker
from batchchat.providers.nonce import Nonce, NonceCache, is_nonce
from batchchat.providers.nonce_store import NonceStore
from batchchat.providers.proxy import choose_proxy
from batchchat.providers.text import load_lenient, looks_like_html
from batchchat.records import Completion, Prompt

__all__ = ["AIEngine", "AIEngineConfig"]

_SESSION_ROUTE = "/mwai/v1/start_session"
_PUBLIC_ROUTE = "/mwai/v1/simpleChatbotQuery"
# Refreshes that one attempt may take part in: with nonces that die after a few uses and many workers, losing the
# race many times is possible; for ever is not.
_MOST_REFRESHES = 100
_MOST_MOVES = 4


class AIEngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a site with AI Engine.

    Attributes:
        base_url: Address of the site, with the folder WordPress lives in if there is one.
        bot_id: Chatbot of the site.
        custom_id: Page-specific variant of the chatbot.
        api: ``chat`` is what the site's own chat speaks; ``public`` is the owner-enabled API with a bearer token.
        api_key_env: Environment variable that holds that token.
        route: ``path`` for ``/wp-json/…``, ``query`` for ``?rest_route=…``; ``auto`` tries the first, then the other.
        stream: Whether the answer is streamed; only the way of delivery changes.
        headers: Extra request headers.
    """

    base_url: str | None = None
    bot_id: Annotated[str, msgspec.Meta(min_length=1)] = "default"
    custom_id: str | None = None
    api: Literal["chat", "public"] = "chat"
    api_key_env: str | None = None
    route: Literal["auto", "path", "query"] = "auto"
    stream: bool = True
    headers: dict[str, str] = {}


class _Sent:
    """One request of an attempt: where it goes, with which nonce, and whether the service refused that."""

    __slots__ = ("base", "nonce", "refused", "url")

    def __init__(self, base: str = "", url: str = "") -> None:
        self.base, self.url = base, url
        self.nonce: Nonce | None = None
        self.refused = False


class AIEngine:
    """Provider ``ai-engine``: one site, one nonce for all workers."""

    kind: ClassVar[str] = "ai-engine"
    plain_identity: ClassVar[bool] = True
    keeps_conversations: ClassVar[bool] = True
    Config: ClassVar[type[msgspec.Struct]] = AIEngineConfig
    url: ClassVar[str | None] = None
    api_endpoint: ClassVar[str] = "/wp-json/mwai-ui/v1/chats/submit"
    default_model: ClassVar[str | None] = None

    def __init__(self, config: AIEngineConfig, context: ProviderContext) -> None:
        self.config = config
        self._base = checked_base_url(config.base_url or self.url, self.kind)
        self._query_route = config.route == "query"
        if config.api == "public" and config.api_key_env is None:
            raise ConfigError("api: public needs the site's bearer token; name its variable with api_key_env")
        name = config.api_key_env if config.api == "public" else None
        self._token = api_key(context.environ, name, required=True)
        proxy = choose_proxy(self._base, context.proxy, context.environ)
        self._context = context = msgspec.structs.replace(context, proxy=proxy)
        self._http = HttpClient(context, cookies=True)
        self._masker = Masker([self._token], headers=config.headers, urls=[self._base, proxy])
        store = NonceStore(context.nonce_folder, self._base) if context.nonce_folder else None
        self.nonces = NonceCache(self._start_session, store=store, shared=context.shared_nonce)
        own = ("content-type", "x-wp-nonce", "authorization" if self._token else "")
        headers = checked_headers(config.headers)
        self._headers = {name: value for name, value in headers.items() if name.lower() not in own}
        self._headers["Content-Type"] = "application/json"
        self._bot = {"botId": config.bot_id} | ({"customId": config.custom_id} if config.custom_id else {})

    def services(self) -> list[tuple[str, str | None]]:
        """The site and the key that is sent to it."""
        return [(self._base, self._token or key_in(self._headers))]

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        self.nonces.bind()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.nonces.close()
        if self.nonces.trouble is not None:
            self._context.notice(self.nonces.trouble, 0)
        await self._http.__aexit__()

    def check_prompt(self, prompt: Prompt) -> None:
        """Finds before any request what this protocol cannot carry.

        Raises:
            ConfigError: The prompt has images or files, or the job's matrix is over what is the site owner's to choose.
        """
        if prompt.attachments:
            raise ConfigError(f"{self.kind} takes text only; leave images and files out, or use provider openai")
        variant = prompt.variant or {}
        params = variant.get("params", {})
        reserved = ["model"] if "model" in variant else [name for name in params if not site_params({name: 0})]
        if reserved:
            raise ConfigError(
                f"{reserved[0]} is the choice of the site's owner with {self.kind}, so no matrix can be made of it",
                key="matrix",
            )

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        """Bot, texts and parameters: what the answer depends on, and nothing else."""
        return {
            "kind": "ai-engine",
            "bot": self._bot,
            "system": prompt.system,
            "messages": prompt.messages,
            "turns": prompt.turns,
            "params": site_params(params),
        }

    async def complete(self, request: ChatRequest) -> Completion:
        """One attempt to its end; see ``Provider.complete``."""
        body = self._body(request)
        for _ in range(_MOST_REFRESHES):
            reader = AnswerReader(deltas=False, model=request.model or self.default_model)
            sent = _Sent()
            try:
                await self._admit(sent)
                async with self._exchange(sent, body) as reply:
                    if reply.status == 200:
                        self._taken(sent.nonce, reply)
                        completion = await reader.read(reply)
                        self._offer(sent.nonce, reader.new_token)
                        return completion
                    sent.refused = await self._refused(reply, sent)
            except ProviderError as error:
                self._note_failure(error, reader, sent.nonce)
                raise
            finally:
                self._release(sent.nonce)
            await self._renew(sent)
        raise _refused_on_and_on()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent]:
        """One attempt, told piece by piece; see ``Provider.stream``."""
        body = self._body(request)
        for _ in range(_MOST_REFRESHES):
            reader = AnswerReader(deltas=True, model=request.model or self.default_model)
            sent = _Sent()
            try:
                await self._admit(sent)
                async with self._exchange(sent, body) as reply:
                    if reply.status == 200:
                        self._taken(sent.nonce, reply)
                        async with aclosing(reader.stream(reply)) as events:
                            async for event in events:
                                yield event
                        self._offer(sent.nonce, reader.new_token)
                    else:
                        sent.refused = await self._refused(reply, sent)
            except ProviderError as error:
                self._note_failure(error, reader, sent.nonce)
                raise
            finally:
                self._release(sent.nonce)
            if reader.finished:
                end_if_cancelled()
                return
            await self._renew(sent)
        raise _refused_on_and_on()

    def hide_secrets(self, error: ProviderError) -> None:
        """Masks in an error that was made of an answer what the service may have repeated of the request."""
        self._masker.hide(error, *self._http.cookie_values)

    def _body(self, request: ChatRequest) -> bytes:
        if self.config.api == "public":
            return public_body(request, self.config.bot_id)
        return chat_body(request, self._bot, stream=self.config.stream)

    async def _admit(self, sent: _Sent) -> None:
        """Returns when the request may go out, with a nonce that is still current; waiting for its turn may take long.

        No nonce with a token, which takes its place.
        """
        if self._token:
            await self._context.gate.admit()
        else:
            while sent.nonce is None:
                if self.nonces.current is None:
                    await self.nonces.get()
                await self._context.gate.admit(lambda: self.nonces.current is not None)
                sent.nonce = self.nonces.current
            sent.nonce.pending += 1
        sent.base, sent.url = self._base, self._submit_url()

    def _exchange(self, sent: _Sent, body: bytes) -> Exchange:
        return self._http.exchange(sent.url, headers=self._submit_headers(sent.nonce), body=body)

    def _release(self, nonce: Nonce | None) -> None:
        if nonce is not None:
            self.nonces.release(nonce)

    async def _renew(self, sent: _Sent) -> None:
        """Sees to another nonce where the service refused this one."""
        if sent.refused and sent.nonce is not None:
            if not sent.nonce.refused:
                self._context.notice("the service refused the nonce; it is fetched anew", 1)
            await self.nonces.refuse(sent.nonce)

    def _note_failure(self, error: ProviderError, reader: AnswerReader, nonce: Nonce | None) -> None:
        error.partial = error.partial or reader.partial or None
        self._masker.hide(error, *self._http.cookie_values, *([nonce.value] if nonce is not None else []))

    def _submit_headers(self, nonce: Nonce | None) -> dict[str, str]:
        if nonce is not None:
            return {**self._headers, "X-WP-Nonce": nonce.value}
        return {**self._headers, "Authorization": f"Bearer {self._token}"}

    def _taken(self, nonce: Nonce | None, reply: Exchange) -> None:
        if nonce is not None:
            self.nonces.accept(nonce)
            self._offer(nonce, reply.headers.get("X-WP-Nonce"))

    def _offer(self, nonce: Nonce | None, token: str | None) -> None:
        if nonce is not None:
            self.nonces.adopt(nonce, token)

    async def _refused(self, reply: Exchange, sent: _Sent) -> bool:
        """Whether another try is due at once, with a fresh nonce (True) or by the other route (False).

        Raises:
            ProviderError: It is about something else.
        """
        base, url, nonce = sent.base, sent.url, sent.nonce
        body = await reply.read_whole()
        if 300 <= reply.status < 400:
            moved = moved_base(base, url, reply.status, reply.headers.get("Location"))
            if self._base == base:  # else another request has found the way already
                self._base = moved
            return False
        try:
            parsed = load_lenient(body)
        except json.JSONDecodeError:
            parsed = None
        code = parsed.get("code") if isinstance(parsed, dict) else None
        if nonce is not None and reply.status in (401, 403) and is_nonce_code(code):
            return True
        if nonce is not None and "X-WP-Nonce" in reply.headers:
            self._taken(nonce, reply)
            self._offer(nonce, parsed.get("new_token") if isinstance(parsed, dict) else None)
        if self._try_other_route(reply.status, url, parsed):
            return False
        raise refusal_error(reply.status, body, parsed, reply.headers)

    def _try_other_route(self, status: int, url: str, parsed: Any) -> bool:
        """Whether the site does not know ``/wp-json`` and ``?rest_route=`` is worth trying."""
        if self.config.route != "auto" or status != 404 or parsed is not None or "?rest_route=" in url:
            return False
        if not self._query_route:
            self._query_route = True
            self._context.notice("the site has no /wp-json; trying ?rest_route=", 1)
        return True

    async def _start_session(self) -> str:
        """A nonce from the site; sent without a nonce header, as a stale one there is refused as well."""
        for _ in range(_MOST_MOVES):
            await self._context.gate.admit()
            sent = _Sent(self._base, self._route_url(_SESSION_ROUTE, f"/wp-json{_SESSION_ROUTE}"))
            async with self._http.exchange(sent.url, headers=self._headers, body=b"{}") as reply:
                if reply.status != 200:
                    await self._refused(reply, sent)
                    continue
                nonce = nonce_in(await reply.read_whole())
                self._context.notice("fetched a nonce", 1)
                return nonce
        raise ProtocolError("the site moves start_session on and on; see --base-url", stops_run=True)

    def _submit_url(self) -> str:
        if self.config.api == "public":
            return self._route_url(_PUBLIC_ROUTE, f"/wp-json{_PUBLIC_ROUTE}")
        return self._route_url(self.api_endpoint.removeprefix("/wp-json"), self.api_endpoint)

    def _route_url(self, route: str, path: str) -> str:
        return f"{self._base}/?rest_route={route}" if self._query_route else f"{self._base}{path}"


def _refused_on_and_on() -> AuthError:
    return AuthError(f"the service refused {_MOST_REFRESHES} nonces in a row for this prompt", status=403)


def nonce_in(body: bytes) -> str:
    """The nonce that an answer of ``start_session`` carries; ``new_token`` is the newer one where both are there.

    Raises:
        ProtocolError: There is none; the message lists the keys that were there.
    """
    start = body.find(b'{"')
    try:
        answer = load_lenient(body if start <= 0 else body[start:])
    except json.JSONDecodeError as error:
        what = "an HTML page" if looks_like_html(body) else "no JSON"
        raise ProtocolError(f"expected a nonce from start_session, found {what}", status=200) from error
    found = (
        f"an object with the keys {', '.join(sorted(answer)) or '(none)'}" if isinstance(answer, dict) else "no object"
    )
    if isinstance(answer, dict):
        for key in ("new_token", "restNonce"):
            value = answer.get(key)
            if is_nonce(value):
                return str(value)
    raise ProtocolError(f"expected a nonce (restNonce) from start_session, found {found}", status=200)
