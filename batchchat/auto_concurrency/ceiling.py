"""What refusals tell of the number of requests that a service takes at a time.

A refused request tells more than that it was one too many: it was sent with so many others on the wire. The fewest of
them is the ceiling, and one below it is right for a service that takes so many and no more.
"""

from collections import deque
from typing import Final

from batchchat.auto_concurrency.pauses import Pauses

__all__ = ["Ceiling", "Sent"]

# Requests that try whether the ceiling still holds may each cost a refusal, and 2 % are too many: so many answers pay
# for one. A run begins with a few on credit, as it knows nothing; a congestion with many is paid off for a while.
_ANSWERS_A_REFUSAL: Final = 80
_FIRST_CREDIT, _MOST_CREDIT, _LEAST_CREDIT = 3.0, 6.0, -4.0
_ANSWERS_A_TRY, _TURNS_A_TRY = 30, 5
# Refusals that go on after a cut: the first time it may have been one or two too few, then nobody knows how many.
_HARDER: Final = (0.9, 0.5)
# Not more than so many are not halved at once: few refusals would be saved.
_FEW: Final = 8
# Accepted at the same number since the last refusal: then one refusal alone is not about that number.
_ENOUGH_ACCEPTED: Final = 16
# A second one among so many requests after it is about that number all the same; after a pause, among all that go out
# at once.
_SOON: Final = 4
# Refusals in a row without an answer between them: the service is away, and tells nothing about a number.
_AWAY: Final = 16
_FLOOR_REQUESTS, _FLOOR_MEMORY = 32, 400
_RUNS = 6
_REFUSALS: Final = 256

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
        self._pauses = Pauses()
        self._episode = 0  # number of the last request that was sent before the latest cut
        self._doubted = -_SOON  # the same for the latest refusal at a number that was taken often
        self._newest = 0  # the same for the latest refusal of one that was sent after the cut
        self._refusals: deque[tuple[int, int]] = deque(maxlen=_REFUSALS)  # their numbers, and the newest when they came
        self._answers = 0  # since the latest refusal
        self._credit = _FIRST_CREDIT
        self._accepted: deque[int] = deque(maxlen=2 * _ENOUGH_ACCEPTED)
        self._hardness = self._row = self._above = 0
        self._floor_sent = self._floor_refused = 0
        self._runs = [0] * _RUNS

    @property
    def most(self) -> int | None:
        """The most that is known to be taken; None where nothing is known."""
        return None if self.at is None else self.at - 1

    def may_try(self, limit: int, now: float) -> bool:
        """Whether one request more may find out whether the ceiling is still there."""
        enough = max(_ANSWERS_A_TRY, _TURNS_A_TRY * limit)
        return self._credit >= 1 and self._answers >= enough and self._pauses.over(now)

    def answered(self, sent: Sent) -> bool:
        """Notes an answer; whether it shows that the ceiling is gone."""
        self._answers += 1
        self._credit = min(_MOST_CREDIT, self._credit + 1 / _ANSWERS_A_REFUSAL)
        if sent.beside == 1:
            self._floor(0)
        away, self._row = self._row >= _AWAY, 0
        if sent.number <= self._episode:
            return False
        self._accepted.append(sent.beside)
        if self.at is None:
            return False
        self._above += sent.beside >= self.at and self._taken_beside(sent) >= self.at
        if away or self._above >= max(_FEWEST_ABOVE, self.at // 4):
            self.at = None
            self._pauses.rose()
            return True
        return False

    def refused(
        self, sent: Sent, newest: int, limit: int, now: float, *, pause_s: float | None, answer_s: float
    ) -> int | None:
        """Notes a refusal; the limit to go down to, if that has to be made smaller.

        Args:
            newest: Number of the newest request.
            limit: Requests that are allowed at a time.
            pause_s: What the service asked everyone to wait.
            answer_s: Seconds that an answer takes, 0 if unknown.
        """
        self._row += 1
        if pause_s:
            self._pauses.asked(now, pause_s, answer_s)
        self._above = 0
        if sent.beside == 1:
            self._floor(1)
            return None
        beside = self._taken_beside(sent)
        self._refusals.append((sent.number, newest))
        noise = self._is_noise()
        if not noise:
            self._credit = max(_LEAST_CREDIT, self._credit - 1)
            self._answers = 0
        if sent.number <= self._episode:
            return self._same_congestion(beside, limit)
        self._runs = [*self._runs[1:], newest - self._newest]
        self._newest = newest
        if noise or (self.at is not None and beside >= self.at):  # nothing new
            self._pauses.in_vain()
            return None
        self._pauses.found(now)
        return self._new_congestion(sent, beside, newest, limit, max(_SOON, limit) if pause_s else _SOON)

    def was_taken(self, sent: Sent) -> bool:
        """Whether one beside as many others was taken lately, so that its refusal is news."""
        return sent.beside <= max(self._accepted, default=0)

    def _taken_beside(self, sent: Sent) -> int:
        """How many were on the wire with it, itself included, without others that were refused as well."""
        others = sum(number < sent.number <= last for number, last in self._refusals)
        return max(2, sent.beside - others)

    def _new_congestion(self, sent: Sent, beside: int, newest: int, limit: int, soon: int) -> int | None:
        accepted = sum(each >= beside for each in self._accepted)
        if accepted >= _ENOUGH_ACCEPTED and sent.number > self._doubted + soon:
            self._doubted = newest
            return None
        fresh = len(self._accepted)  # if few: the last cut was not deep enough
        self._accepted.clear()
        self._episode = newest
        self.cuts += 1
        if accepted >= _ENOUGH_ACCEPTED and limit > _FEW:  # what was taken for long is too many now
            lower, self._hardness = limit // 2, 1
        elif fresh < min(limit // 4, _ENOUGH_ACCEPTED):
            lower = int(limit * _HARDER[min(self._hardness, len(_HARDER) - 1)])
            self._hardness += 1
        else:
            lower, self._hardness = limit, 0
        self.at = min(beside, limit + 1)
        return max(1, min(lower, self.at - 1))

    def _same_congestion(self, beside: int, limit: int) -> int | None:
        """A request that was sent before the cut tells its size better."""
        if self.at is None or beside >= self.at:
            return None
        self.at = beside
        return min(limit, beside - 1)

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
