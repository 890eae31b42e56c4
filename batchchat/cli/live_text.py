"""What a running run answers, as text for people and as JSON."""

import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchchat.control.messages import Live, SlowPrompt

__all__ = ["live_object", "render_live", "tell"]

_WIDTH = 60


def tell(
    results: str, command: Literal["pause", "resume", "set-rate"], *, rates: tuple[str, ...] = (), as_json: bool
) -> None:
    """Asks the run of a results file to do something, and writes its answer.

    Raises:
        ConfigError: It cannot be done; the sentence says why.
    """
    import msgspec

    from batchchat.control.client import ask_or_fail
    from batchchat.control.messages import Request
    from batchchat.progress import visible

    reply = ask_or_fail(results, Request(command=command, rates=rates))
    if as_json and reply.live is not None:
        text = msgspec.json.format(msgspec.json.encode(live_object(reply.live)), indent=2).decode()
    else:
        text = visible(f"{results}: {reply.message}")
    sys.stdout.write(text + "\n")


def live_object(live: "Live") -> dict[str, object]:
    """The run as it is now, for programs."""
    import msgspec

    found = msgspec.to_builtins(live)
    if not isinstance(found, dict):
        raise TypeError("a struct became no object")
    return found


def render_live(live: "Live") -> str:
    """The run as it is now, in lines of at most 60 columns."""
    from batchchat.durations import render_duration, render_speed

    failed = {kind: count for kind, count in live.attempts.items() if kind != "answered"}
    rows = [
        ("state", live.state),
        *((f"  {hold.why}", f"since {hold.since:%Y-%m-%d %H:%M:%S} UTC") for hold in live.holds),
        ("answered", None if live.total is None else f"{live.answered_before + live.answered:,} of {live.total:,}"),
        ("in flight", f"{live.in_flight:,}" + (f" of {live.concurrency:,}" if live.concurrency else "")),
        ("waiting", f"{live.waiting:,}"),
        ("retrying", f"{live.retrying:,}" if live.retrying else None),
        ("requests", f"{live.requests:,}"),
        *((f"  {kind}", f"{count:,}") for kind, count in failed.items()),
        ("sending", f"{render_speed(live.per_s)}, rate {' and '.join(live.rates) or 'none'}"),
        ("service", f"asks to wait {render_duration(live.service_wait_s)} more" if live.service_wait_s else None),
        ("left", None if live.left_s is None else f"about {render_duration(live.left_s)}"),
    ]
    shown = [(name, value) for name, value in rows if value is not None]
    left = max(len(name) for name, _ in shown)
    lines = [f"{name:<{left}}  {value}" for name, value in shown]
    if live.slow:
        lines += ["slowest under way", *(_slow_line(prompt) for prompt in live.slow)]
    return "".join(f"{_fitting(line)}\n" for line in lines)


def _slow_line(prompt: "SlowPrompt") -> str:
    from batchchat.durations import render_duration

    where = "" if prompt.in_flight else ", waits"
    error = f", {prompt.last_error}" if prompt.last_error else ""
    named = str(prompt.id) if len(str(prompt.id)) <= _WIDTH // 3 else f"{str(prompt.id)[: _WIDTH // 3 - 1]}…"
    return f"  {named}  {render_duration(prompt.seconds)}, attempt {prompt.attempt}{where}{error}"


def _fitting(line: str) -> str:
    from batchchat.progress import visible

    line = visible(line)
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
