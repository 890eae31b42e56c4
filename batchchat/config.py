"""Job file and overrides to one frozen ``JobConfig``; the structs here are the reference of the job file's keys."""

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from batchchat.durations import Rate, parse_duration, parse_rate
from batchchat.errors import ConfigError, UnknownProviderError
from batchchat.job_yaml import EnvText, KeyPath, Locations, read_yaml
from batchchat.prompts import InputSettings
from batchchat.providers import installed_providers, load_provider
from batchchat.providers.base import Provider
from batchchat.sections import Form, convert_section, free_value

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

_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", re.ASCII)
_USER_INFO = re.compile(r"://[^/?#\s]*@")
_COUNT = re.compile(r"\d{1,18}", re.ASCII)


def _duration(value: Any) -> float:
    if not isinstance(value, str | int | float):
        raise ValueError("expected a duration such as 30s, found a list or mapping")
    return parse_duration(value)


def _rates(value: Any) -> tuple[Rate, ...]:
    rates = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, str | Rate):
            raise ValueError(f"expected a rate such as 200/s, 60/min, 1000/h or 10000/d, found {item!r}")
        rates.append(item if isinstance(item, Rate) else parse_rate(item))
    return tuple(rates)


def _paths(value: Any) -> list[str]:
    paths = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"expected a path or a list of paths, found {value!r}")
    return list(paths)


def _failures(value: Any) -> int | str:
    """A count as it is, a share as ``2%``."""
    if isinstance(value, str):
        if _COUNT.fullmatch(value.strip()):
            return int(value)
        match = _PERCENTAGE.fullmatch(value.strip())
        if match is not None and float(match[1]) <= 100:
            return f"{match[1]}%"
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"expected a number of prompts such as 100, or a share of them such as 2%, found {value!r}")


def _carry(value: Any) -> str | tuple[str, ...]:
    if value in ("all", "none"):
        return str(value)
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"expected all, none, or names of fields such as topic,source, found {value!r}")
    return tuple(name.strip() for name in names)


_DURATION_SCHEMA = {"type": ["string", "number"], "minimum": 0, "examples": ["500ms", "30s", "5m", "1h30m", 0]}
_TEXTS_SCHEMA = {"type": ["string", "array"], "items": {"type": "string"}}

Seconds = Annotated[float, Meta(ge=0, extra={"form": Form(parse=_duration, schema=_DURATION_SCHEMA)})]
Rates = Annotated[
    tuple[Rate, ...],
    Meta(extra={"form": Form(parse=_rates, schema=_TEXTS_SCHEMA | {"examples": ["200/s", ["5/s", "10000/d"]]})}),
]
Paths = Annotated[list[str], Meta(extra={"form": Form(parse=_paths, schema=_TEXTS_SCHEMA)})]
Failures = Annotated[
    int | str,
    Meta(extra={"form": Form(parse=_failures, schema={"type": ["integer", "string"], "examples": [100, "2%"]})}),
]
Carry = Annotated[
    Literal["all", "none"] | tuple[str, ...],
    Meta(extra={"form": Form(parse=_carry, schema=_TEXTS_SCHEMA | {"examples": ["all", "none", ["topic"]]})}),
]
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where results go and how.

    Attributes:
        path: Results file; ``-`` for standard output. Needed, here or as ``-o``.
        format: ``flat`` lines, or the output form of the OpenAI Batch API.
        order: Order of result lines; ``input`` holds a bounded window back.
        fsync: When results reach the disk for good; ``interval`` is every second.
    """

    path: Text | None = None
    format: Literal["flat", "openai-batch"] = "flat"
    order: Literal["completion", "input"] = "completion"
    fsync: Literal["interval", "always", "never"] = "interval"


class PromptConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an input line becomes a prompt.

    Attributes:
        template: Jinja template over the line's fields; without one the line's own form counts.
        system: Jinja template of the system prompt.
        id: Field that holds the id; ``id`` or ``custom_id`` without it.
        params: Sampling parameters sent with every prompt.
    """

    template: Text | None = None
    system: Text | None = None
    id: Text | None = None
    params: dict[str, Any] = {}


class RetryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Further attempts after a failed one.

    Attributes:
        retries: Further attempts after the first.
        max_wait_s: Longest single wait a service may ask for, beyond it the run stops; 0 for any.
    """

    retries: Annotated[int, Meta(ge=0)] = 5
    max_wait_s: Seconds = msgspec.field(name="max_wait", default=300.0)


class TimeoutConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Longest times; 0 for none.

    Attributes:
        connect_s: Connecting.
        idle_s: Silence once the answer has begun.
        attempt_s: One attempt.
        prompt_s: One prompt with all its attempts.
        run_s: The whole run.
    """

    connect_s: Seconds = msgspec.field(name="connect", default=10.0)
    idle_s: Seconds = msgspec.field(name="idle", default=60.0)
    attempt_s: Seconds = msgspec.field(name="attempt", default=300.0)
    prompt_s: Seconds = msgspec.field(name="prompt", default=0.0)
    run_s: Seconds = msgspec.field(name="run", default=0.0)


class StopConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The user's own limits; beyond them the run stops.

    Attributes:
        max_failures: Failed prompts that are tolerated: a number, or a share such as ``2%``.
        budget_usd: US dollars that the counted cost may reach.
    """

    max_failures: Failures | None = None
    budget_usd: Annotated[float, Meta(gt=0)] | None = None

    @property
    def max_failures_count(self) -> int | None:
        """Number of tolerated failures, None where none or a share is given."""
        return self.max_failures if isinstance(self.max_failures, int) else None

    @property
    def max_failures_share(self) -> float | None:
        """Tolerated share of the prompts, 0 to 1, None where none or a number is given."""
        return float(self.max_failures.rstrip("%")) / 100 if isinstance(self.max_failures, str) else None


class JobConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job, as the job file and the options laid over it say.

    Attributes:
        version: Version of the job file's form.
        input: Input files, from the working directory; ``-`` for standard input. Needed, here or as INPUT.
        output: Where results go and how.
        provider: ``name`` of the provider and its own settings.
        prompt: How an input line becomes a prompt.
        concurrency: Prompts in flight.
        rate: Most requests in a time, ``200/s``, ``60/min``, ``1000/h``, ``10000/d``; all of a list hold.
        burst: Requests that may go out at once within the rate.
        tokens_per_minute: Tokens a minute, estimated before and corrected by what the service counts.
        retry: Further attempts after a failed one.
        timeout: Longest times.
        stop: The user's own limits.
        grace_s: How long prompts in flight may go on after the first signal.
        limit: Only the first prompts, this many.
        sample: Only this many prompts, drawn at random.
        seed: Seed of ``sample``.
        on_duplicate: Two prompts with one id: an error, the first counts, or ids with a suffix.
        on_change: A stored answer that no longer fits its prompt: an error, asked again, or kept.
        lenient: Whether a faulty input line becomes an error line and does not stop the run.
        carry: What of an input line stands in its result: ``all``, ``none``, or names of fields.
        max_response_bytes: Ceiling for one answer.
        nonce_cache: Whether nonces are kept on disk between runs.
        proxy: Proxy URL; overrides the environment's.
        errors: Errors file, if not beside the results.
        summary: Summary file, if not beside the results.
        source: Path of the job file; not a key of it.
    """

    version: Literal[1] = 1
    input: Paths = []
    output: OutputConfig = OutputConfig()
    provider: dict[str, Any] = {}
    prompt: PromptConfig = PromptConfig()
    concurrency: Count = 16
    rate: Rates = ()
    burst: Count = 1
    tokens_per_minute: Count | None = None
    retry: RetryConfig = RetryConfig()
    timeout: TimeoutConfig = TimeoutConfig()
    stop: StopConfig = StopConfig()
    grace_s: Seconds = msgspec.field(name="grace", default=30.0)
    limit: Count | None = None
    sample: Count | None = None
    seed: int = 0
    on_duplicate: Literal["error", "first", "suffix"] = "error"
    on_change: Literal["error", "redo", "keep"] = "error"
    lenient: bool = False
    carry: Carry = "all"
    max_response_bytes: Count = 64 << 20
    nonce_cache: bool = True
    proxy: Text | None = None
    errors: Text | None = None
    summary: Text | None = None
    source: Annotated[str | None, Meta(extra={"internal": True})] = None

    def input_settings(self) -> InputSettings:
        """What the prompt reader needs of the job.

        Raises:
            ConfigError: No input is named.
        """
        if not self.input:
            raise ConfigError("no input is named; give INPUT or input", path=self.source)
        return InputSettings(
            paths=tuple(self.input),
            prompt_template=self.prompt.template,
            system_template=self.prompt.system,
            id_field=self.prompt.id,
            on_duplicate=self.on_duplicate,
            limit=self.limit,
            sample=self.sample,
            seed=self.seed,
        )

    def without_secrets(self) -> dict[str, Any]:
        """The settings by their keys in the job file, as they may be shown: no values of headers, no passwords."""
        shown: dict[str, Any] = msgspec.to_builtins(self)
        shown["rate"] = [str(rate) for rate in self.rate]
        shown["provider"] = {
            key: dict.fromkeys(value, "***") if key == "headers" else value for key, value in self.provider.items()
        }
        masked: dict[str, Any] = _without_passwords(shown)
        return masked


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
    raw, locations = ({}, Locations()) if path is None else read_yaml(path, environ)
    for key, value in (overrides or {}).items():
        _lay_over(raw, key, value, locations)
    section = raw.pop("provider", {})
    job = convert_section(raw, JobConfig, locations=locations)
    return msgspec.structs.replace(job, provider=_provider_section(section, locations), source=path)


def provider_config(job: JobConfig) -> tuple[type[Provider], Any]:
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
    return provider_class, convert_section(settings, provider_class.Config, key="provider")


def _without_passwords(value: Any) -> Any:
    """The value with the user info of every URL in it hidden."""
    if isinstance(value, dict):
        return {key: _without_passwords(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_passwords(item) for item in value]
    return _USER_INFO.sub("://***@", value) if isinstance(value, str) else value


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
    """The provider's settings, checked against its ``Config``."""
    if not isinstance(section, dict):
        raise locations.error(("provider",), "expected a mapping such as {name: ai-engine, base_url: https://…}")
    settings = dict(section)
    if "name" not in settings:
        return {str(key): free_value(value, locations, ("provider", key)) for key, value in settings.items()}
    name = settings.pop("name")
    if not isinstance(name, str):
        raise locations.error(("provider", "name"), f"expected the name of a provider, found {name!r}")
    name = str(name)
    try:
        config_type = load_provider(name).Config
    except UnknownProviderError as error:
        near = difflib.get_close_matches(name, installed_providers(), 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise locations.error(("provider", "name"), error.message + guess, UnknownProviderError) from error
    config = convert_section(settings, config_type, locations=locations, key="provider")
    return {"name": name} | {key: value for key, value in msgspec.to_builtins(config).items() if key in settings}
