"""What a job says, turned into the things that a run is made of."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Literal

from batchchat.admission import Admission
from batchchat.answers import AnswerRule, make_rule
from batchchat.budget import Budget
from batchchat.config import JobConfig, provider_config
from batchchat.env_file import with_env_file
from batchchat.errors import ConfigError
from batchchat.input_settings import TemplateFile
from batchchat.meter import Meter
from batchchat.metrics_file import check_metrics_path
from batchchat.observer import RunObserver
from batchchat.otlp import need_otlp
from batchchat.prices import PriceList
from batchchat.providers import load_provider
from batchchat.providers.base import Provider, ProviderContext, SharedNonce
from batchchat.providers.tls import load_trust
from batchchat.records import Failure, InputFault, Outcome
from batchchat.results import RunFiles, free_space_bytes, run_files
from batchchat.run_output import OutputSettings
from batchchat.run_slots import RunSlots
from batchchat.stopping import StopRules
from batchchat.storage.urls import is_url
from batchchat.tokens import TokenCounter

__all__ = [
    "answer_rule",
    "checked_files",
    "fault_outcome",
    "is_input",
    "job_models",
    "make_meter",
    "make_prices",
    "make_provider",
    "make_rules",
    "make_slots",
    "output_settings",
    "space_warning",
    "warnings",
]

_LINE_BYTES = 2048


def checked_files(job: JobConfig) -> RunFiles:
    """The run's files, and no setting that would not hold.

    Raises:
        ConfigError: No results path is given, or it is one of the inputs.
    """
    path = job.output.path
    if not path:
        raise ConfigError("no results file is named; give -o RESULTS.jsonl or output.path")
    _check_working_folder((path, job.errors, job.summary, *job.input, *job.reuse))
    if is_input(path, job):
        raise ConfigError(f"{path} is both input and results file; name another file with -o")
    for option, named in (("--errors", job.errors), ("--summary", job.summary), ("--metrics", job.metrics)):
        if is_input(named, job):
            raise ConfigError(f"{option} {named} is an input and would be overwritten; name another file")
    for reused in job.reuse:
        if is_url(reused):
            continue  # what is wrong with it is told by reading it
        if not os.path.exists(reused):
            raise ConfigError("no such file; --reuse takes the results of another run", path=reused)
        if os.path.isdir(reused):
            raise ConfigError("this is a folder; --reuse takes the results of another run", path=reused)
    files = run_files(path, job.errors, job.summary)
    if job.metrics is not None:
        check_metrics_path(job.metrics, files)
    if job.telemetry.otlp:
        need_otlp()
    return files


def _check_working_folder(paths: Iterable[str | None]) -> None:
    """Refuses names of files that lead from a working folder which is not there any more."""
    try:
        os.getcwd()
    except OSError:
        for path in paths:
            if path and path != "-" and not os.path.isabs(path):
                raise ConfigError(
                    "the working folder was removed; start from another one, or give paths from / on", path=path
                ) from None


def is_input(path: str | None, job: JobConfig) -> bool:
    """Whether a file that a run writes is one that it reads: an input, an answer's source, or what says how to run."""
    if path is None or path == "-":
        return False
    schema = job.answer.schema if isinstance(job.answer.schema, str) else None
    examples = None if job.prompt.examples is None else job.prompt.examples.path
    others = (job.source, job.env_file, job.ca_file, schema, examples, *_template_files(job))
    read = [*job.input, *job.reuse, *(name for name in others if name is not None)]
    return os.path.realpath(path) in {os.path.realpath(name) for name in read if name != "-"}


def _template_files(job: JobConfig) -> Iterator[str]:
    """The files that hold templates; without a job file there are none."""
    prompt, folder = job.prompt, os.path.dirname(job.source or "")
    for template in (prompt.template, prompt.system, *prompt.templates.values()):
        if isinstance(template, TemplateFile):
            yield os.path.join(folder, template.file)


def output_settings(job: JobConfig) -> OutputSettings:
    """What the run's files need to know of the job."""
    return OutputSettings(form=job.output.format, fsync=job.output.fsync, carry=job.carry)


def make_slots(
    concurrency: int | Literal["auto"], processes: int, admission: Admission, tell: Callable[[str, int], None]
) -> RunSlots:
    """The slots of a run, as many as are wanted, or as turn out to pay.

    Args:
        tell: ``(message, level)``.
    """
    if concurrency != "auto":
        return RunSlots(concurrency, processes)
    from batchchat.auto_concurrency import FoundSlots  # not needed by most runs

    return FoundSlots(processes, admission, tell)


