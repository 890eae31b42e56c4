"""Registry of providers: the entry-point group ``batchchat.providers`` maps a kind to its class.

The built-in kinds come through the same door as plug-ins; a class is imported when it is asked for.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from batchchat.errors import UnknownProviderError

if TYPE_CHECKING:
    from batchchat.providers.ai_engine import AIEngine
    from batchchat.providers.base import Provider
    from batchchat.providers.chatgpt4online import Chatgpt4Online
    from batchchat.providers.openai import OpenAIChat

__all__ = ["AIEngine", "Chatgpt4Online", "OpenAIChat", "installed_providers", "load_provider"]

_GROUP = "batchchat.providers"
_NAMES = {"AIEngine": "ai-engine", "Chatgpt4Online": "chatgpt4online", "OpenAIChat": "openai"}


def installed_providers() -> dict[str, str]:
    """Kinds that can be named in a job, each with ``module:Class``, sorted by kind."""
    return {point.name: point.value for point in sorted(_points(), key=lambda point: point.name)}


def load_provider(kind: str) -> "type[Provider]":
    """The class behind a kind.

    Raises:
        UnknownProviderError: No such kind is installed, or it cannot be imported.
    """
    for point in _points():
        if point.name == kind:
            try:
                loaded: type[Provider] = point.load()
            except (ImportError, AttributeError) as error:
                raise UnknownProviderError(
                    f"provider {kind!r} ({point.value}) cannot be loaded: {error}; reinstall the package it is from"
                ) from error
            return loaded
    known = ", ".join(installed_providers())
    raise UnknownProviderError(f"no provider {kind!r} is installed; expected one of: {known}")


def _points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=_GROUP))


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return load_provider(_NAMES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
