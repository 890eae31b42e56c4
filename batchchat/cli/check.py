"""``batchchat check``: every fault of input and job, and what a run would do."""

import os
from typing import TYPE_CHECKING, Any

import click

from batchchat.cli.job_options import job_from, job_options

if TYPE_CHECKING:
    from batchchat.config import JobConfig

__all__ = ["check_job", "command"]

EXIT_INPUT = 3


@click.command("check")
@job_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Read INPUT and the job whole and report every fault; no request is sent."""
    ctx.exit(check_job(job_from(ctx, options), as_json=as_json))


def check_job(job: "JobConfig", *, as_json: bool) -> int:
    """Checks a job and prints what was found; the exit code (0, or 3 for a faulty input)."""
    import orjson

    from batchchat.checking import check_input
    from batchchat.durations import render_duration
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

    report = check_input(
        PromptReader(job.input_settings()),
        tell,
        params=job.prompt.params,
        rates=job.rate,
        tokens_per_minute=job.tokens_per_minute,
        check=check,
    )
    if as_json:
        shown = {
            "prompts": report.prompts,
            "requests": report.requests,
            "faults": faults,
            "estimated_tokens": report.estimated_tokens,
            "least_duration_s": report.least_duration_s,
        }
        click.echo(orjson.dumps(shown).decode())
        return EXIT_INPUT if faults else 0
    click.echo(f"prompts           {report.prompts:,}")
    if report.requests != report.prompts:
        click.echo(f"requests          {report.requests:,}")
    click.echo(f"faulty lines      {report.faults:,}")
    click.echo(f"estimated tokens  {report.estimated_tokens:,}")
    if report.least_duration_s:
        click.echo(f"time at the rate  {render_duration(report.least_duration_s)}")
    return EXIT_INPUT if report.faults else 0


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
