"""The table of options that make a job: each with its key in the job file."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

__all__ = ["OPTIONS"]


class _Lines(_ParamType):
    """Text of a repeatable option whose environment variable holds one value a line."""

    name = "text"
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value.strip()


_LINES = _Lines()

# Option, key path in the job, and what else click should know; the environment variable follows from the option.
OPTIONS: tuple[tuple[tuple[str, ...], str, dict[str, Any]], ...] = (
    (("-o", "--output"), "output.path", {"metavar": "FILE", "help": "Results file; - for standard output."}),
    (("--provider",), "provider.name", {"metavar": "NAME", "help": "openai, ai-engine, local or a plug-in."}),
    (("--base-url",), "provider.base_url", {"metavar": "URL", "help": "Address of the service."}),
    (
        ("--model",),
        "provider.model",
        {"metavar": "NAME", "help": "Model where a line names none; for local, a .gguf file."},
    ),
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
    (
        ("--concurrency",),
        "concurrency",
        {"metavar": "N|auto", "help": "Prompts in flight; auto finds out how many pay.  [default: 16]"},
    ),
    (
        ("--processes",),
        "processes",
        {"metavar": "N", "help": "Processes that speak to the service, under one rate.  [default: 1]"},
    ),
    (
        ("--engine",),
        "engine",
        {"metavar": "local|ray", "help": "Ask in this process, or on a Ray cluster.  [default: local]"},
    ),
    (
        ("--ray-address",),
        "ray_address",
        {
            "metavar": "HOST:PORT|auto",
            "help": "Head of the Ray cluster.  [default: one that is started here for the run]",
        },
    ),
    (
        ("--workers",),
        "workers",
        {"metavar": "N", "help": "Workers on the Ray cluster.  [default: as many as it has CPUs]"},
    ),
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
        ("--rate-scope",),
        "rate_scope",
        {
            "metavar": "run|host",
            "help": "What the limits hold over: this run, or all of yours on this machine with the same service and "
            "key.  [default: run]",
        },
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
        ("--window",),
        "run.window",
        {
            "multiple": True,
            "type": _LINES,
            "metavar": "HH:MM-HH:MM",
            "help": "Send only at these times of the day, such as 'Mon-Fri 22:00-06:00'; repeatable.",
        },
    ),
    (
        ("--timezone",),
        "run.timezone",
        {"metavar": "NAME", "help": "Time zone of --window, such as Europe/Berlin.  [default: the machine's]"},
    ),
    (
        ("--breaker",),
        "breaker",
        {"metavar": "off", "help": "Let prompts fail while the service is dead, in the place of waiting for it."},
    ),
    (
        ("--max-outage",),
        "breaker.max_open",
        {"metavar": "DUR", "help": "Longest time to wait for a service that is dead; 0 for any.  [default: 1h]"},
    ),
    (
        ("--second-attempt",),
        "stragglers.second_attempt",
        {
            "metavar": "DUR",
            "help": "Ask the last prompts once more beside a request that takes longer than that.  [default: none]",
        },
    ),
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
    (("--limit",), "limit", {"metavar": "N", "help": "Only the first N lines of the input."}),
    (("--sample",), "sample", {"metavar": "N", "help": "Only N lines of the input, drawn at random."}),
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
        ("--ca-file",),
        "ca_file",
        {"metavar": "FILE", "help": "Certificates (PEM) to trust beside the system's, for a private authority."},
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
    (("--metrics",), "metrics", {"metavar": "FILE", "help": "Keep the run's figures there for Prometheus (.prom)."}),
)
