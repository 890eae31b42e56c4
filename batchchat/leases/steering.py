"""What the driver of a run over many workers has for its limiter: it steers all of them and sends nothing itself."""

from collections.abc import Sequence
from typing import Any

from batchchat.durations import Rate
from batchchat.leases.limiter import LeasedLimiter
from batchchat.leases.messages import Answer, Totals

__all__ = ["SteeringLimiter"]


class SteeringLimiter(LeasedLimiter):
    """See ``LeasedLimiter``; what is held, released or set here is so for all workers.

    Its own figures are those of all workers together, as the desk told of late, once a second at most.

    Attributes:
        totals: The same as one value.
    """

    def __init__(self, rates: Sequence[Rate] = (), **options: Any) -> None:
        self.totals = Totals()
        self._admitted = 0
        super().__init__(rates, **options)

    @property
    def admitted(self) -> int:
        """Requests that were let out, by all workers."""
        return self._admitted

    @admitted.setter
    def admitted(self, admitted: int) -> None:
        if admitted > self._admitted:
            self._history.note(self._now(), admitted - self._admitted)
            self._admitted = admitted

    @property
    def waiting(self) -> int:
        """How many requests wait to be let out, by all workers."""
        return self.totals.waiting

    def hold(self, why: str) -> None:
        """Lets no request of any worker out until ``release`` with the same word."""
        super().hold(why)
        self._line.reports.word(why, holds=True)
        self._talk.tell(urgent=True)

    def release(self, why: str) -> None:
        """Ends a hold of all workers."""
        super().release(why)
        self._line.reports.word(why, holds=False)
        self._talk.tell(urgent=True)

    def set_rates(self, rates: Sequence[Rate]) -> None:
        """Puts other rates in force for all."""
        super().set_rates(rates)
        self.rates = tuple(rates)  # as they will be once the desk has heard of it

    def _figures(self) -> dict[str, Any]:
        return {"steers": True}

    def _take_answer(self, answer: Answer) -> None:
        super()._take_answer(answer)
        self.totals = answer.totals
        self.admitted = answer.totals.admitted
        for sentence in answer.notices:
            self._notice(sentence)
