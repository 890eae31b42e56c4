"""``batchchat run``: options and job file to a job, the job to an exit code."""

import shlex
import sys
from typing import Any, NoReturn

import click

from batchchat.cli.job_options import job_from, job_options
from batchchat.observer import RunReport

__all__ = ["command"]


@click.command("run")
@job_options
@click.option("--dry-run", is_flag=True, help="Same as 'check': nothing is sent.")
@click.option("-q", "--quiet", is_flag=True, envvar="BATCHCHAT_QUIET", help="Only errors.")
@click.option(
    "-v", "--verbose", count=True, envvar="BATCHCHAT_VERBOSE", help="Tell of retries, waits and nonces; twice for more."
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", envvar="BATCHCHAT_LOG_FORMAT",
              show_default=True, help="Form of progress and messages on standard error.")  # fmt: skip
@click.option("--show", type=click.IntRange(0, 3), default=None, metavar="N", envvar="BATCHCHAT_SHOW",
              help="Answers shown in the summary at the end (3 on a terminal, else 0).")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context, dry_run: bool, quiet: bool, verbose: int, log_format: str, show: int | None, **options: Any
) -> NoReturn:
    """Send the prompts of INPUT (files, or - for standard input) and write the answers.

    Running the same command again resumes: answered prompts are skipped, failed and pending ones are sent.
    """
    job = job_from(ctx, options)
    if dry_run:
        from batchchat.cli.check import check_job

        ctx.exit(check_job(job, as_json=False))
    from batchchat.progress import choose_progress, safe_writer
    from batchchat.runner import run_job, run_on_fast_loop

    progress = choose_progress(
        sys.stderr, verbosity=-1 if quiet else verbose, log_format="json" if log_format == "json" else "text"
    )
    report = run_on_fast_loop(run_job(job, observers=[progress], handle_signals=True))
    write = safe_writer(sys.stderr)
    if log_format == "text":
        from batchchat.summary_text import render_summary

        shown = (3 if sys.stderr.isatty() else 0) if show is None else show
        for line in render_summary(report, job, quiet=quiet, answers=shown):
            write(line)
        if resumable(report):
            write(f"batchchat: to resume: {resume_command(sys.argv)}")
            if "***" in resume_command(sys.argv):
                write("batchchat: *** stands for a secret; give it in the environment or in the job file as ${NAME}")
    ctx.exit(report.exit_code)


def resumable(report: RunReport) -> bool:
    """Whether prompts are left that the same command would send."""
    return report.exit_code not in (0, 1, 3) and report.pending != 0


def resume_command(argv: list[str]) -> str:
    """The command line that goes on where this run ended, on one line, values of secrets as ``***``."""
    shown = ["batchchat"]
    hide_next = False
    for argument in argv[1:]:
        if hide_next:
            argument, hide_next = masked(argument), False
        elif argument in ("--header", "--proxy"):
            hide_next = True
        elif argument.startswith(("--header=", "--proxy=")):
            name, _, value = argument.partition("=")
            argument = f"{name}={masked(value)}"
        elif "://" in argument and "@" in argument:
            argument = masked(argument)
        shown.append(argument)
    return shlex.join(shown)


def masked(value: str) -> str:
    """A header's value or a URL's user info hidden."""
    if "://" in value:
        scheme, _, rest = value.partition("://")
        host = rest.partition("/")[0]
        return f"{scheme}://***@{rest[host.rindex('@') + 1 :]}" if "@" in host else value
    name, colon, _ = value.partition(":")
    return f"{name}: ***" if colon else "***"
