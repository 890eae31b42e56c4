"""Progress and messages on standard error: a bar on a terminal, plain lines elsewhere, JSON lines on request."""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TextIO

import msgspec

from batchchat.errors import ProviderError
from batchchat.message_stream import message_stream
from batchchat.observer import RunFigures, RunPlan, RunReport
from batchchat.progress_bar import RichProgress
from batchchat.progress_counts import Heartbeat, RunCounts
from batchchat.progress_notebook import NotebookProgress, in_notebook
from batchchat.progress_words import ALWAYS, attempt_line, count_of, outcome_line, visible
from batchchat.records import Outcome, PromptId

__all__ = [
    "JsonProgress",
    "LineProgress",
    "RichProgress",
    "choose_progress",
    "progress_for_python",
    "safe_writer",
    "visible",
]

_LINE_EVERY_S = 30.0


class _Sink(Protocol):
    def __call__(self, text: str) -> None: ...


def safe_writer(stream: TextIO) -> _Sink:
    """Writes each text as one line that steers no terminal; trouble with the stream is ignored, see there."""
    careful = message_stream(stream)

    def write(text: str) -> None:
        careful.write(visible(text) + "\n")
        careful.flush()

    return write


def _place(path: str) -> str:
    return "on standard output" if path == "-" else f"in {path}"


class LineProgress:
    """Plain lines: at most one of progress every 30 s, and messages up to the verbosity asked for.

    Args:
        verbosity: -1 for errors only, 0 as usual, 1 and 2 for ``-v`` and ``-vv``.
        keep: Whether a last line tells the counts.
    """

    def __init__(self, write: _Sink, *, verbosity: int, every_s: float = _LINE_EVERY_S, keep: bool = False) -> None:
        self._write, self._verbosity, self._every_s, self._keep = write, verbosity, every_s, keep
        self._counts = RunCounts()
        self._last = time.monotonic()
        self._told = ""
        self._heartbeat = Heartbeat(every_s, self._tell_progress)

    def figures_at_hand(self, figures: Callable[[], RunFigures]) -> None:
        """Keeps what tells the figures of the moment."""
        self._counts.figures = figures

    def run_started(self, plan: RunPlan) -> None:
        """Tells the plan."""
        self._counts.start(plan)
        self._heartbeat.start()
        if self._verbosity >= 0:
            from_where = "prompts, being counted" if plan.counting else "prompts from a stream"
            total = from_where if plan.total is None else count_of(plan.total, "prompt")
            done = f", {plan.completed} answered already" if plan.completed else ""
            most = "up to " if plan.finds_concurrency else ""
            where = f"; results {_place(plan.output)}" if plan.output else ""
            self._write(f"batchchat: {total}{done}; {most}{plan.concurrency} in flight{where}")

    def plan_changed(self, plan: RunPlan) -> None:
        """Takes in the total."""
        self._counts.plan = plan

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Tells of an attempt with ``-v``."""
        self._counts.attempt_failed(prompt_id, retried)
        if self._verbosity >= 1:
            self._write(attempt_line(prompt_id, number, error, retried))

    def prompt_finished(self, outcome: Outcome) -> None:
        """Tells progress if the last line is old enough; each outcome with ``-vv``."""
        self._counts.finished(outcome)
        if self._verbosity >= 2:
            self._write(outcome_line(outcome))
        self._tell_progress()

    def notice(self, message: str, level: int) -> None:
        """Tells a message of this level or below."""
        if level <= self._verbosity or level == ALWAYS:
            self._write(f"batchchat: {message}")

    def run_held(self, word: str, why: str | None) -> None:
        """Stands in the lines of progress; the reason itself is told by a notice."""
        self._counts.held(word, why)

    def run_finished(self, report: RunReport) -> None:
        """Nothing more: the summary is the command's."""
        self._heartbeat.stop()

    def close(self) -> None:
        """Ends the lines of progress."""
        self._heartbeat.stop()
        if self._keep:
            self._keep = False
            self._write(f"batchchat: {self._counts.last_line()}")

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if self._verbosity >= 0 and now - self._last >= self._every_s:
            self._last = now
            line = self._counts.line()
            if line != self._told or not self._counts.waiting:  # a night of waiting is told once
                self._write(f"batchchat: {line}")
            self._told = line


