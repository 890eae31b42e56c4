"""The summary of a run as a few lines of text."""

from collections.abc import Iterator

from batchchat.config import JobConfig
from batchchat.durations import render_duration, render_speed
from batchchat.observer import RunReport
from batchchat.prices import OWN_PRICES, money
from batchchat.results.files import name_files

__all__ = ["render_summary"]

_WIDTH, _MESSAGE_WIDTH = 100, 200
_NOT_WRITTEN = 6


def render_summary(report: RunReport, job: JobConfig, *, quiet: bool, answers: int) -> Iterator[str]:
    """What came of the run: counts, failures grouped by type, the first answers, what stopped it.

    Args:
        quiet: Only what went wrong.
        answers: First answers to show, at most three.
    """
    if not quiet:
        yield f"batchchat: {_headline(report, job)}"
        if job.rate_scope == "host":
            yield "batchchat: limits held over all runs on this machine (rate_scope: host)"
    for group in report.failures:
        message = _short(group.message, _MESSAGE_WIDTH)
        yield f"batchchat:   {group.count} × {group.type}: {message} (first: {group.example_id})"
    if not quiet and answers:
        yield from (
            f"  {_short(str(prompt_id), 24)}: {_short(text)}" for prompt_id, text in report.first_answers[:answers]
        )
    if report.message is not None and quiet:
        yield f"batchchat: {report.message}"
    if not quiet and job.output.path and job.output.path != "-":
        yield f"batchchat: results in {job.output.path}"
    if report.failed and report.exit_code != _NOT_WRITTEN and (errors := _errors_file(job)):
        if all(group.type == "input" for group in report.failures):
            yield f"batchchat: faulty lines are listed in {errors}; mend the input and run the same command"
        else:
            yield f"batchchat: failed prompts in {errors}; the same command tries them again"


def _errors_file(job: JobConfig) -> str | None:
    return name_files(job.output.path, job.errors).errors if job.output.path else job.errors


def _headline(report: RunReport, job: JobConfig) -> str:
    total = "" if report.total is None else f" of {report.total}"
    parts = [f"{report.answered_before + report.answered}{total} answered"]
    if report.answered_before:
        parts[0] += f" ({report.answered_before} before this run)"
    if report.reused:
        parts.append(f"{report.reused} of them reused")
    parts.append(f"{report.failed} failed")
    if report.pending:
        parts.append(f"{report.pending} pending")
    finished = report.answered + report.failed
    speed = f", {render_speed(finished / report.duration_s)}" if finished and report.duration_s else ""
    attempts = sum(report.attempts.values())
    failed_attempts = attempts - report.attempts.get("answered", 0) - report.attempts.get("cancelled", 0)
    parts.append(f"in {render_duration(report.duration_s)}{speed}")
    line = ", ".join(parts)
    if failed_attempts > report.failed:
        line += f"; {failed_attempts} of {attempts} attempts failed"
    if report.second_attempts:
        line += f"; {report.second_attempts} second attempts"
    if job.concurrency == "auto" and report.concurrency:
        line += f"; {report.concurrency} in flight at the end (--concurrency auto)"
    return line + _cost(report)


def _cost(report: RunReport) -> str:
    """Tokens of all attempts and what they cost, as far as it is known."""
    usage = report.usage
    if not usage.input_tokens and not usage.output_tokens:
        return ""
    text = f"; {usage.input_tokens or 0} tokens in, {usage.output_tokens or 0} out"
    of = [f"{usage.cached_tokens} cached"] if usage.cached_tokens else []
    of += [f"{usage.reasoning_tokens} reasoning"] if usage.reasoning_tokens else []
    text += f" ({', '.join(of)})" if of else ""
    if report.estimated_requests:
        text += f", estimated for {report.estimated_requests} requests"
    if report.cost_usd is not None:
        library = [source for source in report.price_sources if source != OWN_PRICES]
        return f"{text}; cost {money(report.cost_usd)}" + (f" ({', '.join(library)})" if library else "")
    if not report.price_sources:
        return text
    models = ", ".join(sorted(name or "a model that nobody names" for name in report.unpriced))
    return f"{text}; cost unknown, no price for {_short(models)}"


def _short(text: str, width: int = _WIDTH) -> str:
    """On one line, without control characters, cut to the width."""
    flat = " ".join("".join(char if char.isprintable() or char.isspace() else "�" for char in text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
