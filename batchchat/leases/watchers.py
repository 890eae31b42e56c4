"""Asks that are held until there is something that all have to know, or figures for who shows them. Pure."""

import math
from collections.abc import Callable

from batchchat.leases.messages import Ask, Totals

__all__ = ["Held", "Watchers"]

# How often whoever steers hears what all do together.
_FIGURES_S = 1.0


class Held:
    """An ask that has no answer yet.

    Attributes:
        over_at: When it is answered although there is nothing to say.
    """

    __slots__ = ("ask", "looked_at", "over_at", "taken_at", "ticket")

    def __init__(self, ticket: int, ask: Ask, taken_at: float) -> None:
        self.ticket, self.ask = ticket, ask
        self.taken_at = self.looked_at = taken_at
        self.over_at = math.inf


class Watchers:
    """One ask of each worker; whatever is taken out of here is to be answered.

    Attributes:
        notices: Sentences for the user, who is where the run is steered.
    """

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._held: dict[str, Held] = {}
        self._steering: dict[str, Held] = {}
        self._told = 0

    def add(self, held: Held) -> Held | None:
        """Holds an ask; the one that was held before for the same worker, if any."""
        held_so = self._steering if held.ask.steers else self._held
        before = held_so.pop(held.ask.worker, None)
        held_so[held.ask.worker] = held
        return before

    def drop(self, ticket: int) -> None:
        """Nobody waits for this answer any more."""
        for held_so in (self._held, self._steering):
            for worker in [worker for worker, held in held_so.items() if held.ticket == ticket]:
                del held_so[worker]

    def lost(self, worker: str) -> None:
        """The worker is dead."""
        self._held.pop(worker, None)
        self._steering.pop(worker, None)

    def news(self, revision: int) -> list[Held]:
        """Those who do not know what is new."""
        new = [] if self._told == revision else self._take(self._held, lambda held: held.ask.news != revision)
        self._told = revision
        new += self._take(self._steering, lambda held: bool(self.notices) or held.ask.news != revision)
        return new

    def figures(self, now: float, totals: Callable[[], Totals], told: Totals) -> list[Held]:
        """Those who show what all do together, where that is another than was told and has not just been told."""
        due = [held for held in self._steering.values() if now >= held.looked_at + _FIGURES_S]
        if not due:
            return []
        for held in due:
            held.looked_at = now
        return self._take(self._steering, lambda held: held in due) if totals() != told else []

    @property
    def figures_at(self) -> float:
        """When to look at the figures again."""
        return min((held.looked_at + _FIGURES_S for held in self._steering.values()), default=math.inf)

    def over(self, now: float) -> list[Held]:
        """Those who have waited for as long as they may."""
        return [
            held
            for held_so in (self._held, self._steering)
            for held in self._take(held_so, lambda held: held.over_at <= now)
        ]

    def all(self) -> list[Held]:
        """Everybody."""
        return self.over(math.inf)

    @staticmethod
    def _take(held_so: dict[str, Held], due: Callable[[Held], bool]) -> list[Held]:
        found = [held for held in held_so.values() if due(held)]
        for held in found:
            del held_so[held.ask.worker]
        return found
