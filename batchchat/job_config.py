"""The structs of a job: the reference of the job file's keys, their types, defaults and meaning."""

import os
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from batchchat.errors import ConfigError
from batchchat.input_settings import ImageDetail, InputSettings
from batchchat.job_forms import Carry, Failures, Paths, Rates, Seconds
from batchchat.prices import PriceConfig
from batchchat.prompt_forms import Examples, FieldNames, TemplateText
from batchchat.run_settings import BreakerConfig, RunConfig

__all__ = [
    "AnswerConfig",
    "JobConfig",
    "OutputConfig",
    "PromptConfig",
    "RetryConfig",
    "StopConfig",
    "StragglersConfig",
    "TelemetryConfig",
    "TimeoutConfig",
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
        template: Jinja template over the line's fields, or ``{file: PATH}`` in the job file's folder; without one the
            line's own form counts.
        templates: Several templates by name, one request each; ids become ``id/name``.
        system: Jinja template of the system prompt, or ``{file: PATH}``.
        id: Field that holds the id; ``id`` or ``custom_id`` without it.
        params: Sampling parameters sent with every prompt.
        examples: Answered examples that go before every prompt: a path, or ``{path, answer, limit}``.
        images: Fields with paths or addresses of images that go with the prompt.
        files: Fields with paths of files that go with the prompt.
        image_detail: How closely the service is to look at images.
        file_root: Folder that those paths must not lead out of; the input file's own without it, ``/`` for any.
        max_file_bytes: Largest image or file, in bytes.
        n: How often each prompt is asked; from 2 on, ids become ``id#1`` and so on.
    """

    template: TemplateText | None = None
    templates: dict[str, TemplateText] = {}
    system: TemplateText | None = None
    id: Text | None = None
    params: dict[str, Any] = {}
    examples: Examples | None = None
    images: FieldNames = []
    files: FieldNames = []
    image_detail: ImageDetail | None = None
    file_root: Text | None = None
    max_file_bytes: Count = 20 << 20
    n: Annotated[int, Meta(ge=1, le=10_000)] = 1


class AnswerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer must be.

    Attributes:
        schema: JSON Schema that the answer must fit: its file, or the schema itself.
        schema_retries: How often an answer that does not fit is asked for again.
        extract: JMESPath expression; what it finds in the answer's JSON becomes `value`.
    """

    schema: Text | dict[str, Any] | None = None
    schema_retries: Annotated[int, Meta(ge=0)] = 2
    extract: Text | None = None


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


class StragglersConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done about the last few prompts where they take long.

    Attributes:
        second_attempt_s: Time after which one gets a second request beside the first, once no other is left to
            begin; it may cost twice. 0 for none.
    """

    second_attempt_s: Seconds = msgspec.field(name="second_attempt", default=0.0)


class StopConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The user's own limits; beyond them the run stops.

    Attributes:
        max_failures: Failed prompts that are tolerated: a number, or a share such as ``2%``.
        budget_usd: US dollars that the requests of one run may cost; every model needs a price.
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


class TelemetryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told to a collector of OpenTelemetry, which the OTEL_* variables name.

    Attributes:
        otlp: Whether anything is.
        ids: Whether spans tell the ids of their prompts.
        content: Whether spans tell what was asked and answered.
    """

    otlp: bool = False
    ids: bool = False
    content: bool = False


class JobConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job, as the job file and the options laid over it say.

    Attributes:
        version: Version of the job file's form.
        input: Input files, from the working directory; ``-`` for standard input. Needed, here or as INPUT.
        output: Where results go and how.
        provider: ``name`` of the provider and its own settings.
        prompt: How an input line becomes a prompt.
        matrix: ``model`` or sampling parameters, each with a list of values; every prompt is asked with each of them.
        answer: What an answer must be.
        concurrency: Prompts in flight; ``auto`` finds out how many pay.
        processes: Processes that speak to the service; limits, results and all else are one run's.
        engine: Where prompts are asked: in this process, or by the workers of a Ray cluster.
        ray_address: Head of the cluster, ``HOST:PORT``, or ``auto`` for the one that this machine belongs to; without
            it, one is started on this machine for the run.
        workers: Workers on the cluster; as many as it has CPUs without it.
        rate: Most requests in a time, ``200/s``, ``60/min``, ``1000/h``, ``10000/d``; all of a list hold.
        burst: Requests that may go out at once within the rate.
        rate_scope: What ``rate``, ``burst``, ``tokens_per_minute`` and a service's pauses hold over: this run, or all
            runs of this user on this machine with the same service and key.
        tokens_per_minute: Tokens a minute, estimated before and corrected by what the service counts.
        retry: Further attempts after a failed one.
        timeout: Longest times.
        stragglers: What is done about the last few prompts where they take long.
        stop: The user's own limits.
        run: When the run may send.
        breaker: When the service counts as dead, so that the run waits for it; ``off`` for never.
        prices: Prices by model, or by a pattern such as ``gpt-4*`` or ``*``, in US dollars for a million tokens; they
            go before those of the library genai-prices.
        grace_s: How long prompts in flight may go on after the first signal.
        limit: Only the first lines, this many.
        sample: Only this many lines, drawn at random.
        seed: Seed of ``sample``.
        on_duplicate: Two prompts with one id: an error, the first counts, or ids with a suffix.
        on_change: A stored answer that no longer fits its prompt: an error, asked again, or kept.
        dedup: Whether prompts that ask the same are sent once; each gets its line.
        reuse: Results files of other runs; what they answered already is taken from there.
        lenient: Whether a faulty input line becomes an error line and does not stop the run.
        carry: What of an input line stands in its result: ``all``, ``none``, or names of fields.
        max_response_bytes: Ceiling for one answer.
        nonce_cache: Whether nonces are kept on disk between runs.
        proxy: Proxy URL; overrides the environment's.
        ca_file: Certificates of authorities (PEM) that are trusted beside the system's.
        env_file: File of environment variables (``.env``) that stand behind the process's own.
        errors: Errors file, if not beside the results.
        summary: Summary file, if not beside the results.
        metrics: File that tells the run's figures in Prometheus' text format, kept up to date while it goes on.
        telemetry: What is told to a collector of OpenTelemetry.
        source: Path of the job file; not a key of it.
    """

    version: Literal[1] = 1
    input: Paths = []
    output: OutputConfig = OutputConfig()
    provider: dict[str, Any] = {}
    prompt: PromptConfig = PromptConfig()
    matrix: dict[str, list[Any]] = {}
    answer: AnswerConfig = AnswerConfig()
    concurrency: Count | Literal["auto"] = 16
    processes: Annotated[int, Meta(ge=1, le=64)] = 1
    engine: Literal["local", "ray"] = "local"
    ray_address: Text | None = None
    workers: Count | None = None
    rate: Rates = ()
    burst: Count = 1
    rate_scope: Literal["run", "host"] = "run"
    tokens_per_minute: Count | None = None
    retry: RetryConfig = RetryConfig()
    timeout: TimeoutConfig = TimeoutConfig()
    stragglers: StragglersConfig = StragglersConfig()
    stop: StopConfig = StopConfig()
    run: RunConfig = RunConfig()
    breaker: Annotated[BreakerConfig, Meta(extra={"off": {"failures": 0}})] = BreakerConfig()
    prices: dict[str, PriceConfig] = {}
    grace_s: Seconds = msgspec.field(name="grace", default=30.0)
    limit: Count | None = None
    sample: Count | None = None
    seed: int = 0
    on_duplicate: Literal["error", "first", "suffix"] = "error"
    on_change: Literal["error", "redo", "keep"] = "error"
    dedup: bool = False
    reuse: Paths = []
    lenient: bool = False
    carry: Carry = "all"
    max_response_bytes: Count = 64 << 20
    nonce_cache: bool = True
    proxy: Text | None = None
    ca_file: Text | None = None
    env_file: Text | None = None
    errors: Text | None = None
    summary: Text | None = None
    metrics: Text | None = None
    telemetry: TelemetryConfig = TelemetryConfig()
    source: Annotated[str | None, Meta(extra={"internal": True})] = None

    def input_settings(self) -> InputSettings:
        """What the prompt reader needs of the job.

        Raises:
            ConfigError: No input is named, or settings of the prompt exclude each other.
        """
        if not self.input:
            raise ConfigError("no input is named; give INPUT, or input in the job file", path=self.source)
        prompt = self.prompt
        if prompt.template is not None and prompt.templates:
            raise ConfigError(
                "the job has prompt.template and prompt.templates; leave one of them out",
                path=self.source,
                key="prompt",
            )
        return InputSettings(
            paths=tuple(self.input),
            prompt_template=prompt.template,
            system_template=prompt.system,
            templates=prompt.templates,
            template_folder=None if self.source is None else os.path.dirname(self.source) or ".",
            examples=prompt.examples,
            images=tuple(prompt.images),
            files=tuple(prompt.files),
            image_detail=prompt.image_detail,
            file_root=prompt.file_root,
            max_file_bytes=prompt.max_file_bytes,
            samples=prompt.n,
            matrix=self.matrix,
            seed_param=prompt.params.get("seed"),
            id_field=prompt.id,
            on_duplicate=self.on_duplicate,
            limit=self.limit,
            sample=self.sample,
            seed=self.seed,
        )
