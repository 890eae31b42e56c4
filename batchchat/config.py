"""Job file and overrides to one frozen ``JobConfig``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from batchchat.errors import ConfigError, UnknownProviderError
from batchchat.job_config import JobConfig, OutputConfig, PromptConfig, RetryConfig, StopConfig, TimeoutConfig
from batchchat.job_paths import with_plain_paths
from batchchat.locations import EnvText, KeyPath, Locations
from batchchat.providers import installed_providers, load_provider
from batchchat.scalars import describe_value
from batchchat.sections import convert_section, free_value, public_fields

if TYPE_CHECKING:
    from batchchat.providers.base import Provider

__all__ = [
    "JobConfig",
    "OutputConfig",
    "Override",
    "PromptConfig",
    "RetryConfig",
    "StopConfig",
    "TimeoutConfig",
    "load_job",
    "provider_config",
]


class Override(msgspec.Struct, frozen=True):
    """A value from outside the job file, and what it is called there (``--rate``, ``BATCHCHAT_RATE``)."""

    value: Any
    origin: str


def load_job(
    path: str | None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> JobConfig:
    """Reads a job file and lays overrides over it.

    Args:
        path: The job file, or None for a job of overrides only.
        overrides: Dotted key (``output.path``, ``prompt.params.temperature``) to value or ``Override``. Text is
            taken for a number or for true or false where one is expected.
        environ: Where ``${NAME}`` in the job file is looked up; the process's own environment by default.

    Raises:
        ConfigError: Something in it is wrong: option, or file, line and key; what was found, what was expected.
    """
    named = (overrides or {}).get("env_file")
    env_file = named.value if isinstance(named, Override) else named
    raw: dict[str, Any] = {}
    locations = Locations()
    if path is not None:
        from batchchat.job_yaml import read_yaml

        raw, locations = read_yaml(path, environ, env_file)
    for key, value in (overrides or {}).items():
        _lay_over(raw, key, value, locations)
    section = raw.pop("provider", {})
    job = convert_section(raw, JobConfig, locations=locations, elsewhere=_keys_of_sections())
    return with_plain_paths(msgspec.structs.replace(job, provider=_provider_section(section, locations), source=path))


def provider_config(job: JobConfig) -> "tuple[type[Provider], Any]":
    """The class of the job's provider, and its settings as that class's ``Config``.

    Raises:
        ConfigError: The job names no provider, one that is not installed, or settings that do not fit it.
    """
    settings = dict(job.provider)
    name = settings.pop("name", None)
    if not name:
        known = ", ".join(installed_providers())
        raise ConfigError(f"no provider is named; give --provider or provider.name (one of {known})", path=job.source)
    provider_class = load_provider(name)
    return provider_class, convert_section(settings, provider_class.Config, key="provider", owner=f"provider {name}")


def _keys_of_sections() -> dict[str, str]:
    """Key path of every key that stands in a section of the job."""
    paths = {name: f"provider.{name}" for name in ("base_url", "bot_id", "model")}
    kind = inspect.type_info(JobConfig)
    for name, field in public_fields(kind).items() if isinstance(kind, inspect.StructType) else ():
        section = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
        if isinstance(section, inspect.StructType):
            paths |= {inner: f"{name}.{inner}" for inner in public_fields(section)}
    return paths


def _lay_over(raw: dict[str, Any], key: str, value: Any, locations: Locations) -> None:
    """Puts one override into the raw job; names of headers and parameters may hold dots themselves."""
    if not isinstance(value, Override):
        value = Override(value, key)
    keys: KeyPath = tuple(key.split(".", 2))
    section = raw
    for depth, part in enumerate(keys[:-1], 1):
        inner = section.setdefault(str(part), {})
        if inner is None:
            inner = section[str(part)] = {}
        if not isinstance(inner, dict):
            raise locations.error(keys[:depth], f"expected a mapping, so that {value.origin} can be laid over it")
        section = inner
    section[str(keys[-1])] = _open_typed(value.value)
    locations.origins[keys] = value.origin


def _open_typed(value: Any) -> Any:
    if isinstance(value, str):
        return EnvText(value)
    return [_open_typed(item) for item in value] if isinstance(value, list | tuple) else value


def _provider_section(section: Any, locations: Locations) -> dict[str, Any]:
    """The provider's settings, checked against its ``Config``; without a name, as they are."""
    if not isinstance(section, dict):
        found = describe_value(section)
        raise locations.error(("provider",), f"expected a mapping such as {{name: ai-engine}}, found {found}")
    settings = dict(section)
    name = settings.pop("name", None)
    if name is None:
        return {str(key): free_value(value, locations, ("provider", key)) for key, value in settings.items()}
    if not isinstance(name, str):
        found = describe_value(name)
        raise locations.error(("provider", "name"), f"expected the name of a provider, found {found}")
    name = str(name)
    try:
        config_type = load_provider(name).Config
    except UnknownProviderError as error:
        import difflib  # for mistakes only

        near = difflib.get_close_matches(name, installed_providers(), 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise locations.error(("provider", "name"), error.message + guess, UnknownProviderError) from error
    config = convert_section(settings, config_type, locations=locations, key="provider", owner=f"provider {name}")
    return {"name": name} | {key: value for key, value in msgspec.to_builtins(config).items() if key in settings}
