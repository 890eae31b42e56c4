"""``batchchat status``: counts of a results file, also while a run writes it."""

import sys
from typing import TYPE_CHECKING, Any

import click

from batchchat.cli.input_options import run_file_options

if TYPE_CHECKING:
    from batchchat.control.messages import Live
    from batchchat.results import RunStatus

__all__ = ["command"]


@click.command("status")
@run_file_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(as_json: bool, **given: Any) -> None:
    """Tell what RESULTS holds: answered, failed and pending prompts, failures by type, rate and usage.

    It disturbs no run, and may be asked while one goes on. With the input (-i), it tells what is left of it too.
    """
    from batchchat.cli.input_options import open_sources
    from batchchat.results import read_status

    files, reader, prices, model = open_sources(**given)
    status = read_status(files, reader, prices=prices, model=model)
    live = _live(files.results) if status.running is not None else None
    sys.stdout.write(_render_json(status, live) if as_json else _render_text(status, live))
    if status.total and status.unknown_ids and not status.completed and not status.failed:
        click.echo(
            "batchchat: no answer belongs to a prompt of this input; "
            "give --job, --prompt, --system, --n, --matrix, --id-field and --on-duplicate as in the run",
            err=True,
        )


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
