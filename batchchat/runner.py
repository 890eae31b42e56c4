"""One job from start to report, for the command line and for Python."""

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from batchchat.config import JobConfig
from batchchat.job_run import JobRun
from batchchat.observer import Observers, RunObserver, RunReport

__all__ = ["check_settings", "run_job", "run_job_sync", "run_on_fast_loop"]

T = TypeVar("T")


async def run_job(
    job: JobConfig,
    *,
    observers: Sequence[RunObserver] = (),
    environ: Mapping[str, str] | None = None,
    handle_signals: bool = False,
) -> RunReport:
    """Runs one job to its end, or to the reason that stops it.

    Args:
        job: What ``load_job`` gives.
        observers: Told of what happens; see ``RunObserver``.
        environ: Where keys and proxies are looked up; the process's own by default.
        handle_signals: Whether SIGINT, SIGTERM and SIGHUP drain the run (the loop must be the main thread's).

    Returns:
        How it ended; every answer that arrived is in the results file.

    Raises:
        ConfigError: The job cannot be run as it is.
        PromptFileError: The input is faulty (unless ``lenient``), or cannot be read.
        ResultsFileError: The results file cannot be used.
    """
    run = JobRun(job, Observers(observers), os.environ if environ is None else environ)
    return await run.run(handle_signals=handle_signals)


def run_job_sync(
    job: JobConfig, *, observers: Sequence[RunObserver] = (), environ: Mapping[str, str] | None = None
) -> RunReport:
    """``run_job`` for code without an event loop, and for notebooks, whose loop is running already."""
    main = run_job(job, observers=observers, environ=environ)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_on_fast_loop(main)
    results: list[RunReport] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(run_on_fast_loop(main))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, name="batchchat-run")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def run_on_fast_loop(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on uvloop where it is installed, else on asyncio's own loop."""
    factory = None
    if sys.platform != "win32":
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def check_settings(job: JobConfig) -> None:
    """Makes everything of a run that can be made without a file or a request.

    Raises:
        ConfigError: The job cannot be run as it is.
    """
    if job.provider:
        JobRun(job, Observers(()), os.environ)
