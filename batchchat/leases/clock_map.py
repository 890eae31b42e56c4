"""Where the desk's clock stands, by the messages that went there and back."""

import math

__all__ = ["ClockMap"]

# Clocks of two machines run apart by less than this share; NTP moves one by 0.0005 at most while it corrects it.
_DRIFT = 0.0006


class ClockMap:
    """The two bounds of what has to be added to the own clock to have the desk's.

    A message arrives after it was sent: that bounds the difference from one side on the way there, and from the other
    on the way back, however long the desk took between them.
    """

    __slots__ = ("_high", "_low", "_noted_at")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Knows nothing any more, as when the desk's clock is another."""
        self._low, self._high, self._noted_at = -math.inf, math.inf, 0.0

    def note(self, asked_at: float, taken_at: float, answered_at: float, got_at: float) -> None:
        """Takes in one exchange: own time, desk time twice, own time."""
        low, high = answered_at - got_at, taken_at - asked_at + _DRIFT * (got_at - asked_at)
        aged = _DRIFT * max(0.0, got_at - self._noted_at)
        self._low, self._high = max(low, self._low - aged), min(high, self._high + aged)
        if self._low > self._high:  # a clock was set or stood still: only what is new counts
            self._low, self._high = low, high
        self._noted_at = got_at

    def error_s(self, now: float) -> float:
        """Seconds between the two bounds; infinite before the first exchange."""
        return self._high - self._low + 2 * _DRIFT * max(0.0, now - self._noted_at)

    def surely_from(self, at: float) -> float:
        """Own time from which it is surely ``at`` or later at the desk."""
        own = at - self._low
        return own + _DRIFT * max(0.0, own - self._noted_at)

    def surely_until(self, at: float) -> float:
        """Own time until which it is surely not later than ``at`` at the desk."""
        own = at - self._high
        return own - _DRIFT * max(0.0, own - self._noted_at)
