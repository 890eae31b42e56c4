"""A run whose results are in a store, told with the names that the user gave."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from batchchat.job_config import JobConfig
from batchchat.mirrors.mirror import Mirror
from batchchat.mirrors.place import MirrorPlace, mirrored_job, naming
from batchchat.observer import Observers, RunObserver, RunPlan, RunReport

__all__ = ["MirroredRun", "mirrored"]


class MirroredRun:
    """A job as the run is to have it, and its mirror."""

    def __init__(self, job: JobConfig, place: MirrorPlace) -> None:
        self.job, self.mirror, self._place = job, Mirror(place), place

    def observers(self, observers: Sequence[RunObserver]) -> Observers:
        """Tells the observers names of files that the user knows."""
        return _ToldObservers(observers, self._place)

    def told(self, report: RunReport) -> RunReport:
        """The report with such names."""
        return _told_report(self._place, report)


@asynccontextmanager
async def mirrored(job: JobConfig, notice: Callable[[str, int], None]) -> AsyncIterator[MirroredRun | None]:
    """Around the run of a job; None for one whose files are plain. At its end, the hold on the results is given up.

    Args:
        notice: Told what went wrong with that.

    Raises:
        ConfigError: The files cannot go together.
    """
    found = mirrored_job(job)
    if found is None:
        yield None
        return
    run = MirroredRun(*found)
    run.mirror.notice = notice
    try:
        with naming(found[1]):
            yield run
    finally:
        for sentence in await _finished(run.mirror):
            notice(sentence, 0)


async def _finished(mirror: Mirror) -> list[str]:
    """Ends the mirror's hold; a cancellation meanwhile ends what goes on with the store, and follows."""
    ending = asyncio.ensure_future(asyncio.to_thread(mirror.finish))
    cancelled = False
    while not ending.done():
        try:
            await asyncio.wait([ending])
        except asyncio.CancelledError:
            cancelled = True
            mirror.give_up()
    if cancelled:
        raise asyncio.CancelledError
    return ending.result()


class _ToldObservers(Observers):
    def __init__(self, observers: Sequence[RunObserver], place: MirrorPlace) -> None:
        super().__init__(observers)
        self._place = place

    def notice(self, message: str, level: int) -> None:
        super().notice(self._place.told(message), level)

    def run_started(self, plan: RunPlan) -> None:
        super().run_started(self._plan(plan))

    def plan_changed(self, plan: RunPlan) -> None:
        super().plan_changed(self._plan(plan))

    def run_finished(self, report: RunReport) -> None:
        super().run_finished(_told_report(self._place, report))

    def _plan(self, plan: RunPlan) -> RunPlan:
        return msgspec.structs.replace(plan, output=self._place.told(plan.output))


def _told_report(place: MirrorPlace, report: RunReport) -> RunReport:
    if report.message is None:
        return report
    return msgspec.structs.replace(report, message=place.told(report.message))
