"""What the workers do, as the driver sees it: in the place of what a run in one process does itself."""

import asyncio
from typing import Any

from batchchat.admission import Admission
from batchchat.life import Life
from batchchat.limits import Limiter
from batchchat.ray.desk_line import DeskCalls
from batchchat.ray.words import GO, FailedPrompt, Figures, Told
from batchchat.records import PromptId
from batchchat.run_slots import RunSlots
from batchchat.slots import Slots

__all__ = ["FarAdmission", "FarRules", "FarSlots", "FarWork"]

# Workers have numbers from 1.
_DRIVER = 0


class FarWork:
    """What the workers do, in the place of a worker here."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.attempts: dict[str, int] = {}
        self.lives: dict[asyncio.Task[Any], Life] = {}

    def take(self, figures: Figures) -> None:
        """There are new figures."""
        self.figures = figures
        self.attempts.clear()
        self.attempts.update(figures.attempts)


class FarAdmission(Admission):
    """A door that opens nothing here, and shuts those of the workers when it is shut."""

    def __init__(self, limiter: Limiter, far: FarWork) -> None:
        super().__init__(limiter)
        self._far = far

    @property
    def on_wire(self) -> int:
        """How many requests of all workers are on the wire."""
        return self._far.figures.in_flight


class FarRules:
    """Failures that only the driver sees, told to the desk as those of a worker: there all count together."""

    def __init__(self) -> None:
        self._count = 0

    async def failed(self, desk: DeskCalls, prompt_id: PromptId) -> bool:
        """Tells of one, of which there is one at a time; whether the run is to end by now.

        Raises:
            WorkerLostError: The desk is gone for good.
        """
        self._count += 1
        figures, failures = Figures(failed=self._count), (FailedPrompt(prompt_id, None),)
        told = Told(worker=_DRIVER, life="driver", number=self._count, figures=figures, failures=failures)
        word = await desk.tell(told)
        return word.stage != GO


class FarSlots(RunSlots):
    """The slots of all workers together, which need no files here.

    Args:
        wanted: Prompts in flight; of each worker, where it finds out how many pay.
        found: Whether it does.
    """

    def __init__(self, wanted: int, *, found: bool = False) -> None:
        super().__init__(1)
        self.most = self.usual = wanted
        self.found = found
        self.slots = Slots(1 if found else wanted)

    @property
    def limit(self) -> int:
        """Prompts that may be in flight now."""
        return self.slots.limit

    def take(self, figures: Figures) -> None:
        """The workers have so many by now."""
        if self.found and figures.slots:
            self.slots.resize(figures.slots)
