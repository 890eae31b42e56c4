"""The bar on a terminal: counts, rate and time left below it, messages above it."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO, cast

import msgspec

from batchchat.errors import ProviderError
from batchchat.message_stream import message_stream
from batchchat.observer import RunFigures, RunPlan, RunReport
from batchchat.progress_counts import Heartbeat, RunCounts
from batchchat.progress_words import ALWAYS, attempt_line, outcome_line, visible
from batchchat.records import Outcome, PromptId
from batchchat.text_layout import flow

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["RichProgress"]

_DRAW_EVERY_S = 0.25
_NAME, _SHORTEST_BAR = "batchchat ", 8


class RichProgress:
    """A bar with counts, rate and time left; messages are printed above it.

    Args:
        keep: Whether a line with the counts stays where the bar was.
    """

    def __init__(self, stream: TextIO, *, verbosity: int, keep: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live

        self._verbosity, self._keep = verbosity, keep
        self._counts = RunCounts()
        self._console = Console(
            file=cast(TextIO, message_stream(stream)),
            highlight=False,
            no_color=True if os.environ.get("NO_COLOR") else None,
        )
        self._shown = _Shown(share=None, answered="starting", parts=(), began=time.monotonic())
        self._live = Live(
            console=self._console, transient=True, refresh_per_second=4, get_renderable=lambda: self._shown
        )
        self._heartbeat = Heartbeat(_DRAW_EVERY_S, self._draw)

    def figures_at_hand(self, figures: Callable[[], RunFigures]) -> None:
        """Keeps what tells the figures of the moment."""
        self._counts.figures = figures

    def run_started(self, plan: RunPlan) -> None:
        """Draws the bar."""
        self._counts.start(plan)
        self._draw()
        self._live.start()
        self._heartbeat.start()

    def plan_changed(self, plan: RunPlan) -> None:
        """Gives the bar its length."""
        self._counts.plan = plan

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Counts a retry; prints it with ``-v``."""
        self._counts.attempt_failed(prompt_id, retried)
        if self._verbosity >= 1:
            self._print(attempt_line(prompt_id, number, error, retried))

    def prompt_finished(self, outcome: Outcome) -> None:
        """Counts; prints each outcome with ``-vv``."""
        self._counts.finished(outcome)
        if self._verbosity >= 2:
            self._print(outcome_line(outcome))

    def notice(self, message: str, level: int) -> None:
        """Prints a message of this level or below above the bar."""
        if level <= self._verbosity or level == ALWAYS:
            self._print(f"batchchat: {message}")

    def run_held(self, word: str, why: str | None) -> None:
        """Stands beside the bar."""
        self._counts.held(word, why)

    def run_finished(self, report: RunReport) -> None:
        """Takes the bar away."""
        self.close()

    def close(self) -> None:
        """Takes the bar away and gives the terminal its cursor back, however the run ended."""
        self._heartbeat.stop()
        if self._live.is_started:
            self._live.stop()
            if self._keep:
                self._print(f"batchchat: {self._counts.last_line()}")

    def _draw(self) -> None:
        """Looks at the figures, on the loop; a thread of the terminal's own draws what was seen."""
        counts = self._counts
        self._shown = _Shown(
            share=counts.finished_share,
            answered=counts.answered,
            parts=tuple(map(visible, counts.parts())),
            began=counts.began,
        )

    def _print(self, text: str) -> None:
        self._console.print(visible(text), markup=False, soft_wrap=True)


class _Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What the bar shows.

    Attributes:
        share: Of the prompts, those that have an outcome; None for a stream.
        began: When the run did, on the monotonic clock.
    """

    share: float | None
    answered: str
    parts: tuple[str, ...]
    began: float

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        between = ", " if options.ascii_only else " · "
        # The last column stays free: some terminals go to the next line as soon as it is written.
        columns = options.max_width - 1
        percent = [] if self.share is None else [f"{int(self.share * 100)}%"]
        tail = f" {'  '.join([*percent, self.answered, self._elapsed()])}"
        head = _NAME if columns - len(_NAME) - len(tail) >= _SHORTEST_BAR else ""
        room = columns - len(head) - len(tail)
        if room >= _SHORTEST_BAR:
            if head:
                yield Text(head, end="")
            bar = ProgressBar(total=1.0, completed=self.share or 0.0, width=room, pulse=self.share is None)
            yield from console.render(bar, options.update(width=room))
            yield Text(tail)
            lines = flow(self.parts, columns, between=between)
        else:
            lines = flow([*percent, self.answered, self._elapsed(), *self.parts], columns, between=between)
        for line in lines:
            text = Text(line, no_wrap=True, overflow="crop")
            text.highlight_regex(r"[\d,]+ failed", "red")
            yield text

    def _elapsed(self) -> str:
        return str(timedelta(seconds=int(time.monotonic() - self.began))).removeprefix("0:")
