"""``batchchat status``: counts of a results file, also while a run writes it."""

import sys
from typing import Any

import click

from batchchat.cli.input_options import run_file_options

__all__ = ["command"]

_LEAST_EVERY_S = 0.1


@click.command("status")
@run_file_options
@click.option("--watch", is_flag=True, help="Go on telling until the run ends, then tell its end.")
@click.option(
    "--every", metavar="DUR", help="With --watch: how often.  [default: 1s on a terminal and with --json, else 30s]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch one a line.")
def command(as_json: bool, watch: bool, every: str | None, **given: Any) -> None:
    """Tell what RESULTS holds: answered, failed and pending prompts, failures by type, rate and usage.

    It disturbs no run, and may be asked while one goes on. With the input (-i), it tells what is left of it too.
    """
    import msgspec

    from batchchat.cli.input_options import open_sources
    from batchchat.cli.status_text import render_status, render_status_json
    from batchchat.control.client import ask_live
    from batchchat.results import read_status

    every_s = _seconds(every, watch)
    with open_sources(**given) as sources:
        if watch:
            from batchchat.cli.watching import watch_run

            watch_run(sources, every_s=every_s, as_json=as_json)
            return
        files, reader, prices, model, told = sources
        status = read_status(files, reader, prices=prices, model=model)
        live = ask_live(files.results) if status.running is not None else None
    status = msgspec.structs.replace(status, results=told(status.results))
    sys.stdout.write(render_status_json(status, live) if as_json else render_status(status, live))
    if status.total and status.unknown_ids and not status.completed and not status.failed:
        click.echo(
            "batchchat: no answer belongs to a prompt of this input; "
            "give --job, --prompt, --system, --n, --matrix, --id-field and --on-duplicate as in the run",
            err=True,
        )


def _seconds(every: str | None, watch: bool) -> float | None:
    """Seconds of ``--every``; None where it is not given."""
    from batchchat.durations import parse_duration

    if every is None:
        return None
    if not watch:
        raise click.UsageError("--every needs --watch")
    try:
        seconds = parse_duration(every)
    except ValueError as error:
        raise click.UsageError(f"--every: {error}") from error
    if seconds < _LEAST_EVERY_S:
        raise click.UsageError(f"--every: expected at least {_LEAST_EVERY_S:g} s, found {every!r}")
    return seconds
