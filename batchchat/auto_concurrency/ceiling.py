"""What refusals tell of the number of requests that a service takes at a time.

A refused request tells more than that it was one too many: it was sent with so many others on the wire. The fewest of
them is the ceiling, and one below it is right for a service that takes so many and no more.
"""

from collections import deque
from typing import Final

__all__ = ["Ceiling", "Sent"]

# Answers between two requests that try whether the ceiling still holds: each may cost a refusal, and 2 % are too many.
_ANSWERS_A_TRY: Final = 80
_MOST_COUNTED: Final = 4
# Where the limit had been growing fast, more are counted, and those of the next cuts with them.
_MOST_COUNTED_IN_RUSH: Final = 12
# Never so long that a few in flight would wait for a quarter of an hour: so many answers for each of them.
_MOST_TURNS: Final = 40
# A service that asks for a pause holds up the whole run: so many times as long passes before the next try.
_PAUSES_A_TRY: Final = 30
# Refusals that go on after a cut cut deeper each time.
_HARDER: Final = (0.9, 0.7, 0.5)
# Accepted at the same number since the last refusal: then one refusal alone is not about that number.
_ENOUGH_ACCEPTED: Final = 16
# If they come more often than after so many requests, they are too many whatever they are about.
_CALM: Final = 50
# Refusals in a row without an answer between them: the service is away, and tells nothing about a number.
_AWAY: Final = 16
_FLOOR_REQUESTS, _FLOOR_MEMORY = 32, 400
_RUNS = 6

# So many requests have to be taken where as many were refused, before that is taken for gone.
_FEWEST_ABOVE: Final = 4


class Sent:
    """A request on the wire.

    Attributes:
        number: Counted from 1.
        at: Monotonic seconds.
        beside: Requests on the wire with it, itself included.
        full: Whether those were as many as were allowed.
    """

    __slots__ = ("at", "beside", "full", "number")

    def __init__(self, number: int, at: float, beside: int, full: bool) -> None:
        self.number, self.at, self.beside, self.full = number, at, beside, full


class Ceiling:
    """Fewest requests at a time that were too many; one cut for each congestion.

    All refusals of requests that were sent before a cut belong to it: they only tell its size better.

    Attributes:
        at: As many were refused; None where no such number is known.
        cuts: How often refusals made the limit smaller.
    """

    def __init__(self) -> None:
        self.at: int | None = None
        self.cuts = 0
        self._episode = 0  # number of the last request that was sent before the latest refusal of a new congestion
        self._before = 1
        self._refused = 0
        self._cut_in_episode = False
        self._answers = self._wait_answers = 0
        self._owed, self._most_owed = 0, _MOST_COUNTED
        self._not_before = 0.0
        self._accepted: deque[int] = deque(maxlen=2 * _ENOUGH_ACCEPTED)
        self._hardness = self._row = self._above = 0
        self._floor_sent = self._floor_refused = 0
        self._runs = [0] * _RUNS

    @property
    def most(self) -> int | None:
        """The most that is known to be taken; None where nothing is known."""
        return None if self.at is None else self.at - 1

    def may_try(self, now: float) -> bool:
        """Whether one request more may find out whether the ceiling is still there."""
        return self._answers >= self._wait_answers and now >= self._not_before

    def answered(self, sent: Sent) -> bool:
        """Notes an answer; whether it shows that the ceiling is gone."""
        self._answers += 1
        if sent.beside == 1:
            self._floor(0)
        away, self._row = self._row >= _AWAY, 0
        if sent.number <= self._episode:
            return False
        self._accepted.append(sent.beside)
        if self.at is None:
            return False
        self._above += sent.beside >= self.at
        if away or self._above >= max(_FEWEST_ABOVE, self.at // 4):
            self.at = None
            return True
        return False

    def refused(
        self, sent: Sent, newest: int, limit: int, now: float, *, pause_s: float | None, rush: bool = False
    ) -> bool:
        """Notes a refusal; whether the limit has to be made smaller, to ``most``.

        Args:
            newest: Number of the newest request.
            limit: Requests that are allowed at a time.
            pause_s: What the service asked everyone to wait.
            rush: Whether the limit was growing fast.
        """
        self._row += 1
        if pause_s:
            self._not_before = max(self._not_before, now + _PAUSES_A_TRY * pause_s)
        self._above = 0
        if sent.beside == 1:
            self._floor(1)
            return False
        if sent.number <= self._episode:
            return self._same_congestion(sent, limit)
        calm = newest - self._episode  # requests since the last congestion
        self._runs = [*self._runs[1:], calm]
        self._episode, self._before, self._refused = newest, limit, 1
        accepted = sum(beside >= sent.beside for beside in self._accepted)
        self._accepted.clear()
        noise = self._is_noise()
        self._cut_in_episode = not noise and (calm < _CALM or accepted < _ENOUGH_ACCEPTED)
        if not noise:
            if rush or self._answers >= self._wait_answers:
                self._owed, self._most_owed = 0, _MOST_COUNTED_IN_RUSH if rush else _MOST_COUNTED
            elif self._most_owed == _MOST_COUNTED:
                self._owed = 0
            self._owe()
            self._answers = 0
        if not self._cut_in_episode:
            return False
        if calm < max(8, limit // 4):
            self._lower(int(limit * _HARDER[min(self._hardness, len(_HARDER) - 1)]) + 1, limit)
            self._hardness += 1
        else:
            self._hardness = 0
            self._lower(max(sent.beside, limit // 2 + 1), limit)
        self.cuts += 1
        return True

    def _same_congestion(self, sent: Sent, limit: int) -> bool:
        self._refused += 1
        if not self._cut_in_episode:
            if self._refused < 2 + self._before // 8 or self._is_noise():
                return False
            self._cut_in_episode = True
            self.cuts += 1
        self._owe()
        if self.at is not None and sent.beside >= self.at:
            return False
        self._lower(max(sent.beside, self._before // 2 + 1), limit)
        return True

    def _owe(self) -> None:
        self._owed = min(self._most_owed, self._owed + 1)
        self._wait_answers = min(_ANSWERS_A_TRY * self._owed, max(_ANSWERS_A_TRY, _MOST_TURNS * (self.most or 1)))

    def _lower(self, at: int, limit: int) -> None:
        self.at = max(2, min(at, limit + 1))

    def _floor(self, refused: int) -> None:
        """Counts a request that was alone on the wire: a refusal of it cannot be about their number."""
        self._floor_sent += 1
        self._floor_refused += refused
        if self._floor_sent >= _FLOOR_MEMORY:
            self._floor_sent //= 2
            self._floor_refused //= 2

    def _is_noise(self) -> bool:
        """Whether refusals are not much more frequent than those of requests that were alone."""
        if self._floor_sent < _FLOOR_REQUESTS or not 0 < self._floor_refused < self._floor_sent / 2:
            return False
        share = self._floor_refused / self._floor_sent
        return _RUNS / (sum(self._runs) + _RUNS) <= min(0.5, 4 * share)