class JsonProgress:
    """One JSON object a line, for log collectors: ``time``, ``event`` and the event's own keys."""

    def __init__(self, write: _Sink, *, verbosity: int, every_s: float = _LINE_EVERY_S) -> None:
        self._write, self._verbosity, self._every_s = write, verbosity, every_s
        self._counts = RunCounts()
        self._last = time.monotonic()
        self._heartbeat = Heartbeat(every_s, self._tell_progress)

    def figures_at_hand(self, figures: Callable[[], RunFigures]) -> None:
        """Keeps what tells the figures of the moment."""
        self._counts.figures = figures

    def run_started(self, plan: RunPlan) -> None:
        """Event ``run_started``."""
        self._counts.start(plan)
        self._heartbeat.start()
        self._tell("run_started", 0, total=plan.total, completed=plan.completed, concurrency=plan.concurrency)

    def plan_changed(self, plan: RunPlan) -> None:
        """Takes in the total."""
        self._counts.plan = plan

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Event ``attempt_failed``, with ``-v``."""
        self._counts.attempt_failed(prompt_id, retried)
        self._tell(
            "attempt_failed", 1, id=prompt_id, attempt=number, type=error.type, message=error.message, retried=retried
        )

    def prompt_finished(self, outcome: Outcome) -> None:
        """Event ``prompt_finished`` with ``-vv``, ``progress`` at most every 30 s."""
        self._counts.finished(outcome)
        self._tell("prompt_finished", 2, id=outcome.id, status=outcome.status, attempts=outcome.attempts)
        self._tell_progress()

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            counts = self._counts
            self._tell(
                "progress",
                0,
                total=counts.plan.total,
                completed=counts.plan.completed + counts.done,
                failed=counts.failed,
                retrying=counts.retrying,
                per_s=round(counts.rate, 3),
                left_s=counts.left_s,
                failures=counts.failures,
                **({} if counts.concurrency is None else {"concurrency": counts.concurrency}),
                **({} if counts.waiting is None else {"held": counts.waiting}),
            )

    def run_held(self, word: str, why: str | None) -> None:
        """Event ``held`` with the reason, ``null`` at its end."""
        self._counts.held(word, why)
        self._tell("held", 0, word=word, why=why)

    def notice(self, message: str, level: int) -> None:
        """Event ``notice``."""
        self._tell("notice", level, message=message)

    def run_finished(self, report: RunReport) -> None:
        """Event ``run_finished`` with the counts; with ``-q`` only if something went wrong."""
        self._heartbeat.stop()
        self._tell(
            "run_finished",
            ALWAYS if report.exit_code else 0,
            reason=report.reason,
            message=report.message,
            exit_code=report.exit_code,
            total=report.total,
            answered=report.answered_before + report.answered,
            failed=report.failed,
            pending=report.pending,
            usage=msgspec.to_builtins(report.usage),
            estimated_requests=report.estimated_requests,
            cost_usd=report.cost_usd,
        )

    def error(self, message: str, exit_code: int) -> None:
        """Event ``error``: what ended the command in the place of a report."""
        self._tell("error", ALWAYS, message=message, exit_code=exit_code)

    def resume(self, command: str) -> None:
        """Event ``resume`` with the command that goes on where the run ended."""
        self._tell("resume", ALWAYS, command=command)

    def close(self) -> None:
        """Ends the lines of progress."""
        self._heartbeat.stop()

    def _tell(self, event: str, level: int, **keys: Any) -> None:
        if level <= self._verbosity or level == ALWAYS:
            time_ = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            # Escapes keep whatever stands in a message on its line; ids may be integers of any size.
            self._write(json.dumps({"time": time_, "event": event, **keys}, default=str).replace("\x7f", "\\u007f"))


def choose_progress(
    stream: TextIO, *, verbosity: int, log_format: Literal["text", "json"]
) -> LineProgress | JsonProgress | RichProgress:
    """The progress that fits where standard error goes: a bar only on a terminal that can draw one."""
    write = safe_writer(stream)
    if log_format == "json":
        return JsonProgress(write, verbosity=verbosity)
    if verbosity >= 0 and _draws(stream):
        return RichProgress(stream, verbosity=verbosity)
    return LineProgress(write, verbosity=verbosity)


def progress_for_python() -> LineProgress | NotebookProgress | RichProgress:
    """What ``progress=True`` shows: a bar under the cell of a notebook, or on standard error as a run does."""
    if in_notebook():
        return NotebookProgress()
    if _draws(sys.stderr):
        return RichProgress(sys.stderr, verbosity=0, keep=True)
    return LineProgress(safe_writer(sys.stderr), verbosity=0, keep=True)


def _draws(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can draw a bar."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", None)
