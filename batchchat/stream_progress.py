"""What ``stream(progress=True)`` shows: the figures of a stream, counted beside it."""

from batchchat.admission import Admission
from batchchat.budget import Budget
from batchchat.limits import Limiter
from batchchat.live_figures import LiveFigures
from batchchat.observer import Observers, RunPlan
from batchchat.progress import progress_for_python
from batchchat.records import Outcome
from batchchat.slots import Slots
from batchchat.tally import Tally
from batchchat.worker import Worker

__all__ = ["StreamProgress"]


class StreamProgress:
    """Progress of one stream.

    Attributes:
        observer: For the worker.
    """

    def __init__(self, plan: RunPlan, *, limiter: Limiter, admission: Admission, slots: Slots) -> None:
        self._shown = progress_for_python()
        self.observer = Observers([self._shown])
        self._plan, self._tally, budget = plan, Tally(), Budget()
        self._live = LiveFigures(
            limiter=limiter, admission=admission, tally=self._tally, slots=slots, spent=lambda: budget.spent
        )

    def begin(self, worker: Worker) -> None:
        """The first request is about to go out."""
        self._live.plan = self._plan
        self._live.begin(worker)
        self._tally.attempts = worker.attempts
        self.observer.figures_at_hand(self._live.now)
        self.observer.run_started(self._plan)

    def add(self, outcome: Outcome) -> None:
        """An outcome is about to be handed over."""
        self._tally.add(outcome)
        self.observer.prompt_finished(outcome)

    def close(self) -> None:
        """Leaves the counts where the bar was."""
        self._shown.close()
