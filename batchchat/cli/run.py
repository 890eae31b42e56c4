"""``batchchat run``: options and job file to a job, the job to an exit code."""

import re
import shlex
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batchchat.cli.job_options import job_from, job_options
from batchchat.errors import BatchchatError

if TYPE_CHECKING:
    from batchchat.config import JobConfig
    from batchchat.observer import RunReport
    from batchchat.progress import JsonProgress, LineProgress, RichProgress

__all__ = ["command"]

_USER_INFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^/?#\s]*@", re.IGNORECASE)


@click.command("run")
@job_options
@click.option("--dry-run", is_flag=True, envvar="BATCHCHAT_DRY_RUN", help="Same as 'batchchat check': nothing is sent.")
@click.option("-q", "--quiet", is_flag=True, envvar="BATCHCHAT_QUIET", help="Say only what went wrong.")
@click.option(
    "-v", "--verbose", count=True, envvar="BATCHCHAT_VERBOSE", help="Tell of retries, waits and nonces; twice for more."
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", envvar="BATCHCHAT_LOG_FORMAT",
              show_default=True, help="Form of progress and messages on standard error.")  # fmt: skip
@click.option("--show", type=click.IntRange(0, 3), default=None, metavar="N", envvar="BATCHCHAT_SHOW",
              help="Answers shown in the summary at the end (3 on a terminal, else 0).")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context, /, dry_run: bool, quiet: bool, verbose: int, log_format: str, show: int | None, **options: Any
) -> NoReturn:
    """Send the prompts of INPUT (files, or - for standard input) and write the answers.

    Running the same command again resumes: answered prompts are skipped, failed and pending ones are sent.

    DUR is 500ms, 30s, 5m or 1h30m; 0 is none. Options may also be set as BATCHCHAT_<OPTION>, most of them in the job
    file as well.
    """
    verbosity = -1 if quiet else verbose
    if log_format == "text":
        job = job_from(ctx, options)
        ctx.exit(_check(job) if dry_run else _run_told_as_text(job, verbosity, show))
    try:
        job = job_from(ctx, options)
        code = _check(job) if dry_run else _run_told_as_json(job, verbosity)
    except BatchchatError as error:
        from batchchat.progress import JsonProgress, safe_writer

        JsonProgress(safe_writer(sys.stderr), verbosity=verbosity).error(str(error), error.exit_code)
        code = error.exit_code
    ctx.exit(code)


def _check(job: "JobConfig") -> int:
    from batchchat.cli.check import check_job

    return check_job(job, as_json=False)


def _run_told_as_text(job: "JobConfig", verbosity: int, show: int | None) -> int:
    from batchchat.progress import choose_progress, safe_writer
    from batchchat.summary_text import render_summary

    report = _run(job, choose_progress(sys.stderr, verbosity=verbosity, log_format="text"))
    write = safe_writer(sys.stderr)
    shown = (3 if sys.stderr.isatty() else 0) if show is None else show
    for line in render_summary(report, job, quiet=verbosity < 0, answers=shown):
        write(line)
    if resumable(report, job):
        resume = resume_command(sys.argv)
        write(f"batchchat: to resume: {resume}")
        if "***" in resume:
            write(
                "batchchat: *** stands for a secret; give it again there, as BATCHCHAT_HEADER, BATCHCHAT_PROXY or "
                "BATCHCHAT_BASE_URL, or in the job file as ${NAME}"
            )
    return report.exit_code


def _run_told_as_json(job: "JobConfig", verbosity: int) -> int:
    from batchchat.progress import JsonProgress, safe_writer

    progress = JsonProgress(safe_writer(sys.stderr), verbosity=verbosity)
    report = _run(job, progress)
    if resumable(report, job):
        progress.resume(resume_command(sys.argv))
    return report.exit_code


def _run(job: "JobConfig", progress: "LineProgress | JsonProgress | RichProgress") -> "RunReport":
    from batchchat.descriptors import check_descriptors
    from batchchat.garbage import settle_for_a_run
    from batchchat.runner import run_job, run_on_fast_loop
    from batchchat.threads import check_threads, raise_for_room

    try:
        check_descriptors()
        check_threads()
        settle_for_a_run()
        return run_on_fast_loop(run_job(job, observers=[progress], handle_signals=True))
    except (RuntimeError, MemoryError, ExceptionGroup) as error:
        raise_for_room(error)
        raise
    finally:
        progress.close()


def resumable(report: "RunReport", job: "JobConfig") -> bool:
    """Whether the same command goes on where this run ended: a stream keeps no answers.

    It does where prompts are left, and where results could not be written, as it takes in what was kept elsewhere.
    """
    from batchchat.results.files import is_stream

    kept = job.output.path is not None and not is_stream(job.output.path)
    return kept and report.exit_code not in (0, 1, 3) and (report.pending != 0 or report.exit_code == 6)


def resume_command(argv: list[str]) -> str:
    """The command line that goes on where this run ended, on one line, values of secrets as ``***``."""
    from batchchat.providers.address import masked_url

    hide = {"--header": masked_header, "--base-url": masked_url, "--proxy": masked_url}
    shown = ["batchchat"]
    before = ""
    for argument in argv[1:]:
        option, equals, value = argument.partition("=")
        if before in hide:
            argument, before = hide[before](argument), ""
        elif equals and option in hide:
            argument = f"{option}={hide[option](value)}"
        else:
            before = argument
            argument = masked(argument)
        shown.append(_quoted(argument))
    return " ".join(shown)


def masked(text: str) -> str:
    """The user info of an address hidden."""
    return _USER_INFO.sub(r"\1***@", text)


def masked_header(text: str) -> str:
    """A header's value hidden."""
    name, colon, _ = text.partition(":")
    return f"{name}: ***" if colon else "***"


def _quoted(argument: str) -> str:
    """The argument for a shell, on one line whatever stands in it."""
    if argument.isprintable():
        return shlex.quote(argument)
    octets = argument.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(octet) if _plain(octet) else f"\\{octet:03o}" for octet in octets) + "'"


def _plain(octet: int) -> bool:
    return 0x20 <= octet < 0x7F and octet not in b"'\\"
