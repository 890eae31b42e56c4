"""The options that make a job, shared by ``run`` and ``check``, and how they become one."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from batchchat.config import JobConfig

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

__all__ = ["job_from", "job_options"]

F = TypeVar("F", bound=Callable[..., Any])


class _Lines(_ParamType):
    """Text of a repeatable option whose environment variable holds one value a line."""

    name = "text"
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value.strip()


_LINES = _Lines()

# Option, key path in the job, and what else click should know; the environment variable follows from the option.
_OPTIONS: tuple[tuple[tuple[str, ...], str, dict[str, Any]], ...] = (
    (("-o", "--output"), "output.path", {"metavar": "FILE", "help": "Results file; - for standard output."}),
    (("--provider",), "provider.name", {"metavar": "NAME", "help": "ai-engine, chatgpt4online, openai or a plug-in."}),
    (("--base-url",), "provider.base_url", {"metavar": "URL", "help": "Address of the service."}),
    (("--model",), "provider.model", {"metavar": "NAME", "help": "Model of prompts whose line names none (openai)."}),
    (("--bot-id",), "provider.bot_id", {"metavar": "ID", "help": "Chatbot (ai-engine).  [default: default]"}),
    (
        ("--api-key-env",),
        "provider.api_key_env",
        {"metavar": "NAME", "help": "Environment variable that holds the key; keys are never options."},
    ),
    (
        ("--env-file",),
        "env_file",
        {"metavar": "FILE", "help": "Environment variables from a .env file; the ones that are set already win."},
    ),
    (
        ("--header",),
        "provider.headers",
        {"multiple": True, "type": _LINES, "metavar": "'NAME: VALUE'", "help": "Extra request header; repeatable."},
    ),
    (
        ("--prompt",),
        "prompt.template",
        {"metavar": "TEMPLATE", "help": "Jinja template over a line's fields, such as '{{question}}'."},
    ),
    (
        ("--system",),
        "prompt.system",
        {"metavar": "TEMPLATE", "help": "Jinja template of the system prompt, where a line has none."},
    ),
    (("--id-field",), "prompt.id", {"metavar": "NAME", "help": "Field that holds the id."}),
    (
        ("--param",),
        "prompt.params",
        {
            "multiple": True,
            "type": _LINES,
            "metavar": "KEY=VALUE",
            "help": "Sampling parameter, such as temperature=0; repeatable.",
        },
    ),
    (
        ("--examples",),
        "prompt.examples",
        {"metavar": "FILE", "help": "Answered examples that go before every prompt (few-shot)."},
    ),
    (
        ("--image-field",),
        "prompt.images",
        {
            "multiple": True,
            "type": _LINES,
            "metavar": "NAME",
            "help": "Field with paths or URLs of images; repeatable.",
        },
    ),
    (
        ("--file-field",),
        "prompt.files",
        {"multiple": True, "type": _LINES, "metavar": "NAME", "help": "Field with paths of files; repeatable."},
    ),
    (
        ("--file-root",),
        "prompt.file_root",
        {"metavar": "DIR", "help": "Folder that those paths must not lead out of.  [default: the input file's]"},
    ),
    (("--n",), "prompt.n", {"metavar": "N", "help": "Ask each prompt N times; ids become id#1 … id#N."}),
    (
        ("--matrix",),
        "matrix",
        {
            "multiple": True,
            "type": _LINES,
            "metavar": "KEY=V1,V2,…",
            "help": "Ask each prompt with every value of model or of a sampling parameter; repeatable.",
        },
    ),
    (("--schema",), "answer.schema", {"metavar": "FILE", "help": "JSON Schema that every answer must fit."}),
    (
        ("--schema-retries",),
        "answer.schema_retries",
        {"metavar": "N", "help": "How often an answer that does not fit is asked for again.  [default: 2]"},
    ),
    (
        ("--extract",),
        "answer.extract",
        {"metavar": "EXPR", "help": "JMESPath expression over the answer's JSON; what it finds becomes 'value'."},
    ),
    (("--concurrency",), "concurrency", {"metavar": "N", "help": "Prompts in flight.  [default: 16]"}),
    (
        ("--rate",),
        "rate",
        {
            "multiple": True,
            "metavar": "N/UNIT",
            "help": "At most so many requests, retries included: 200/s, 60/min, 1000/h, 10000/d; repeatable, all hold.",
        },
    ),
    (
        ("--burst",),
        "burst",
        {"metavar": "N", "help": "Requests that may go out at once within the rate.  [default: 1]"},
    ),
    (
        ("--tokens-per-minute",),
        "tokens_per_minute",
        {"metavar": "N", "help": "At most so many tokens a minute, estimated, then corrected by usage."},
    ),
    (("--retries",), "retry.retries", {"metavar": "N", "help": "Further attempts after the first.  [default: 5]"}),
    (
        ("--max-retry-wait",),
        "retry.max_wait",
        {"metavar": "DUR", "help": "Longest wait a service may ask for; beyond it the run stops.  [default: 5m]"},
    ),
    (("--connect-timeout",), "timeout.connect", {"metavar": "DUR", "help": "Longest time to connect.  [default: 10s]"}),
    (
        ("--idle-timeout",),
        "timeout.idle",
        {"metavar": "DUR", "help": "Longest silence once the answer has begun.  [default: 60s]"},
    ),
    (("--timeout",), "timeout.attempt", {"metavar": "DUR", "help": "Longest time for one attempt.  [default: 5m]"}),
    (
        ("--prompt-deadline",),
        "timeout.prompt",
        {"metavar": "DUR", "help": "Longest time for one prompt with all its attempts.  [default: none]"},
    ),
    (("--deadline",), "timeout.run", {"metavar": "DUR", "help": "Longest time for the whole run.  [default: none]"}),
    (
        ("--max-failures",),
        "stop.max_failures",
        {"metavar": "N|P%", "help": "Stop when more prompts than that have failed."},
    ),
    (
        ("--budget",),
        "stop.budget_usd",
        {"metavar": "USD", "help": "Stop before the requests of this run cost more; see 'prices' of the job file."},
    ),
    (("--limit",), "limit", {"metavar": "N", "help": "Only the first N prompts."}),
    (("--sample",), "sample", {"metavar": "N", "help": "Only N prompts drawn at random."}),
    (("--seed",), "seed", {"metavar": "S", "help": "Seed of --sample.  [default: 0]"}),
    (
        ("--order",),
        "output.order",
        {
            "metavar": "completion|input",
            "help": "Order of result lines.  [default: completion]",
        },
    ),
    (
        ("--carry",),
        "carry",
        {"metavar": "all|none|FIELD,…", "help": "What of an input line stands in its result.  [default: all]"},
    ),
    (("--format",), "output.format", {"metavar": "flat|openai-batch", "help": "Form of the results.  [default: flat]"}),
    (
        ("--on-duplicate",),
        "on_duplicate",
        {
            "metavar": "error|first|suffix",
            "help": "Two prompts with one id: stop, take the first, or rename the later ones.  [default: error]",
        },
    ),
    (
        ("--reuse",),
        "reuse",
        {
            "multiple": True,
            "type": _LINES,
            "metavar": "RESULTS",
            "help": "Take what another run's results answer already; repeatable.",
        },
    ),
    (
        ("--on-change",),
        "on_change",
        {
            "metavar": "error|redo|keep",
            "help": "A stored answer that no longer fits: stop, ask again, or keep it.  [default: error]",
        },
    ),
    (
        ("--fsync",),
        "output.fsync",
        {
            "metavar": "interval|always|never",
            "help": "Bring results to the disk each second, with each answer, or never.  [default: interval]",
        },
    ),
    (
        ("--proxy",),
        "proxy",
        {"metavar": "URL", "help": "HTTP proxy; overrides HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY."},
    ),
    (
        ("--max-response-bytes",),
        "max_response_bytes",
        {"metavar": "N", "help": "Longest answer, in bytes.  [default: 64 MiB]"},
    ),
    (
        ("--grace",),
        "grace",
        {"metavar": "DUR", "help": "How long prompts in flight may go on after a signal.  [default: 30s]"},
    ),
    (("--errors",), "errors", {"metavar": "FILE", "help": "Errors file somewhere else than beside the results."}),
    (("--summary",), "summary", {"metavar": "FILE", "help": "Summary somewhere else than beside the results."}),
)
# A limit or a setting that would be passed over in silence is worse than none.
_NOT_YET = ("BATCHCHAT_PROCESSES",)
_KEYS = {names[-1].lstrip("-").replace("-", "_"): (names[-1], key) for names, key, _ in _OPTIONS}


def job_options(function: F) -> F:
    """Adds INPUT, ``--job`` and every option that makes a job."""
    for option in (
        click.option("--no-nonce-cache", is_flag=True, default=None, envvar="BATCHCHAT_NO_NONCE_CACHE",
                     help="Keep nonces in memory only (ai-engine)."),
        click.option("--dedup", is_flag=True, default=None, envvar="BATCHCHAT_DEDUP",
                     help="Send prompts that ask the same once; each gets its line."),
        click.option("--strict/--lenient", "strict", default=None, envvar="BATCHCHAT_STRICT",
                     help="A faulty input line stops the run at its start (default), or becomes an error line."),
        *(click.option(*names, envvar=_variable(names[-1]), default=None, **extra)
          for names, _, extra in reversed(_OPTIONS)),
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
    from batchchat.errors import ConfigError

    for variable in _NOT_YET:
        if os.environ.get(variable):
            raise ConfigError(f"{variable} is set, but this version has no such option; take it out of the environment")
    overrides: dict[str, Any] = {}
    if options["inputs"]:
        overrides["input"] = Override(list(options["inputs"]), "INPUT")
    for name, (option, key) in _KEYS.items():
        value = options.get(name)
        if value is None or value == ():
            continue
        origin = _origin(ctx, name, option)
        if key == "matrix":
            for part_key, text in _pairs(key, value, option):
                overrides[f"{key}.{part_key}"] = Override(_values(part_key, text, option), origin)
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
    if (memory_only := options.get("no_nonce_cache")) is not None:
        overrides["nonce_cache"] = Override(not memory_only, _origin(ctx, "no_nonce_cache", "--no-nonce-cache"))
    return load_job(options.get("job"), overrides, os.environ)


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