def make_provider(
    job: JobConfig,
    admission: Admission,
    observer: RunObserver,
    environ: Mapping[str, str],
    *,
    concurrency: int,
    shared_nonce: SharedNonce | None = None,
) -> Provider:
    """The job's provider, not entered yet.

    Args:
        concurrency: Most prompts in flight.
        shared_nonce: See ``ProviderContext``.

    Raises:
        ConfigError: Its settings cannot work.
    """
    provider_class, config = provider_config(job)
    environ = with_env_file(job.env_file, environ)
    check = getattr(provider_class, "check_usable", None)
    if check is not None:
        check(config)
    context = ProviderContext(
        gate=admission,
        notice=observer.notice,
        connect_s=job.timeout.connect_s,
        idle_s=job.timeout.idle_s,
        attempt_s=job.timeout.attempt_s,
        max_response_bytes=job.max_response_bytes,
        proxy=job.proxy,
        tls=load_trust(job.ca_file),
        nonce_folder=_cache_folder() if job.nonce_cache and getattr(provider_class, "keeps_nonces", True) else None,
        shared_nonce=shared_nonce,
        concurrency=concurrency,
        environ=environ,
    )
    if job.processes == 1:
        return provider_class(config, context)
    from batchchat.processes import spread_over_processes  # not needed by most runs

    return spread_over_processes(job, provider_class, config, context, admission)


def _cache_folder() -> str | None:
    """Where nonces are kept between runs; None for a user without a home, as a service's may be."""
    import platformdirs

    try:
        return str(platformdirs.user_cache_path("batchchat"))
    except RuntimeError:
        return None


def job_models(job: JobConfig) -> tuple[tuple[str, ...], ...]:
    """The ways that a request without a model of its own may take, each with its model's names; see ``Meter``."""
    settings = job.provider
    endpoints = settings.get("endpoints")
    ways = [way for way in endpoints if isinstance(way, dict)] if isinstance(endpoints, list) else []
    names = [[way.get("model"), settings.get("model")] for way in ways] or [[settings.get("model")]]
    return tuple(tuple(name for name in way if isinstance(name, str) and name) for way in names)


def make_prices(job: JobConfig) -> PriceList:
    """The prices that count for the job."""
    base_url, name = job.provider.get("base_url"), job.provider.get("name")
    free = bool(name) and getattr(load_provider(str(name)), "free", False) is True
    return PriceList(job.prices, base_url=base_url if isinstance(base_url, str) else None, free=free)


def make_meter(
    job: JobConfig,
    observer: RunObserver,
    exhausted: Callable[[str], None],
    *,
    budget: Callable[[Callable[[str], None]], Budget] | None = None,
) -> Meter:
    """What counts the tokens and the cost of the run, and holds its budget.

    Args:
        exhausted: See ``Budget``.
        budget: Makes one that is not the run's own.
    """
    limit = job.stop.budget_usd
    own = Budget(None if limit is None else Decimal(repr(limit)), exhausted) if budget is None else budget(exhausted)
    return Meter(
        own,
        prices=make_prices(job),
        counter=TokenCounter(observer.notice),
        routes=job_models(job),
        ahead=job.tokens_per_minute is not None,
    )


def space_warning(files: RunFiles, prompts: int) -> str | None:
    """A sentence where the disk is likely to be full before the last answer, at 2 kB a line; it may not be so."""
    free = None if files.stream else free_space_bytes(files.results)
    if free is None or free >= prompts * _LINE_BYTES:
        return None
    return (
        f"{files.results}: {free // 1024} kB are free there, and {prompts} answers may need "
        f"{prompts * _LINE_BYTES // 1024} kB; a run that finds the disk full stops with every answer kept"
    )


def warnings(job: JobConfig, files: RunFiles, concurrency: int, prompts: int) -> Iterator[str]:
    """What a user should know before the first request: little space on the disk, fewer requests at a time."""
    if (warning := space_warning(files, prompts)) is not None:
        yield warning
    if job.concurrency != "auto" and concurrency < job.concurrency:
        yield f"concurrency is {concurrency} and not {job.concurrency}: the limit on open files allows no more"


def make_rules(job: JobConfig, total: int | None) -> StopRules:
    """When the run ends before its time; ``total`` prompts, None where that is not known."""
    return StopRules(
        max_wait_s=job.retry.max_wait_s,
        max_failures=job.stop.max_failures_count,
        max_failed_share=job.stop.max_failures_share,
        total=total,
    )


def answer_rule(job: JobConfig) -> AnswerRule | None:
    """What the job's answers must hold; None for any text.

    Raises:
        ConfigError: The schema or the expression cannot be used.
    """
    answer = job.answer
    return make_rule(answer.schema, answer.extract, retries=answer.schema_retries, source=job.source)


def fault_outcome(fault: InputFault) -> Outcome:
    """The error line of a faulty input line."""
    return Outcome(
        id=fault.id,
        index=fault.index,
        error=Failure(type="input", message=f"{fault.path}:{fault.line_number}: {fault.reason}"),
        line=fault.line,
    )
