"""One endpoint of an OpenAI-compatible service: its address, its headers, and what has been found out about it."""

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from batchchat.errors import ConfigError
from batchchat.providers.address import checked_base_url
from batchchat.providers.base import ProviderContext, checked_headers
from batchchat.providers.http import HttpClient
from batchchat.providers.keys import KeySource, key_source
from batchchat.providers.openai_settings import EndpointConfig, OpenAIChatConfig
from batchchat.providers.proxy import choose_proxy

__all__ = ["Endpoint", "endpoint_settings"]

_PATHS = {"chat": "/chat/completions", "responses": "/responses"}
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_NAMED_BY_PATH = "/openai/deployments/"
_KEY_NAMES = ("api_key_env", "api_key_command", "api_key_keyring")
_DEFAULT_KEY = KeySource(env="OPENAI_API_KEY", optional=True)


def endpoint_settings(config: OpenAIChatConfig) -> list[tuple[EndpointConfig, KeySource]]:
    """Every endpoint's settings, with what the provider's own settings say for all of them, and its key's source.

    ``OPENAI_API_KEY`` counts where no key is named anywhere: with one named, it may be another service's.

    Raises:
        ConfigError: ``base_url`` and ``endpoints`` are both given, or a key has several sources.
    """
    if not config.endpoints:
        checked_base_url(config.base_url, "openai")
        shared = {name: getattr(config, name) for name in EndpointConfig.__struct_fields__ if hasattr(config, name)}
        return [(EndpointConfig(**shared), key_source(config, default=_DEFAULT_KEY))]
    if config.base_url:
        raise ConfigError("base_url and endpoints are both given; name the service's address in one of them")
    some_key = any(getattr(each, name) for each in config.endpoints for name in _KEY_NAMES)
    default = key_source(config, default=KeySource() if some_key else _DEFAULT_KEY)
    made = []
    for own in config.endpoints:
        source = key_source(own, default=default)
        filled = {
            name: getattr(config, name)
            for name in ("api_version", "auth", "organization", "project")
            if getattr(own, name) is None
        }
        made.append((msgspec.structs.replace(own, headers={**config.headers, **own.headers}, **filled), source))
    return made


class Endpoint:
    """Where one request may go.

    Attributes:
        base: Address without the query; follows redirects on the same host.
        headers: What is sent with every request; a header that the user gives takes the place of ours.
        takes_stream_options, takes_schema: Whether it is not known to refuse them.
        http: Its connections.
        asked_key: The key that a command or the keyring gave; None where none did.
    """

    def __init__(
        self, settings: EndpointConfig, source: KeySource, context: ProviderContext, *, api: str, number: int
    ) -> None:
        self.model, self.weight = settings.model, settings.weight
        self._path = _PATHS[api]
        self.base, self._query = _address(settings, self._path)
        self.label = f"endpoint {number} ({urlsplit(self.base).netloc.rpartition('@')[2]})"
        self._source = source
        self._api_key_header = _wants_api_key(settings, urlsplit(self.base).hostname or "")
        self._extra = checked_headers(settings.headers)
        self._own = {"Content-Type": "application/json"} | checked_headers(
            {
                name: value
                for name, value in (
                    ("OpenAI-Organization", settings.organization),
                    ("OpenAI-Project", settings.project),
                )
                if value
            }
        )
        self._key: str | None = None
        self.asked_key: str | None = None
        self.headers = self._with_extra()
        self._set_key(source.from_environ(context.environ))
        self.proxy = choose_proxy(self.base, context.proxy, context.environ)
        self.http = HttpClient(msgspec.structs.replace(context, proxy=self.proxy))
        self.takes_stream_options = self.takes_schema = True

    @property
    def url(self) -> str:
        """Where a prompt is posted."""
        return f"{self.base}{self._path}" + (f"?{self._query}" if self._query else "")

    @property
    def names_model(self) -> bool:
        """Whether the address itself says which model answers, as deployments of Azure do."""
        return _NAMED_BY_PATH in self.base

    def secrets(self) -> tuple[list[str], Mapping[str, str], list[str | None]]:
        """Keys, headers and addresses that no message may tell."""
        return [self._key] if self._key else [], self._extra, [self.url, self.proxy]

    async def ask_key(self, environ: Mapping[str, str]) -> str | None:
        """Gets the key from a command or the keyring, where it comes from there.

        Raises:
            ConfigError: There is none.
        """
        key = await self._source.ask(environ)
        if key is not None:
            self.take_key(key)
        return key

    def take_key(self, key: str) -> None:
        """Uses a key that a command or a keyring gave, here or in another process."""
        self._set_key(key)
        self.asked_key = key

    def _set_key(self, key: str | None) -> None:
        if not key:
            return
        if urlsplit(self.base).username is not None:
            raise ConfigError("base_url holds a user name and a key is given as well; leave one of them out")
        self._key = key
        self._own |= {"api-key": key} if self._api_key_header else {"Authorization": f"Bearer {key}"}
        self.headers = self._with_extra()

    def _with_extra(self) -> dict[str, str]:
        given = {name.lower() for name in self._extra}
        return {name: value for name, value in self._own.items() if name.lower() not in given} | self._extra


def _address(settings: EndpointConfig, path: str) -> tuple[str, str]:
    """Base address and query."""
    base = checked_base_url(settings.base_url, "openai").removesuffix(path)
    query = urlsplit(settings.base_url.strip()).query
    parts = urlsplit(base)
    if settings.api_version:
        if any(name == "api-version" for name, _ in parse_qsl(query)):
            raise ConfigError("base_url holds an api-version and api_version is given as well; leave one of them out")
        if not parts.path and _is_azure(parts.hostname or ""):
            raise ConfigError(
                "base_url: with api_version Azure's address ends in /openai/deployments/NAME; "
                "expected that, or no api_version"
            )
        query = "&".join(filter(None, (query, f"api-version={quote(settings.api_version, safe='')}")))
    if path == _PATHS["responses"] and _NAMED_BY_PATH in base:
        raise ConfigError(
            "base_url: Azure's Responses API is not below a deployment; expected https://NAME.openai.azure.com/openai/v1"
        )
    if not parts.path:
        base += "/openai/v1" if _is_azure(parts.hostname or "") else "/v1"
    return base, query


def _is_azure(host: str) -> bool:
    return host.endswith(_AZURE_HOSTS)


def _wants_api_key(settings: EndpointConfig, host: str) -> bool:
    if settings.auth is not None:
        return settings.auth == "api-key"
    return bool(settings.api_version) or _is_azure(host)
