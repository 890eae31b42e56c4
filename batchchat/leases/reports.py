"""What a worker has to tell the desk and has not told yet. Pure."""

from typing import Any

from batchchat.durations import Rate
from batchchat.leases.messages import Told

__all__ = ["Reports"]


class Reports:
    """Kept until a message with it was answered; all of it may come twice."""

    def __init__(self) -> None:
        self._unused: list[int] = []
        self._sent: list[tuple[int, float]] = []
        self._tokens: list[tuple[int, int]] = []
        self._over: list[int] = []
        self._told: list[Told] = []
        self._words: list[tuple[bool, str]] = []
        self._rates: tuple[Rate, ...] | None = None
        self._pause_until = 0.0

    def __bool__(self) -> bool:
        return bool(
            self._unused
            or self._sent
            or self._tokens
            or self._over
            or self._told
            or self._words
            or self._rates is not None
            or self._pause_until
        )

    def unused(self, number: int) -> None:
        """The lease was not sent and will not be: others may have its place."""
        self._unused.append(number)

    def sent(self, number: int, seconds: float) -> None:
        """The lease was sent so many seconds after its time at most; less than 0 as a rule."""
        self._sent.append((number, seconds))

    def tokens(self, number: int, tokens: int) -> None:
        """The lease cost so many tokens."""
        self._tokens.append((number, tokens))

    def over(self, number: int) -> None:
        """The lease's request is over."""
        self._over.append(number)

    def told(self, told: Told) -> None:
        """An answer told of the service's limits."""
        self._told.append(told)

    def pause(self, until: float) -> None:
        """Nobody may send before this time, on the own clock."""
        self._pause_until = max(until, self._pause_until)

    def word(self, why: str, *, holds: bool) -> None:
        """A word holds everybody up from now on, or no longer."""
        self._words.append((holds, why))

    def rates(self, rates: tuple[Rate, ...]) -> None:
        """Other rates are to be in force."""
        self._rates = rates

    def fields(self, now: float) -> dict[str, Any]:
        """All of it, as fields of an ``Ask``."""
        last = {why: holds for holds, why in self._words}
        return {
            "unused": tuple(self._unused),
            "sent": tuple(self._sent),
            "tokens": tuple(self._tokens),
            "over": tuple(self._over),
            "told": tuple(self._told),
            "hold": tuple(why for why, holds in last.items() if holds),
            "release": tuple(why for why, holds in last.items() if not holds),
            "rates": self._rates,
            "pause_s": max(0.0, self._pause_until - now),
        }

    def add(self, other: "Reports") -> None:
        """Takes in what was told before this and may not have come there."""
        self._unused[:0], self._sent[:0], self._tokens[:0] = other._unused, other._sent, other._tokens
        self._over[:0], self._told[:0], self._words[:0] = other._over, other._told, other._words
        self._rates = other._rates if self._rates is None else self._rates
        self._pause_until = max(self._pause_until, other._pause_until)
