"""A run's figures in a file for Prometheus' node exporter, written by a thread of its own."""

import asyncio
import contextlib
import importlib.util
import os
import time
from collections.abc import Callable, Mapping

import msgspec

from batchchat.errors import ConfigError, ProviderError
from batchchat.metrics_writer import MetricsWriter
from batchchat.observer import RunFigures, RunPlan, RunReport
from batchchat.progress_counts import Heartbeat
from batchchat.records import Outcome, PromptId
from batchchat.results.files import RunFiles, is_stream

__all__ = ["MetricsFile", "check_metrics_path"]

_EVERY_S = 5.0
# A run at which nothing happens writes all the same, so that the age of the file tells whether it is alive.
_AT_LEAST_EVERY_S = 60.0
_CLOSE_S = 5.0
_LOCKED = 75


def check_metrics_path(path: str, files: RunFiles) -> None:
    """Refuses a metrics file that would cost something else, or that cannot be made.

    Raises:
        ConfigError: It is another file of the run, or no file; or the extra is not installed.
    """
    if path == "-" or path.startswith("/dev/fd/"):
        raise ConfigError("--metrics is written again and again, expected the name of a file such as batchchat.prom")
    if os.path.isdir(path) or path.endswith(("/", os.sep)):
        raise ConfigError(f"--metrics {path} is a folder, expected the name of a file in it, such as batchchat.prom")
    real = os.path.realpath(path)
    named = (
        ("-o", files.results),
        ("--errors", files.errors),
        ("--summary", files.summary),
        ("the torn file", files.torn),
    )
    for option, other in named:
        if other is not None and other != "-" and os.path.realpath(other) == real and not is_stream(path):
            raise ConfigError(f"{option} and --metrics both name {path}; give each a file of its own")
    _need_library()


class MetricsFile:
    """An observer that keeps a metrics file; ``close`` writes it for the last time.

    Args:
        about: Labels of ``batchchat_run_info``.
        notice: Told once, on the event loop, with a sentence when the file cannot be written.
        every_s: Seconds between two looks at the figures.
    """

    def __init__(
        self, path: str, *, about: Mapping[str, str], notice: Callable[[str, int], None], every_s: float = _EVERY_S
    ) -> None:
        _need_library()
        from batchchat.metrics_text import LastRun, Seconds

        self._path, self._about, self._notice = path, about, notice
        self._run = os.path.basename(path).removesuffix(".prom")
        self._plan: RunPlan | None = None
        self._figures: Callable[[], RunFigures] | None = None
        self._prompt_s, self._first_delta_s = Seconds(), Seconds()
        self._last_run: LastRun | None = None
        self._started, self._began = time.time(), time.monotonic()
        self._heartbeat = Heartbeat(every_s, self._look)
        self._shown: tuple[RunFigures | None, float] = (None, 0.0)
        self._highest: dict[str, int] = {}
        self._writer = MetricsWriter(path)

    def figures_at_hand(self, figures: Callable[[], RunFigures]) -> None:
        """Takes where the figures come from."""
        self._figures = figures

    def run_started(self, plan: RunPlan) -> None:
        """Writes the file for the first time."""
        if not self._path.endswith(".prom"):
            self._notice(f"{self._path}: the node exporter reads only files whose names end in .prom", 0)
        self._plan = plan
        self._writer.start(asyncio.get_running_loop(), self._tell)
        self._write(active=True)
        self._heartbeat.start()

    def plan_changed(self, plan: RunPlan) -> None:
        """Takes in the total for the next writing."""
        self._plan = plan

    def attempt_failed(self, prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> None:
        """Nothing: the figures count attempts."""

    def prompt_finished(self, outcome: Outcome) -> None:
        """Counts how long it took."""
        if outcome.latency_s is not None:
            self._prompt_s.add(outcome.latency_s)
        if outcome.completion is not None and outcome.completion.first_delta_s is not None:
            self._first_delta_s.add(outcome.completion.first_delta_s)

    def notice(self, message: str, level: int) -> None:
        """Nothing."""

    def run_finished(self, report: RunReport) -> None:
        """Looks no more; what is left is for ``close``."""
        self._heartbeat.stop()

    async def close(self, exit_code: int) -> None:
        """Writes how the run ended; waits for the disk, but not for long.

        A run that another one kept from its results leaves the file to that run.
        """
        from batchchat.metrics_text import LastRun

        self._heartbeat.stop()
        if exit_code == _LOCKED:
            return
        self._writer.start(asyncio.get_running_loop(), self._tell)
        self._last_run = LastRun(
            exit_code=exit_code, ended=time.time(), duration_s=round(time.monotonic() - self._began, 3)
        )
        self._write(active=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.finish()
        self._figures = None

    def _look(self) -> None:
        figures = None if self._figures is None else self._figures()
        shown, at = self._shown
        if figures != shown or time.monotonic() - at >= _AT_LEAST_EVERY_S:
            self._write(active=True)

    def _write(self, *, active: bool) -> None:
        from batchchat.metrics_text import MetricsState

        figures = None if self._figures is None else self._figures()
        self._shown = (figures, time.monotonic())
        self._writer.write(
            MetricsState(
                run=self._run,
                about=self._about,
                active=active,
                started=self._started,
                plan=self._plan,
                figures=self._growing(figures) if active and figures is not None else figures,
                prompt_s=self._prompt_s.copy(),
                first_delta_s=self._first_delta_s.copy(),
                last_run=self._last_run,
            )
        )

    def _growing(self, figures: RunFigures) -> RunFigures:
        """The figures with counts that never fall: an answer is counted before it is found not to fit its schema."""
        for outcome, count in figures.attempts.items():
            self._highest[outcome] = max(count, self._highest.get(outcome, 0))
        return msgspec.structs.replace(figures, attempts=dict(self._highest))

    def _tell(self, sentence: str) -> None:
        self._notice(sentence, 0)


def _need_library() -> None:
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigError("--metrics needs the package prometheus-client: pip install 'batchchat[metrics]'")
