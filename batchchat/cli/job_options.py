"""The options that make a job, shared by ``run`` and ``check``, and how they become one."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchchat.cli.option_table import OPTIONS

if TYPE_CHECKING:
    from batchchat.config import JobConfig, Override

__all__ = ["job_from", "job_options", "matrix_overrides"]

F = TypeVar("F", bound=Callable[..., Any])


_KEYS = {names[-1].lstrip("-").replace("-", "_"): (names[-1], key) for names, key, _ in OPTIONS}


def job_options(function: F) -> F:
    """Adds INPUT, ``--job`` and every option that makes a job."""
    for option in (
        click.option("--no-nonce-cache", is_flag=True, default=None, envvar="BATCHCHAT_NO_NONCE_CACHE",
                     help="Keep nonces in memory only (ai-engine)."),
        click.option("--dedup", is_flag=True, default=None, envvar="BATCHCHAT_DEDUP",
                     help="Send prompts that ask the same once; each gets its line."),
        click.option("--otel", is_flag=True, default=None, envvar="BATCHCHAT_OTEL",
                     help="Send spans and metrics to the OpenTelemetry collector that OTEL_* variables name."),
        click.option("--strict/--lenient", "strict", default=None, envvar="BATCHCHAT_STRICT",
                     help="A faulty input line stops the run at its start (default), or becomes an error line."),
        *(click.option(*names, envvar=_variable(names[-1]), default=None, **extra)
          for names, _, extra in reversed(OPTIONS)),
        click.option("-j", "--job", metavar="FILE", envvar="BATCHCHAT_JOB", help="Job file; options override it."),
        click.argument("inputs", nargs=-1, metavar="[INPUT]..."),
    ):  # fmt: skip
        function = option(function)
    return function


def job_from(ctx: click.Context, options: dict[str, Any]) -> "JobConfig":
    """The job that options, environment and job file make, in that order of precedence.

    Raises:
        ConfigError: Something in it is wrong; the message names where it stands.
    """
    from batchchat.config import Override, load_job

    overrides: dict[str, Any] = {}
    if options["inputs"]:
        overrides["input"] = Override(list(options["inputs"]), "INPUT")
    for name, (option, key) in _KEYS.items():
        value = options.get(name)
        if value is None or value == ():
            continue
        origin = _origin(ctx, name, option)
        if key == "matrix":
            overrides |= matrix_overrides(value, origin)
        elif key in ("provider.headers", "prompt.params"):
            for part_key, part in _pairs(key, value, option):
                overrides[f"{key}.{part_key}"] = Override(part, origin)
        else:
            overrides[key] = Override(list(value) if isinstance(value, tuple) else value, origin)
    if options.get("strict") is not None:
        overrides["lenient"] = Override(not options["strict"], _origin(ctx, "strict", "--strict"))
    elif lenient := os.environ.get("BATCHCHAT_LENIENT"):
        overrides["lenient"] = Override(lenient, "BATCHCHAT_LENIENT")
    # A variable of value 0 says no, also to a job file that says yes.
    if (dedup := options.get("dedup")) is not None:
        overrides["dedup"] = Override(dedup, _origin(ctx, "dedup", "--dedup"))
    if (otel := options.get("otel")) is not None:
        overrides["telemetry.otlp"] = Override(otel, _origin(ctx, "otel", "--otel"))
    if (memory_only := options.get("no_nonce_cache")) is not None:
        overrides["nonce_cache"] = Override(not memory_only, _origin(ctx, "no_nonce_cache", "--no-nonce-cache"))
    return load_job(options.get("job"), overrides, os.environ)


def matrix_overrides(values: tuple[str, ...], origin: str) -> "dict[str, Override]":
    """The job's matrix as ``KEY=V1,V2`` say it.

    Args:
        origin: The option or the environment variable, for messages.
    """
    from batchchat.config import Override

    pairs = _pairs("matrix", values, "--matrix")
    for number, (key, _) in enumerate(pairs):
        if any(key == other for other, _ in pairs[:number]):
            raise click.UsageError(f"--matrix: found {key!r} twice, expected all its values in one, with commas")
    return {f"matrix.{key}": Override(_values(key, text, "--matrix"), origin) for key, text in pairs}


def _pairs(key: str, values: tuple[str, ...], option: str) -> list[tuple[str, Any]]:
    """Name and value of each ``Name: value`` or ``key=value``."""
    separator = ":" if key == "provider.headers" else "="
    pairs = []
    for text in values:
        name, found, value = text.partition(separator)
        if not found or not name.strip():
            form = "'Name: value'" if separator == ":" else "key=value"
            raise click.UsageError(f"{option}: expected {form}, found {name.strip()!r} without {separator!r}")
        pairs.append((name.strip(), _scalar(value) if key == "prompt.params" else value.strip()))
    return pairs


def _values(key: str, text: str, option: str) -> list[Any]:
    """Values of one key of the matrix: a JSON list, or what stands between commas."""
    listed = _scalar(text) if text.startswith("[") else None
    if isinstance(listed, list):
        return listed
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise click.UsageError(f"{option}: expected {key}=VALUE,VALUE,…, found {text!r}")
    return parts if key == "model" else [_scalar(part) for part in parts]


def _scalar(text: str) -> Any:
    """A parameter's value: JSON where it is some, else the text itself."""
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _origin(ctx: click.Context, name: str, option: str) -> str:
    source = ctx.get_parameter_source(name)
    return _variable(option) if source is click.core.ParameterSource.ENVIRONMENT else option


def _variable(option: str) -> str:
    return "BATCHCHAT_" + option.lstrip("-").replace("-", "_").upper()
