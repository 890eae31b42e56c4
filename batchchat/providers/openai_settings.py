"""Settings of the ``openai`` provider: one service, or several endpoints of it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["EndpointConfig", "OpenAIChatConfig"]

Weight = Annotated[int, Meta(ge=1, le=1000)]


class EndpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several endpoints; what it does not say, the provider's settings say.

    Attributes:
        base_url: Address of its API.
        weight: Its share of the requests, beside the weights of the others.
        model: What this endpoint calls the model.
        api_key_env: Environment variable that holds its key.
        api_key_command: Command whose first line of output is its key.
        api_key_keyring: Where the system's keyring holds its key, ``service/user``.
        api_version: Azure's ``api-version``.
        auth: How the key is sent.
        organization: Sent as ``OpenAI-Organization``.
        project: Sent as ``OpenAI-Project``.
        headers: Extra request headers.
    """

    base_url: str
    weight: Weight = 1
    model: str | None = None
    api_key_env: str | None = None
    api_key_command: str | None = None
    api_key_keyring: str | None = None
    api_version: str | None = None
    auth: Literal["bearer", "api-key"] | None = None
    organization: str | None = None
    project: str | None = None
    headers: dict[str, str] = {}


class OpenAIChatConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an OpenAI-compatible service.

    Attributes:
        base_url: Address of the API; without a path it gets ``/v1``.
        model: Model for every prompt whose line names none.
        api: The protocol: chat completions, or the Responses API.
        endpoints: Several endpoints in the place of ``base_url``, each with its own settings.
        api_key_env: Environment variable that holds the key. The default one may be unset, for servers without keys.
        api_key_command: Command whose first line of output is the key, ``pass show openai``; run without a shell.
        api_key_keyring: Where the system's keyring holds the key, ``service/user`` (extra ``keyring``).
        api_version: Azure's ``api-version``, sent in the query.
        auth: How the key is sent: as bearer token, or in the header ``api-key`` as Azure wants it, which is the
            default there.
        organization: Sent as ``OpenAI-Organization``.
        project: Sent as ``OpenAI-Project``.
        stream: Whether the answer is streamed; only the way of delivery changes.
        headers: Extra request headers.
    """

    base_url: str | None = None
    model: str | None = None
    api: Literal["chat", "responses"] = "chat"
    endpoints: list[EndpointConfig] = []
    api_key_env: str | None = None
    api_key_command: str | None = None
    api_key_keyring: str | None = None
    api_version: str | None = None
    auth: Literal["bearer", "api-key"] | None = None
    organization: str | None = None
    project: str | None = None
    stream: bool = True
    headers: dict[str, str] = {}
