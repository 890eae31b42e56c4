"""Figures of a running run, and the clock by which they are told."""

import asyncio
import time
from collections.abc import Callable

from batchchat.durations import render_duration, render_speed
from batchchat.observer import RunFigures, RunPlan
from batchchat.records import Outcome, PromptId

__all__ = ["Heartbeat", "RunCounts"]


class RunCounts:
    """Figures of the running run."""

    def __init__(self) -> None:
        self.plan = RunPlan(total=None, completed=0, concurrency=0, output="")
        self.done = self.failed = self.retrying = 0
        self._retried: set[PromptId] = set()
        self._began = time.monotonic()
        self._held: dict[str, str] = {}
        self._held_s = self._held_at = 0.0
        self.figures: Callable[[], RunFigures] | None = None

    def start(self, plan: RunPlan) -> None:
        """Begins to count."""
        self.plan = plan
        self._began = time.monotonic()

    def attempt_failed(self, prompt_id: PromptId, retried: bool) -> None:
        """Counts a prompt that is asked again, once."""
        if retried:
            self._retried.add(prompt_id)
        self.retrying = len(self._retried)

    def finished(self, outcome: Outcome) -> None:
        """Counts an outcome."""
        self._retried.discard(outcome.id)
        self.retrying = len(self._retried)
        if outcome.error is None:
            self.done += 1
        else:
            self.failed += 1

    def held(self, word: str, why: str | None) -> None:
        """Notes a reason for which nothing goes out, or its end."""
        now, before = time.monotonic(), bool(self._held)
        if why is None:
            self._held.pop(word, None)
        else:
            self._held[word] = why
        if before and not self._held:
            self._held_s += now - self._held_at
        elif self._held and not before:
            self._held_at = now

    @property
    def waiting(self) -> str | None:
        """Why nothing goes out, None while requests do."""
        return ", ".join(self._held.values()) or None

    @property
    def rate(self) -> float:
        """Prompts finished a second since the start, not counting the time in which the run was held up."""
        elapsed = (self._held_at if self._held else time.monotonic()) - self._began - self._held_s
        return (self.done + self.failed) / elapsed if elapsed > 0 else 0.0

    @property
    def concurrency(self) -> int | None:
        """Prompts that may be in flight, where that is found out; else None, as it has been told."""
        return self.figures().concurrency if self.plan.finds_concurrency and self.figures is not None else None

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at this rate; None where total or rate is not known."""
        if self.plan.total is None or not self.rate:
            return None
        return max(0, self.plan.total - self.plan.completed - self.done - self.failed) / self.rate

    def line(self) -> str:
        """The figures in one plain line."""
        total = "?" if self.plan.total is None else str(self.plan.total)
        parts = [f"{self.plan.completed + self.done}/{total} answered", f"{self.failed} failed"]
        if self.retrying:
            parts.append(f"{self.retrying} retrying")
        if self._held:
            return ", ".join([*parts, *self._held.values()])
        parts.append(render_speed(self.rate))
        if self.left_s is not None:
            parts.append(f"about {render_duration(self.left_s)} left")
        if self.concurrency is not None:
            parts.append(f"{self.concurrency} in flight")
        return ", ".join(parts)


class Heartbeat:
    """Calls at intervals while a loop runs, so that progress is told also while nothing finishes."""

    def __init__(self, every_s: float, beat: Callable[[], None]) -> None:
        self._every_s, self._beat = every_s, beat
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins, if this is called on a running loop and the interval is one."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._every_s > 0:
            self._handle = loop.call_later(self._every_s, self._on_time)

    def stop(self) -> None:
        """Ends."""
        if self._handle is not None:
            self._handle.cancel()

    def _on_time(self) -> None:
        self._beat()
        self.start()
