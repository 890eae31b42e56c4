"""``batchchat check``: every fault of input and job, and what a run would do."""

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from batchchat.cli.job_options import job_from, job_options

if TYPE_CHECKING:
    from batchchat.checking import CheckReport, CheckSettings
    from batchchat.config import JobConfig
    from batchchat.day_window import DayWindows
    from batchchat.ids import IdTable
    from batchchat.records import PromptId

__all__ = ["check_job", "command"]

EXIT_INPUT = 3
_SCOPES = {"run": "", "host": " (rate scope host: longer if other runs on this machine use the same limit)"}


@click.command("check")
@job_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Read INPUT and the job whole and report every fault; no request is sent."""
    ctx.exit(check_job(job_from(ctx, options), as_json=as_json))


def check_job(job: "JobConfig", *, as_json: bool) -> int:
    """Checks a job and prints what was found; the exit code (0, or 3 for a faulty input)."""
    from batchchat.checking import check_input
    from batchchat.progress import visible
    from batchchat.prompts import PromptReader
    from batchchat.records import InputFault
    from batchchat.runner import check_settings

    check = check_settings(_without_folders(job))
    faults: list[dict[str, Any]] = []

    def tell(fault: InputFault) -> None:
        if as_json:
            faults.append({"path": fault.path, "line": fault.line_number, "reason": fault.reason})
        else:
            click.echo(visible(f"{fault.path}:{fault.line_number}: {fault.reason}"))

    reader = PromptReader(job.input_settings())
    report = check_input(reader, tell, _settings(job), check=check)
    if as_json:
        click.echo(_render_json(report, faults, job, reader.variants))
    else:
        for name, value in _rows(report, job, reader.variants):
            click.echo(visible(f"{name:<16}  {value}"))
    return EXIT_INPUT if report.faults else 0


def _settings(job: "JobConfig") -> "CheckSettings":
    from batchchat.checking import CheckSettings
    from batchchat.job_setup import job_models, make_prices
    from batchchat.tokens import TokenCounter

    return CheckSettings(
        params=job.prompt.params,
        rates=job.rate,
        tokens_per_minute=job.tokens_per_minute,
        prices=make_prices(job),
        counter=TokenCounter(lambda message, level: click.echo(f"batchchat: {message}", err=True)),
        routes=job_models(job),
        answered=_answered(job),
    )


def _answered(job: "JobConfig") -> "IdTable | frozenset[PromptId]":
    """Ids of the answers that are there; none where there are no results yet."""
    from batchchat.cli.input_options import local_files
    from batchchat.results import read_answered
    from batchchat.storage.urls import is_url

    path = job.output.path
    if path is None or path == "-" or not (is_url(path) or os.path.isfile(path)):
        return frozenset()
    with local_files(path, job.errors, job.summary, needed=False) as (files, _):
        return read_answered(files) if os.path.isfile(files.results) else frozenset()


def _render_json(report: "CheckReport", faults: list[dict[str, Any]], job: "JobConfig", variants: int) -> str:
    import msgspec
    import orjson

    shown = msgspec.to_builtins(report) | {"prompts_per_line": variants, "faults": faults}
    if (windows := job.run.windows()) is not None:
        now = time.time()
        shown["window"] = str(windows)
        shown["least_duration_with_window_s"] = round(windows.end_of(now, report.least_duration_s) - now, 3)
    for name in ("output_tokens", "cost_usd"):
        if shown[name] is not None:
            shown[name] = dict(zip(("low", "high"), shown[name], strict=True))
    return orjson.dumps(shown).decode()


def _rows(report: "CheckReport", job: "JobConfig", variants: int) -> Iterator[tuple[str, str]]:
    from batchchat.durations import render_duration

    yield "prompts", f"{report.prompts:,}"
    if variants > 1:
        yield "prompts per line", f"{variants:,}"
    if report.answered:
        yield "already answered", f"{report.answered:,}"
    if report.requests != report.prompts - report.answered:
        yield "requests", f"{report.requests:,}"
    yield "faulty lines", f"{report.faults:,}"
    yield "estimated tokens", f"{report.estimated_tokens:,}"
    yield "input tokens", f"{report.input_tokens:,}"
    yield "output tokens", _output_tokens(report)
    yield "cost", _cost(report, job.stop.budget_usd)
    if report.least_duration_s:
        yield "time at the rate", render_duration(report.least_duration_s) + _SCOPES[job.rate_scope]
    elif job.rate_scope == "host":
        yield "rate scope", "host: pauses that the service asks for hold all runs on this machine"
    if (windows := job.run.windows()) is not None:
        yield "window", _window_row(windows, report.least_duration_s)


def _window_row(windows: "DayWindows", duration_s: float) -> str:
    """The windows, and the earliest end of a run that begins now."""
    now = time.time()
    opens_at = windows.opens_at(now)
    begins = "open now" if opens_at == now else f"opens {windows.render(opens_at, now)}"
    return f"{windows}; {begins}; done {windows.render(windows.end_of(now, duration_s), now)} at the earliest"


def _output_tokens(report: "CheckReport") -> str:
    from batchchat.checking import ASSUMED_OUTPUT_TOKENS

    low, high = report.output_tokens
    text = f"{low:,} to {high:,}" if low != high else f"{low:,}"
    if not report.unbounded_requests:
        return f"{text} (up to max_tokens)" if high else text
    few, many = ASSUMED_OUTPUT_TOKENS
    some = "" if report.unbounded_requests == report.requests else f" of {report.unbounded_requests:,} requests"
    return f"{text} (answers{some} taken for {few} to {many:,} tokens, as no max_tokens is set)"


def _cost(report: "CheckReport", budget_usd: float | None) -> str:
    from batchchat.prices import money

    if report.cost_usd is None:
        named = ", ".join(sorted(name for name in report.unpriced if name))
        what = f"no price for model {named}" if named else "no model is named that could have a price"
        return f"unknown: {what}; see 'prices' of the job file, or install batchchat[prices]"
    low, high = report.cost_usd
    text = money(low) if low == high else f"{money(low)} to {money(high)}"
    if report.price_sources:
        text += f" (prices: {', '.join(report.price_sources)})"
    if budget_usd is not None and high > budget_usd:
        text += f"; the budget of {money(budget_usd)} may not be enough"
    return text


def _without_folders(job: "JobConfig") -> "JobConfig":
    """The job, without the files that a check would have to make a folder for; a check needs no results file."""
    import msgspec

    def missing(path: str | None) -> bool:
        return path is not None and path != "-" and not os.path.isdir(os.path.dirname(path) or ".")

    output = job.output
    if output.path is None or missing(output.path):
        output = msgspec.structs.replace(output, path="-")
    return msgspec.structs.replace(
        job,
        output=output,
        errors=None if missing(job.errors) else job.errors,
        summary=None if missing(job.summary) else job.summary,
    )
