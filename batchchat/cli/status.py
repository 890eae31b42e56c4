"""``batchchat status``: counts of a results file, also while a run writes it."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from batchchat.control.messages import Live
    from batchchat.job_config import JobConfig
    from batchchat.prices import PriceList
    from batchchat.results import RunStatus

__all__ = ["command"]


@click.command("status")
@click.argument("results", metavar="RESULTS")
@click.argument("more", metavar="", nargs=-1)
@click.option(
    "-i", "--input", "inputs", metavar="INPUT...", multiple=True, help="Input of the run, to count what is left of it."
)
@click.option(
    "-j", "--job", metavar="FILE", help="Job file of the run: how it reads the input, its prices, and its model."
)
@click.option("--id-field", metavar="NAME", help="Field of the input that holds the id.")
@click.option(
    "--prompt", metavar="TEMPLATE", help="Prompt template of the run; ids of prompts without one depend on it."
)
@click.option("--system", metavar="TEMPLATE", help="System template of the run; ids depend on it too.")
@click.option("--n", "samples", metavar="N", help="As in the run: how often it asked each prompt.")
@click.option("--matrix", multiple=True, metavar="KEY=V1,V2,…", help="As in the run; repeatable.")
@click.option(
    "--on-duplicate",
    type=click.Choice(["error", "first", "suffix"]),
    help="As in the run.  [default: error]",
)
@click.option("--errors", metavar="FILE", help="Errors file, where it is not beside the results.")
@click.option("--summary", metavar="FILE", help="Summary, where it is not beside the results.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    results: str,
    more: tuple[str, ...],
    inputs: tuple[str, ...],
    job: str | None,
    id_field: str | None,
    prompt: str | None,
    system: str | None,
    samples: str | None,
    matrix: tuple[str, ...],
    on_duplicate: str | None,
    errors: str | None,
    summary: str | None,
    as_json: bool,
) -> None:
    """Tell what RESULTS holds: answered, failed and pending prompts, failures by type, rate and usage.

    It disturbs no run, and may be asked while one goes on. With the input (-i), it tells what is left of it too.
    """
    from batchchat.cli.job_options import matrix_overrides
    from batchchat.config import Override, load_job
    from batchchat.prompts import PromptReader
    from batchchat.results import name_files, read_status

    if more and not inputs:
        raise click.UsageError(f"expected one results file, found {1 + len(more)}; input files come after -i")
    given = {
        "--prompt": ("prompt.template", prompt),
        "--system": ("prompt.system", system),
        "--id-field": ("prompt.id", id_field),
        "--n": ("prompt.n", samples),
        "--on-duplicate": ("on_duplicate", on_duplicate),
    }
    overrides = {key: Override(value, option) for option, (key, value) in given.items() if value is not None}
    overrides |= matrix_overrides(matrix, "--matrix")
    overrides["input"] = Override([*inputs, *more], "--input")
    # Read once, as it may be a pipe.
    settings = load_job(job, overrides)
    reader = PromptReader(settings.input_settings()) if inputs else None
    prices, model = _prices(job, settings)
    status = read_status(name_files(results, errors, summary), reader, prices=prices, model=model)
    live = _live(results) if status.running is not None else None
    sys.stdout.write(_render_json(status, live) if as_json else _render_text(status, live))
    if status.total and status.unknown_ids and not status.completed and not status.failed:
        click.echo(
            "batchchat: no answer belongs to a prompt of this input; "
            "give --job, --prompt, --system, --n, --matrix, --id-field and --on-duplicate as in the run",
            err=True,
        )


def _prices(job_file: str | None, job: "JobConfig") -> "tuple[PriceList, str | None]":
    from batchchat.prices import PriceList

    if job_file is None:
        return PriceList(), None
    from batchchat.job_setup import job_models, make_prices

    return make_prices(job), next((name for names in job_models(job) for name in names), None)


def _live(results: str) -> "Live | None":
    """What the run tells that holds the results file; None where it does not answer soon."""
    from batchchat.control.client import ask
    from batchchat.control.messages import Request

    reply = ask(results, Request(command="status"))
    return None if reply is None else reply.live


def _render_json(status: "RunStatus", live: "Live | None") -> str:
    import msgspec

    from batchchat.cli.live_text import live_object

    whole = {**_plain(status), "live": None if live is None else live_object(live)}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def _plain(status: "RunStatus") -> dict[str, object]:
    import msgspec

    counts = ("input_tokens", "output_tokens")
    usage = dict.fromkeys(counts) | msgspec.to_builtins(status.usage)
    return {**msgspec.structs.asdict(status), "usage": usage}


def _render_text(status: "RunStatus", live: "Live | None") -> str:
    from batchchat.cli.live_text import render_live
    from batchchat.durations import render_speed
    from batchchat.progress import visible

    rows: list[tuple[str, object]] = [
        ("total", status.total),
        ("completed", status.completed),
        ("failed", status.failed),
        *((f"  {kind}", count) for kind, count in status.failures.items()),
        ("pending", status.pending),
        ("unknown ids", status.unknown_ids or None),
        ("duplicate ids", status.duplicate_ids or None),
        ("torn lines", status.torn_lines or None),
        ("rate", None if status.rate_per_s is None else render_speed(status.rate_per_s)),
        ("input tokens", status.usage.input_tokens),
        ("  cached", status.usage.cached_tokens),
        ("output tokens", status.usage.output_tokens),
        ("  reasoning", status.usage.reasoning_tokens),
        ("estimated answers", status.estimated_answers or None),
        ("without usage", (status.price_sources and status.answers_without_usage) or None),
        ("cost", _cost(status)),
    ]
    shown = [
        (name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in rows if value is not None
    ]
    left = max(len(name) for name, _ in shown)
    right = max(len(value) for _, value in shown)
    running = ""
    if status.running is not None:
        running = f" (a run is going on{f': {status.running}' if str(status.running) else ''})"
    lines = (f"{name:<{left}}  {value:>{right}}" for name, value in shown)
    text = "\n".join(visible(line) for line in (f"{status.results}{running}", *lines)) + "\n"
    return text if live is None else f"{text}\n{render_live(live)}"


def _cost(status: "RunStatus") -> str | None:
    """The cost of the answers; a word where some model has no price, None where there are no prices at all."""
    from batchchat.prices import money

    if not status.price_sources:
        return None
    return "unknown" if status.cost_usd is None else money(status.cost_usd)
