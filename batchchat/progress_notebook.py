"""Progress under a cell of a notebook: one display, which takes the place of what it showed before."""

import sys
from collections.abc import Callable
from typing import Any

from batchchat.errors import ProviderError
from batchchat.observer import RunFigures, RunPlan, RunReport
from batchchat.progress_counts import Heartbeat, RunCounts
from batchchat.progress_words import visible
from batchchat.records import Outcome, PromptId

__all__ = ["NotebookProgress", "in_notebook"]

_DRAW_EVERY_S = 0.5


def in_notebook() -> bool:
    """Whether this code runs in a cell of a notebook, whose front end shows displays."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """A bar with counts, rate and time left, in HTML and as plain text; at the end the counts stay.

    Args:
        display: IPython's, or one that takes the same.
    """

    def __init__(self, display: Callable[..., Any] | None = None) -> None:
        self._display = _ipython_display() if display is None else display
        self._counts = RunCounts()
        self._heartbeat = Heartbeat(_DRAW_EVERY_S, self._draw)
        self._handle: Any = None
        self._warnings: list[str] = []

    def figures_at_hand(self, figures: Callable[[], RunFigures]) -> None:
        """Keeps what tells the figures of the moment."""
        self._counts.figures = figures

    def run_started(self, plan: RunPlan) -> None:
        """Shows the bar."""
        self._counts.start(plan)
        self._handle = self._display(self._bundle([]), raw=True, display_id=True)
        self._heartbeat.start()

    def plan_changed(self, plan: RunPlan) -> None:
        """Gives the bar its length."""
        self._counts.plan = plan

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Counts a retry."""
        self._counts.attempt_failed(prompt_id, retried)

    def prompt_finished(self, outcome: Outcome) -> None:
        """Counts."""
        self._counts.finished(outcome)

    def notice(self, message: str, level: int) -> None:
        """Shows a warning below the bar."""
        if level <= 0:
            self._warnings.append(message)

    def run_held(self, word: str, why: str | None) -> None:
        """Stands beside the bar."""
        self._counts.held(word, why)

    def run_finished(self, report: RunReport) -> None:
        """Leaves the counts."""
        self.close()

    def close(self) -> None:
        """Leaves the counts, however the run ended."""
        self._heartbeat.stop()
        if self._handle is not None:
            handle, self._handle = self._handle, None
            handle.update(self._bundle([self._counts.last_line()], over=True), raw=True)

    def _draw(self) -> None:
        if self._handle is not None:
            self._handle.update(self._bundle(self._counts.parts()), raw=True)

    def _bundle(self, parts: list[str], *, over: bool = False) -> dict[str, str]:
        """The display in the forms that front ends ask for."""
        from html import escape

        share = self._counts.finished_share
        told = ", ".join(parts if over else [self._counts.answered, *parts])
        lines = [visible(line) for line in (told, *self._warnings)]
        value = "" if share is None else f' value="{share:.4f}"'
        bar = "" if over and share is None else f'<progress{value} style="width: 16em"></progress> '
        shown = "<br>".join(f'<bdi style="font-variant-numeric: tabular-nums">{escape(line)}</bdi>' for line in lines)
        return {"text/plain": "\n".join(lines), "text/html": f"<div>{bar}{shown}</div>"}


def _ipython_display() -> Callable[..., Any]:
    from IPython.display import display

    found: Callable[..., Any] = display
    return found
