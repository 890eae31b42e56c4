"""What a job itself asks to be told to: a metrics file, a collector of OpenTelemetry."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from batchchat.config import JobConfig
from batchchat.errors import BatchchatError
from batchchat.job_setup import checked_files
from batchchat.metrics_file import MetricsFile
from batchchat.observer import Observers, RunObserver, RunReport
from batchchat.otlp import OtlpTelemetry
from batchchat.version import VERSION

__all__ = ["RunEnd", "job_watchers", "watched"]

_CANCELLED = 130


class Watcher(RunObserver, Protocol):
    """An observer that has something to bring to its end."""

    async def close(self, exit_code: int) -> None:
        """Tells how the run ended; bounded, and raises nothing that its medium can cause."""


class RunEnd:
    """Holds the report of a run that came to its end."""

    report: RunReport | None = None


def job_watchers(job: JobConfig, observers: Sequence[RunObserver]) -> list[Watcher]:
    """The job's own watchers; what these have to say to the user goes to the other observers.

    Raises:
        ConfigError: One of them cannot work with these settings.
    """
    others = Observers(observers)
    watchers: list[Watcher] = []
    if job.metrics is not None:
        checked_files(job)  # it may be written from here on, also by a run that does not begin
        watchers.append(MetricsFile(job.metrics, about=_about(job), notice=others.notice))
    telemetry = job.telemetry
    if telemetry.otlp:
        watchers.append(OtlpTelemetry(job.provider, ids=telemetry.ids, content=telemetry.content, notice=others.notice))
    return watchers


@asynccontextmanager
async def watched(watchers: Sequence[Watcher]) -> AsyncIterator[RunEnd]:
    """Closes the watchers at the end of the run inside, with its exit code, however it ends."""
    end, code = RunEnd(), 1
    try:
        yield end
        code = 0 if end.report is None else end.report.exit_code
    except BatchchatError as error:
        code = error.exit_code
        raise
    except (asyncio.CancelledError, KeyboardInterrupt):
        code = _CANCELLED
        raise
    finally:
        for watcher in watchers:
            await watcher.close(code)


def _about(job: JobConfig) -> dict[str, str]:
    """What a job is, in a few words without secrets."""
    return {
        "version": VERSION,
        "provider": str(job.provider.get("name", "")),
        "model": str(job.provider.get("model") or ""),
    }
