"""Figures of a running run, and the clock by which they are told."""

import asyncio
import time
from collections.abc import Callable, Mapping

from batchchat.durations import render_duration, render_speed
from batchchat.observer import RunFigures, RunPlan, SlowPrompt
from batchchat.records import Outcome, PromptId
from batchchat.text_layout import cut

__all__ = ["Heartbeat", "RunCounts", "render_failures", "render_slow"]

# A prompt that takes less is not worth a word.
_SLOW_S = 10.0
_ID_COLUMNS = 24


class RunCounts:
    """Figures of the running run.

    Attributes:
        figures: Gives what only the run knows, on its event loop; None where nobody does.
    """

    def __init__(self) -> None:
        self.plan = RunPlan(total=None, completed=0, concurrency=0, output="")
        self.done = self.failed = self.retrying = 0
        self.failures: dict[str, int] = {}
        self._retried: set[PromptId] = set()
        self.began = time.monotonic()
        self._held: dict[str, str] = {}
        self._held_s = self._held_at = 0.0
        self.figures: Callable[[], RunFigures] | None = None

    def start(self, plan: RunPlan) -> None:
        """Begins to count."""
        self.plan = plan
        self.began = time.monotonic()

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
            self.failures[outcome.error.type] = self.failures.get(outcome.error.type, 0) + 1

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
        """Prompts finished a second, of this run: lately, or since the start where nobody knows better.

        Time in which the run was held up does not count.
        """
        return self._rate(self._seen())

    @property
    def concurrency(self) -> int | None:
        """Prompts that may be in flight, where that is found out; else None, as it has been told."""
        seen = self._seen() if self.plan.finds_concurrency else None
        return None if seen is None else seen.concurrency

    @property
    def left_s(self) -> float | None:
        """Seconds until the end; None where they cannot be told."""
        return self._left_s(self._seen())

    @property
    def finished_share(self) -> float | None:
        """Share of the prompts that have an outcome; None where their number is not known."""
        if not self.plan.total:
            return None
        return min(1.0, (self.plan.completed + self.done + self.failed) / self.plan.total)

    def line(self) -> str:
        """The figures in one plain line."""
        return ", ".join([self.answered, *self.parts(always_failed=True)])

    @property
    def answered(self) -> str:
        """How many have an answer, those of earlier runs among them."""
        total = "?" if self.plan.total is None else f"{self.plan.total:,}"
        return f"{self.plan.completed + self.done:,}/{total} answered"

    def last_line(self) -> str:
        """The counts of a run that is over."""
        failed = f"{self.failed:,} failed{render_failures(self.failures)}"
        return f"{self.answered}, {failed}, in {render_duration(time.monotonic() - self.began)}"

    def parts(self, *, always_failed: bool = False) -> list[str]:
        """The other figures, a few words each."""
        seen = self._seen()
        parts = [f"{self.failed:,} failed{render_failures(self.failures)}"] if self.failed or always_failed else []
        if self.retrying:
            parts.append(f"{self.retrying:,} retrying")
        if self._held:
            return [*parts, *self._held.values()]
        of = f" of {' and '.join(seen.rates)}" if seen is not None and seen.rates else ""
        parts.append(f"{render_speed(self._rate(seen))}{of}")
        if (left_s := self._left_s(seen)) is not None:
            parts.append(f"about {render_duration(left_s)} left")
        return [*parts, *self._of_the_moment(seen)]

    def _of_the_moment(self, seen: RunFigures | None) -> list[str]:
        parts = []
        if self.plan.finds_concurrency and seen is not None:
            parts.append(f"{seen.concurrency} in flight")
        if seen is not None and seen.service_wait_s >= 1:
            parts.append(f"the service asks to wait {render_duration(seen.service_wait_s)} more")
        if seen is not None and seen.slowest is not None and seen.slowest.seconds >= _SLOW_S:
            parts.append(f"slowest {render_slow(seen.slowest)}")
        return parts

    def _seen(self) -> RunFigures | None:
        return None if self.figures is None else self.figures()

    def _rate(self, seen: RunFigures | None) -> float:
        if seen is not None:
            return seen.per_s
        elapsed = (self._held_at if self._held else time.monotonic()) - self.began - self._held_s
        return (self.done + self.failed) / elapsed if elapsed > 0 else 0.0

    def _left_s(self, seen: RunFigures | None) -> float | None:
        if seen is not None:
            return seen.left_s
        if self.plan.total is None or not (rate := self._rate(None)):
            return None
        return max(0, self.plan.total - self.plan.completed - self.done - self.failed) / rate


def render_failures(failures: Mapping[str, int]) -> str:
    """`` (timeout 8, server 4)``, the most frequent first; nothing where there are none."""
    told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(failures.items(), key=lambda pair: -pair[1]))
    return f" ({told})" if told else ""


def render_slow(prompt: SlowPrompt) -> str:
    """``41s (attempt 2): q-7``; a long id is cut, and stands last, as it may run from right to left."""
    attempt = f" (attempt {prompt.attempt})" if prompt.attempt > 1 else ""
    return f"{render_duration(prompt.seconds)}{attempt}: {cut(str(prompt.id), _ID_COLUMNS)}"


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
