"""A worker's line to the desk: messages in order of need, the desk's clock, and what to do while it is away."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from batchchat.leases.clock_map import ClockMap
from batchchat.leases.messages import Answer, Ask, DeskAwayError
from batchchat.leases.reports import Reports
from batchchat.one_line import one_line

__all__ = ["Exchange", "Line"]

Exchange = Callable[[Ask], Awaitable[Answer]]

# Waits between tries while the desk is away, and what is added to the way that an answer takes.
_FIRST_WAIT_S, _MOST_WAIT_S = 0.05, 1.0
_LEAD_S, _MOST_LEAD_S = 0.002, 1.0
# An answer is held for 30 seconds at most.
_LONGEST_S = 60.0
# What one exchange counts in the mean of the ways there and back. An answer that takes longer than most costs little:
# its leases are good for some milliseconds after their times.
_NEW_SHARE = 0.1
# How much of the worst lateness is left after each request.
_FADES = 0.98


class Line:
    """Sends asks and takes in answers.

    Args:
        worker: See ``Ask``.
        clock: The own one, in seconds.
        taken: Called with each answer, and whether the desk is another than before.
        away: Called once with a sentence where the desk stays away for longer than ``patience_s``.
        figures: Gives what the worker tells of itself: requests let out, requests that wait.

    Attributes:
        reports: What is to be told.
        clock_map: Where the desk's clock stands.
        told_at: Own time of the last message.
        broken: Whether the desk was away for too long; nothing is sent any more.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        worker: str,
        clock: Callable[[], float],
        taken: Callable[[Answer], None],
        away: Callable[[str], None],
        figures: Callable[[], dict[str, Any]],
        patience_s: float,
    ) -> None:
        self._exchange, self._worker, self._clock = exchange, worker, clock
        self._taken, self._away, self._figures, self._patience_s = taken, away, figures, patience_s
        self.reports, self.clock_map, self.broken = Reports(), ClockMap(), False
        self.desk: int | None = None
        self.told_at = self._way_s = self._late_s = 0.0
        self._lost_since: float | None = None

    @property
    def lead_s(self) -> float:
        """Seconds that an answer may take from the desk to here."""
        return min(_MOST_LEAD_S, self._way_s / 2 + _LEAD_S)

    def late(self, seconds: float) -> None:
        """A request was woken, or came to the wire, so long after its lease began."""
        self._late_s = max(seconds, self._late_s * _FADES)

    def fail(self, error: BaseException) -> None:
        """Nothing is told any more, because of something that nobody thought of."""
        self._break(f"what leases the limit to all workers failed: {type(error).__name__}: {one_line(str(error))}")

    async def tell(self, make: Callable[[], dict[str, Any]] = dict) -> Answer | None:
        """Sends what is to be told and asks for something; again and again while the desk is away.

        Args:
            make: Gives the fields of the ask that say what is wanted, anew for each try.

        Returns:
            The answer, which ``taken`` has seen; None where the desk stays away, or did not answer in time.
        """
        wait_s = _FIRST_WAIT_S
        while not self.broken:
            if (answer := await self._once(make())) is not None:
                return answer
            now = self._clock()
            self._lost_since = now if self._lost_since is None else self._lost_since
            if now - self._lost_since > self._patience_s:
                self._break(
                    f"what leases the limit to all workers did not answer for {self._patience_s:g} s; "
                    "run the same command again once the cluster is well"
                )
            else:
                await asyncio.sleep(wait_s)
                wait_s = min(_MOST_WAIT_S, 2 * wait_s)
        return None

    async def _once(self, wants: dict[str, Any]) -> Answer | None:
        told, self.reports = self.reports, Reports()
        asked_at = self.told_at = self._clock()
        error_s = self.clock_map.error_s(asked_at)
        ask = Ask(
            worker=self._worker,
            clock_error_s=error_s if error_s < _LONGEST_S else 0.0,
            late_s=self._late_s,
            lead_s=self.lead_s,
            **told.fields(asked_at),
            **self._figures(),
            **wants,
        )
        answer = None
        try:
            with suppress(DeskAwayError, TimeoutError):
                async with asyncio.timeout(_LONGEST_S):
                    answer = await self._exchange(ask)
        finally:
            if answer is None:
                self.reports.add(told)
        if answer is not None:
            self._note(answer, asked_at)
        return answer

    def _note(self, answer: Answer, asked_at: float) -> None:
        now = self._clock()
        self._lost_since = None
        if self.desk != answer.desk:
            self.clock_map.forget()
            self.desk = answer.desk
        self.clock_map.note(asked_at, answer.taken_at, answer.at, now)
        way_s = (now - asked_at) - (answer.at - answer.taken_at)
        self._way_s += (way_s - self._way_s) * (_NEW_SHARE if self._way_s else 1.0)
        self._taken(answer)

    def _break(self, sentence: str) -> None:
        if not self.broken:
            self.broken = True
            self._away(sentence)
