"""Counts of a results file, as text for people and as JSON."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchchat.control.messages import Live
    from batchchat.results import RunStatus

__all__ = ["render_status", "render_status_json", "status_object"]


def render_status_json(status: "RunStatus", live: "Live | None") -> str:
    """The object of ``status --json``."""
    import msgspec

    from batchchat.control.messages import live_object

    whole = {**status_object(status), "live": None if live is None else live_object(live)}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def status_object(status: "RunStatus") -> dict[str, object]:
    """The counts, for programs."""
    import msgspec

    counts = ("input_tokens", "output_tokens")
    usage = dict.fromkeys(counts) | msgspec.to_builtins(status.usage)
    return {**msgspec.structs.asdict(status), "usage": usage}


def render_status(status: "RunStatus", live: "Live | None") -> str:
    """The counts as a small table; below it what the run itself tells."""
    from batchchat.cli.live_text import render_live
    from batchchat.durations import render_speed
    from batchchat.progress_words import visible

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
