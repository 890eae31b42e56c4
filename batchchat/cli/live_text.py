"""What a running run answers, as text for people and as JSON."""

import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchchat.control.messages import Live
    from batchchat.observer import SlowPrompt

__all__ = ["render_live", "tell"]

_COLUMNS = 60


def tell(
    results: str, command: Literal["pause", "resume", "set-rate"], *, rates: tuple[str, ...] = (), as_json: bool
) -> None:
    """Asks the run of a results file to do something, and writes its answer.

    Raises:
        ConfigError: It cannot be done; the sentence says why.
    """
    import msgspec

    from batchchat.control.client import ask_or_fail
    from batchchat.control.messages import Request, live_object
    from batchchat.progress_words import visible
    from batchchat.storage.urls import is_url, plain_path

    results = plain_path(results)
    request = Request(command=command, rates=rates)
    if is_url(results):
        from batchchat.mirrors.place import mirror_place, naming

        place = mirror_place(results)
        with naming(place):
            reply = ask_or_fail(place.local.results, request)
    else:
        reply = ask_or_fail(results, request)
    if as_json and reply.live is not None:
        text = msgspec.json.format(msgspec.json.encode(live_object(reply.live)), indent=2).decode()
    else:
        text = visible(f"{results}: {reply.message}")
    sys.stdout.write(text + "\n")


def render_live(live: "Live", columns: int = _COLUMNS) -> str:
    """The run as it is now, in lines of at most so many columns; no figure is cut."""
    from batchchat.progress_words import visible
    from batchchat.text_layout import cut, flow

    shown = [(name, values) for name, values in _rows(live) if values]
    left = max(len(name) for name, _ in shown)
    lines = []
    for name, values in shown:
        first, *more = flow(list(map(visible, values)), max(columns - left - 2, columns // 2))
        lines += [f"{name:<{left}}  {first}", *(f"{'':<{left}}  {line}" for line in more)]
    if live.slow:
        lines += ["slowest under way", *(cut(_slow_line(prompt), columns) for prompt in live.slow)]
    return "".join(f"{line}\n" for line in lines)


def _rows(live: "Live") -> "list[tuple[str, list[str]]]":
    """Names and what stands beside them; nothing where there is nothing to tell."""
    from batchchat.durations import render_duration, render_speed

    done = live.answered_before + live.answered
    attempts = {kind: count for kind, count in live.attempts.items() if kind != "answered"}
    in_flight = f"{live.in_flight:,}" + (f" of {live.concurrency:,}" if live.concurrency else "")
    service = [f"asks to wait {render_duration(live.service_wait_s)} more"] if live.service_wait_s else []
    before = [f"{live.answered_before:,} of them before"] if live.answered_before else []
    return [
        ("state", [live.state]),
        *((f"  {hold.why}", [f"since {hold.since:%Y-%m-%d %H:%M:%S} UTC"]) for hold in live.holds),
        ("answered", [] if live.total is None else [f"{done:,} of {live.total:,}{_percent(live)}", *before]),
        ("failed", [f"{live.failed:,}"] if live.failed else []),
        *((f"  {kind}", [f"{count:,}"]) for kind, count in live.failures.items()),
        ("finishing", [render_speed(live.prompts_per_s)] if live.prompts_per_s else []),
        ("in flight", [in_flight]),
        ("waiting", [f"{live.waiting:,}"]),
        ("retrying", [f"{live.retrying:,}"] if live.retrying else []),
        ("requests", [f"{live.requests:,}"]),
        *((f"  {kind}", [f"{count:,}"]) for kind, count in attempts.items()),
        ("sending", [render_speed(live.per_s), f"rate {' and '.join(live.rates) or 'none'}"]),
        ("service", service),
        ("left", [] if live.left_s is None else [f"about {render_duration(live.left_s)}"]),
    ]


def _percent(live: "Live") -> str:
    return f" ({(live.answered_before + live.answered) * 100 // live.total}%)" if live.total else ""


def _slow_line(prompt: "SlowPrompt") -> str:
    from batchchat.durations import render_duration
    from batchchat.progress_words import visible
    from batchchat.text_layout import cut

    where = "" if prompt.in_flight else ", waits"
    error = f", {prompt.last_error}" if prompt.last_error else ""
    named = cut(visible(str(prompt.id)), _COLUMNS // 3)
    return visible(f"  {named}  {render_duration(prompt.seconds)}, attempt {prompt.attempt}{where}{error}")
