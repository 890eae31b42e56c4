"""Registry of providers: the entry-point group ``batchchat.providers`` maps a kind to its class.

A class is imported when it is asked for. The built-in kinds stand in that group as well, but are found without it, as
looking through every installed package takes longer than loading one of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchchat.errors import UnknownProviderError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from batchchat.providers.ai_engine import AIEngine
    from batchchat.providers.base import Provider
    from batchchat.providers.chatgpt4online import Chatgpt4Online
    from batchchat.providers.openai import OpenAIChat

__all__ = ["AIEngine", "Chatgpt4Online", "OpenAIChat", "installed_providers", "load_provider", "name_clashes"]

_GROUP = "batchchat.providers"
_NEEDED = ("kind", "Config", "identity", "complete", "stream", "__aenter__", "__aexit__")
_BUILT_IN = {
    "ai-engine": "batchchat.providers.ai_engine:AIEngine",
    "chatgpt4online": "batchchat.providers.chatgpt4online:Chatgpt4Online",
    "local": "batchchat.providers.local:LocalModel",
    "openai": "batchchat.providers.openai:OpenAIChat",
}
_NAMES = {"AIEngine": "ai-engine", "Chatgpt4Online": "chatgpt4online", "OpenAIChat": "openai"}


def installed_providers() -> dict[str, str]:
    """Kinds that can be named in a job, each with ``module:Class``, sorted by kind."""
    return {name: _chosen(points).value for name, points in sorted(_points().items())}


def name_clashes() -> dict[str, str]:
    """Kinds that more than one package offers, each with a sentence that says which of them counts."""
    return {name: _clash(points) for name, points in sorted(_points().items()) if len(points) > 1}


def load_provider(kind: str) -> "type[Provider]":
    """The class behind a kind.

    Raises:
        UnknownProviderError: No such kind is installed, or what is installed under that name is no provider.
    """
    if kind in _BUILT_IN:  # whatever plug-ins offer: none gets at the key of another's service by taking its name
        module, _, name = _BUILT_IN[kind].partition(":")
        built_in: type[Provider] = getattr(import_module(module), name)
        return built_in
    points = _points().get(kind)
    if points is None:
        known = ", ".join(installed_providers())
        raise UnknownProviderError(f"no provider {kind!r} is installed; expected one of: {known}")
    point = _chosen(points)
    if len(points) > 1:
        raise UnknownProviderError(_clash(points))
    try:
        loaded = point.load()
    except Exception as error:  # a plug-in's module may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UnknownProviderError(
            f"provider {kind!r} ({point.value}) cannot be loaded: {reason}; reinstall the package it is from"
        ) from error
    if (lack := _lack(loaded)) is not None:
        raise UnknownProviderError(
            f"provider {kind!r} ({point.value}) is none: {lack}; see batchchat.providers.base.Provider"
        )
    provider: type[Provider] = loaded
    return provider


def _points() -> "dict[str, list[EntryPoint]]":
    """Entry points by kind; the same one found twice, as with two folders of packages, counts once."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=_GROUP):
        points = found.setdefault(point.name, [])
        if point.value not in [other.value for other in points]:
            points.append(point)
    return found


def _is_ours(point: "EntryPoint") -> bool:
    return point.value.startswith(f"{__name__}.")


def _chosen(points: "list[EntryPoint]") -> "EntryPoint":
    """Ours, where a plug-in takes the name of a built-in kind: no package may get at another service's key."""
    return next(filter(_is_ours, points), points[0])


def _clash(points: "list[EntryPoint]") -> str:
    chosen = _chosen(points)
    others = " and ".join(sorted(point.value for point in points if point is not chosen))
    if _is_ours(chosen):
        return f"the name {chosen.name!r} is batchchat's own, so {others} is not used; its package must choose another"
    return f"the name {chosen.name!r} is taken by {chosen.value} and {others}; uninstall one of their packages"


def _lack(loaded: Any) -> str | None:
    """What a plug-in's object lacks of a provider; None where it has it all."""
    if not isinstance(loaded, type):
        return f"expected a class, found {type(loaded).__name__}"
    missing = [name for name in _NEEDED if getattr(loaded, name, None) is None]
    if missing:
        return f"it has no {', '.join(missing)}"
    import msgspec

    config = loaded.Config  # type: ignore[attr-defined]
    if not (isinstance(config, type) and issubclass(config, msgspec.Struct)):
        return f"its Config is no msgspec.Struct but {config!r}"
    return None


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return load_provider(_NAMES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
