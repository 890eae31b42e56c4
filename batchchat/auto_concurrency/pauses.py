"""When a service that asks the whole run to pause may be asked for more again."""

from typing import Final

__all__ = ["Pauses"]

# So many times as long as a pause leaves the service idle passes before the next try, and longer by a factor after each
# one in vain, so that tries cost less and less of a long run.
_FIRST, _MORE, _MOST = 3.0, 1.5, 20.0
# What has just risen was found from both sides, and rises again less soon than it falls.
_AFTER_RISE: Final = 10.0
# What is on the wire is answered meanwhile, half of its time in the mean, but not longer than three quarters.
_ANSWERED, _LEAST_IDLE = 0.5, 0.25


class Pauses:
    """Keeps tries apart where each in vain holds up the whole run; asks for nothing where refusals ask for no pause."""

    def __init__(self) -> None:
        self._times = _FIRST
        self._rose = False
        self._cost_s = self._not_before = 0.0

    def over(self, now: float) -> bool:
        """Whether the last one has paid off by now."""
        return now >= self._not_before

    def asked(self, now: float, pause_s: float, answer_s: float) -> None:
        """A refusal asked for one.

        Args:
            answer_s: Seconds that an answer takes in the mean.
        """
        self._cost_s = max(_LEAST_IDLE * pause_s, pause_s - _ANSWERED * answer_s)
        self._not_before = max(self._not_before, now + pause_s + self._times * self._cost_s)

    def in_vain(self) -> None:
        """A try met a refusal again."""
        self._times = min(_MOST, self._times * _MORE)

    def rose(self) -> None:
        """A try was taken: the service takes more than before."""
        self._rose = True

    def found(self, now: float) -> None:
        """Refusals showed another number than before."""
        self._times, self._rose = _AFTER_RISE if self._rose else _FIRST, False
        self._not_before = max(self._not_before, now + self._times * self._cost_s)
