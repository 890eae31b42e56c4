"""One job from start to report, for the command line and for Python."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from batchchat.asking import Asking
from batchchat.config import JobConfig
from batchchat.fast_loop import run_on_fast_loop
from batchchat.job_run import JobRun
from batchchat.observer import Observers, RunObserver, RunReport
from batchchat.pool_work import LocalAsking
from batchchat.records import Prompt
from batchchat.run_watchers import job_watchers, watched
from batchchat.storage.urls import is_url

if TYPE_CHECKING:
    from batchchat.mirrors.run import MirroredRun

__all__ = ["check_settings", "run_job", "run_job_sync", "run_on_fast_loop"]


async def run_job(
    job: JobConfig,
    *,
    observers: Sequence[RunObserver] = (),
    environ: Mapping[str, str] | None = None,
    handle_signals: bool = False,
    progress: bool = False,
) -> RunReport:
    """Runs one job to its end, or to the reason that stops it.

    Args:
        job: What ``load_job`` gives.
        observers: Told of what happens; see ``RunObserver``.
        environ: Where keys and proxies are looked up; the process's own by default.
        handle_signals: Whether SIGINT, SIGTERM and SIGHUP drain the run (the loop must be the main thread's).
        progress: Show a bar, under the cell in a notebook, else on standard error.

    Returns:
        How it ended; every answer that arrived is in the results file.

    Raises:
        ConfigError: The job cannot be run as it is.
        PromptFileError: The input is faulty (unless ``lenient``), or cannot be read.
        ResultsFileError: The results file cannot be used.
    """
    environ = os.environ if environ is None else environ
    with _shown(progress) as more:
        observers = [*observers, *more]
        async with _in_store(job, observers) as stored:
            if stored is not None:
                job = stored.job
            made = _made(job)
            watchers = job_watchers(job, observers)
            async with watched(watchers) as end:
                if stored is None:
                    run = JobRun(job, Observers([*observers, *watchers]), environ, made)
                else:
                    run = JobRun(job, stored.observers([*observers, *watchers]), environ, made, stored.mirror)
                end.report = await run.run(handle_signals=handle_signals)
    return end.report if stored is None else stored.told(end.report)


def _in_store(job: JobConfig, observers: Sequence[RunObserver]) -> "AbstractAsyncContextManager[MirroredRun | None]":
    """What a run needs whose results are in a store."""
    if not any(path is not None and is_url(path) for path in (job.output.path, job.errors, job.summary)):
        return nullcontext()
    from batchchat.mirrors.run import mirrored  # not needed by most runs

    return mirrored(job, Observers(observers).notice)


def _made(job: JobConfig) -> type[Asking]:
    """What makes that which asks the job's prompts."""
    if job.engine == "local":
        return LocalAsking
    from batchchat.ray.checks import check_job  # neither is needed by most runs

    check_job(job)
    from batchchat.ray.driver import RayAsking

    return RayAsking


@contextmanager
def _shown(progress: bool) -> Iterator[Sequence[RunObserver]]:
    """What shows the progress of a run, taken away at its end."""
    if not progress:
        yield ()
        return
    from batchchat.progress import progress_for_python  # which knows a library that runs do without

    shown = progress_for_python()
    try:
        yield (shown,)
    finally:
        shown.close()


def run_job_sync(
    job: JobConfig,
    *,
    observers: Sequence[RunObserver] = (),
    environ: Mapping[str, str] | None = None,
    progress: bool = False,
) -> RunReport:
    """``run_job`` for code without an event loop, and for notebooks, whose loop is running already."""
    main = run_job(job, observers=observers, environ=environ, progress=progress)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_on_fast_loop(main)
    return _InThread(main).result()


class _InThread:
    """A run on a loop of its own; an interrupt here ends it there, and is raised once its files are closed."""

    def __init__(self, main: Coroutine[Any, Any, RunReport]) -> None:
        self._main = main
        self._outcome: Future[RunReport] = Future()
        self._cancel: Callable[[], object] = main.close
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batchchat-run")

    def result(self) -> RunReport:
        """Waits for the end of the run."""
        self._thread.start()
        try:
            self._thread.join()
        except BaseException:
            self._started.wait()
            self._cancel()
            self._thread.join()
            raise
        return self._outcome.result()

    def _run(self) -> None:
        async def watched() -> RunReport:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()
            if task is not None:
                self._cancel = partial(loop.call_soon_threadsafe, task.cancel)
            self._started.set()
            return await self._main

        try:
            self._outcome.set_result(run_on_fast_loop(watched()))
        except BaseException as error:
            self._outcome.set_exception(error)
        finally:
            self._started.set()


def check_settings(job: JobConfig) -> Callable[[Prompt], None] | None:
    """Makes everything of a run that can be made without a file or a request.

    Returns:
        What raises ``ConfigError`` for a prompt that the provider's settings do not fit, where the provider has it.

    Raises:
        ConfigError: The job cannot be run as it is.
    """
    return JobRun(job, Observers(()), os.environ, _made(job)).check_prompt if job.provider else None
