"""The number of requests in flight that pays: more while answers take no longer, fewer where they wait for others."""

import math
from collections.abc import Callable
from typing import Final, Literal

from batchchat.auto_concurrency.answer_times import AnswerTimes, relative_error
from batchchat.auto_concurrency.ceiling import Ceiling, Sent

__all__ = ["MOST", "ConcurrencyControl"]

MOST: Final = 256
_FIRST: Final = 4

_FIRST_ANSWERS: Final = 12
_MOST_UNKNOWN: Final = 16  # in flight, until their times are known
_RUSH_BELOW: Final = 8

# Answer times are compared with those of a service that is not busy, as a ratio. Below the first, more requests pay;
# above the last, answers wait for each other; between them a few do, which keeps the service busy and costs nothing.
_FREE, _AIM, _SLOW = 1.3, 1.5, 1.8
# So many standard errors on the right side of those decide at once, long before a mean is accurate.
_SURELY_FREE, _SURELY_SLOW = 0.7, 1.5
_FEWEST_HELD: Final = 6
# A mean is good enough with this relative error, which decides how many answers it takes.
_ACCURACY, _FEWEST, _MOST_ANSWERS = 0.15, 12, 100
# So few answers end the growth that are so many times as slow, by so many standard errors. A service that refuses tells
# by that what it can do, so that slow answers are chance there rather than a sign.
_SHOCK_ANSWERS, _SHOCK = 8, 2.5
_SLOW_AT_START, _SLOW_AT_START_REFUSED = (1.4, 1.5), (2.0, 3.0)
_STEP = 1.4  # by which the limit grows at once where more pay
_FIRST_RUSH, _RUSH = 2, 4  # times as many, at most, without a look at the times of a full turn
# Such a part goes out at once after a pause that came unlooked for; twice as many each time that it had not fallen.
_BEGIN_PART, _BEGIN_FEWEST = 4, 2
_LOOKS_BETWEEN_CHECKS, _LOOKS_BEFORE_CHECK = 10, 3
_MEMORY = 200

State = Literal["start", "hold", "ease", "check", "try"]


class ConcurrencyControl:
    """Finds the limit; events in, ``limit`` out, no clock and no loop of its own.

    ``start``: each answer makes room for one more, until something speaks against it. ``hold``: the times of a full
    turn of answers are looked at; then the limit stays, grows by a step, or is eased. ``ease``: fewer are in flight; if
    that made the answers no faster, the service has become slower for another reason, and the limit goes back.
    ``check``: the same, from time to time, where nothing speaks for it, so that of two limits that bring the same the
    smaller one is kept. ``try``: as many as the service refused at last.

    Args:
        most: Most requests in flight.
        changed: Told each time the limit has become another.
        cut: Told in a sentence that the limit was made smaller as the service is congested.

    Attributes:
        limit: Requests that may be in flight now.
        state: What is being found out.
        ceiling: What refusals tell.
    """

    def __init__(
        self,
        most: int = MOST,
        *,
        changed: Callable[[], None] = lambda: None,
        cut: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._most, self._changed, self._cut = most, changed, cut
        self.limit = min(_FIRST, most)
        self.state: State = "start"
        self.ceiling = Ceiling()
        self._rush_to = most
        self._sent = self._on_wire = 0
        self._grow_after = 0  # the newest request when refusals cut deep: only answers to later ones make room for more
        self._begin_part = _BEGIN_PART
        self._since = self._turned = 0  # the newest request when the state began; answers to later ones
        self._idle: AnswerTimes | None = None  # of a service that is not busy
        self._idle_known = False
        self._first, self._first_over = AnswerTimes(), 0
        self._times, self._latest = AnswerTimes(), AnswerTimes()
        self._compared: AnswerTimes | None = None
        self._back = self.limit
        self._ratio = 1.0
        self._rushed = False  # more were found to pay, and nothing spoke against it since
        self._looks = 0
        self._variation = 0.5

    def begin(self, now: float) -> Sent:
        """A request goes to the wire."""
        self._sent += 1
        self._on_wire += 1
        return Sent(self._sent, now, self._on_wire, self._on_wire >= self.limit)

    def forget(self, sent: Sent) -> None:
        """The request is over and tells nothing: it was given up, or failed for a reason of its own."""
        self._on_wire -= 1
        if sent.number <= _FIRST_ANSWERS:
            self._count_first()

    def refused(self, sent: Sent, now: float, *, pause_s: float | None = None) -> None:
        """The service refused the request as one too many, or did not answer it in time.

        Args:
            pause_s: Seconds that the service asked to wait, for which nothing goes out at all.
        """
        self.forget(sent)
        cuts, news = self.ceiling.cuts, self.ceiling.was_taken(sent)
        answer_s = self._idle.mean_s if self._idle is not None else 0.0
        before = self.limit
        lower = self.ceiling.refused(sent, self._sent, before, now, pause_s=pause_s, answer_s=answer_s)
        if lower is not None:
            if self.ceiling.cuts > cuts and self.state != "try":
                self._cut(f"the service refuses requests; {lower} in flight, not {before}")
            self._looks = 0
            if lower + 1 < (self.ceiling.at or 0):
                self._enter("start", lower)
                self._grow_after = self._sent
            else:
                self._enter("hold", lower)
        elif self.state == "try":
            self._enter("hold", self.ceiling.most)
        if pause_s and news and sent.number > self._grow_after:
            self._begin_again(before)

    def _begin_again(self, before: int) -> None:
        """After a pause all that are allowed would go out at once, and most of them be refused if it fell far."""
        if self.limit <= before // 2:
            self._begin_part = _BEGIN_PART
            return
        part, self._begin_part = self._begin_part, max(1, self._begin_part // 2)
        if part > 1:
            self._enter("start", max(_BEGIN_FEWEST, before // part))
            self._grow_after = self._sent

    def answered(self, sent: Sent, now: float) -> None:
        """The request has its answer."""
        self._on_wire -= 1
        seconds = max(1e-6, now - sent.at)
        if sent.number <= _FIRST_ANSWERS and self._idle is None:
            self._first.add(seconds, sent.beside)
            self._count_first()
        if self.ceiling.answered(sent):
            self._rushed = True
            self._enter("start")
        if self.state == "start" and sent.number > self._grow_after and (sent.full or self._on_wire + 1 >= self.limit):
            self._grow()
        self._turned += sent.number > self._since
        if min(self._on_wire + 1, sent.beside) < self.limit / 2:
            return  # there was little to do: it tells nothing of the limit
        self._latest.add(seconds, sent.beside)
        if self._latest.count >= _SHOCK_ANSWERS and self._shocked():
            return
        if self.state != "start" and self._turned >= self.limit and sent.number > self._since:
            self._times.add(seconds, sent.beside)
            if self._times.count >= (_FEWEST_HELD if self.state == "hold" else self._answers_needed):
                self._look(self._times, now)

    def _count_first(self) -> None:
        """The first requests, waited for to the last but one: the first answers alone would be the short ones."""
        self._first_over += 1
        if self._idle is None and self._first_over >= _FIRST_ANSWERS - 1 and self._first.count >= _FIRST_ANSWERS // 2:
            self._idle, self._times = self._first, AnswerTimes()

    @property
    def _answers_needed(self) -> int:
        return max(_FEWEST, min(_MOST_ANSWERS, int(self._variation / _ACCURACY**2)))

    def _enter(self, state: State, limit: int | None = None) -> None:
        """Begins to find out something else, from a full turn of requests at the new limit on."""
        self.state = state
        before = self.limit
        if limit is not None:
            self.limit = max(1, min(self._most, limit))
        if (known := self.ceiling.most) is not None and state != "try":
            self.limit = max(1, min(self.limit, known))
        if state == "start":
            self._rush_to = before * (_RUSH if self._rushed else _FIRST_RUSH)
            self._rushed = True
        self._since, self._turned = self._sent, 0
        self._times, self._latest = AnswerTimes(), AnswerTimes()
        if self.limit != before:
            self._changed()

    def _grow(self) -> None:
        top = min(self._most, self._rush_to, self.ceiling.most or self._most)
        if self.limit >= top:
            self._enter("hold")
            return
        if self._idle is None and self.limit >= _MOST_UNKNOWN:
            return
        # Twice as many with each turn; three times while they are few.
        self.limit = min(top, self.limit + (2 if self.limit < _RUSH_BELOW else 1))
        self._changed()

    def _shocked(self) -> bool:
        """Whether a few answers were so slow that a whole look would take too long."""
        latest, self._latest = self._latest, AnswerTimes()
        if self.state not in ("start", "hold") or self._idle is None or self.limit == 1:
            return False
        ratio = latest.mean_s / self._idle.mean_s
        beyond = (ratio - 1) / (ratio * relative_error(latest, self._idle) or 1e-9)
        if self.state == "start":
            least, errors = _SLOW_AT_START_REFUSED if self.ceiling.cuts else _SLOW_AT_START
            slow = ratio > least and beyond > errors
        else:
            slow = ratio > max(_SHOCK, 1.6 * self._ratio) and beyond > 3
        if slow:
            self._ease(None, ratio, beside=latest.beside if self.state == "start" else self.limit)
        return slow

    def _look(self, times: AnswerTimes, now: float) -> None:
        if times.count >= 8:
            self._variation += (times.variation - self._variation) * 0.05
        idle = self._idle
        if idle is None:
            self._times = AnswerTimes()
            return
        ratio, error = times.mean_s / idle.mean_s, relative_error(times, idle)
        if self.state == "ease":
            self._look_eased(times, ratio, error)
        elif self.state == "check":
            self._look_checked(times, idle, ratio, error)
        elif self.state == "hold":
            self._look_held(times, idle, ratio, now)

    def _ease(self, times: AnswerTimes | None, ratio: float, *, beside: float, back: int | None = None) -> None:
        """Fewer in flight, as answers take longer.

        Args:
            times: Of a full turn at the limit of now; None where that had not been looked at.
            beside: Requests that were on the wire with those that took ``ratio`` times as long.
            back: The limit to go back to if it does not help; by default that of now.
        """
        limit = min(self.limit - 1, math.ceil(beside * min(0.8, _AIM / ratio)))
        if back is None:
            self._cut(f"answers take {ratio:.2g} times as long; {max(1, limit)} in flight, not {self.limit}")
        self._rushed = False
        self._compared, self._back, self._ratio = times, back or self.limit, 1.0
        self._enter("ease", limit)

    def _fell(self, times: AnswerTimes) -> float:
        """How far times came down with fewer in flight: 1 as much as these are fewer, 0 not at all."""
        before = self._compared
        if before is None:
            raise RuntimeError("nothing to compare with")
        return math.log(before.mean_s / times.mean_s) / math.log(max(1.01, before.beside / times.beside))

    def _look_eased(self, times: AnswerTimes, ratio: float, error: float) -> None:
        slow = ratio > _SLOW and self.limit > 1
        if self._compared is None:  # what was seen before was no full turn
            slow = ratio > max(_SLOW, 1 + 2 * error) and self.limit > 1
        elif times.mean_s > self._compared.mean_s * (1.1 + 2 * error):
            pass  # the service itself has become slower meanwhile
        elif self._fell(times) < 0.5:
            self._idle, self._idle_known = times, True
            self._enter("hold", self._back)
            return
        self._looks = 0
        if slow:
            back = self._back if self._compared is None else self.limit
            self._ease(times, ratio, beside=self.limit, back=back)
        else:
            self._enter("hold")

    def _look_checked(self, times: AnswerTimes, idle: AnswerTimes, ratio: float, error: float) -> None:
        self._looks = 0
        fell = self._fell(times)
        if ratio < 1 - error:
            self._idle = times
        elif ratio < _FREE:
            idle.merge(times, _MEMORY)
        if fell < 0.5:  # what was in flight more did pay
            if ratio > _FREE:
                self._idle = times
            self._idle_known = True
            self._enter("hold", self._back)
        elif 1 - error <= ratio < _FREE:
            self._idle_known = True
            self._enter("hold", self._back)
        elif self.limit == 1:
            self._enter("hold")
        else:  # as much with fewer: even fewer may do
            self._check(times, 0.75)

    def _check(self, times: AnswerTimes, share: float) -> None:
        self._compared, self._back = times, self.limit
        self._enter("check", min(self.limit - 1, math.ceil(self.limit * share)))

    def _look_held(self, times: AnswerTimes, idle: AnswerTimes, ratio: float, now: float) -> None:
        whole = times.count >= 2 * self._answers_needed
        error = ratio * math.sqrt(self._variation / times.count + idle.variation / idle.count)
        if ratio < 1 - 2 * error and whole:
            self._idle, ratio = times, 1.0
        self._ratio = ratio
        if ratio - _SURELY_SLOW * error > _SLOW and self.limit > 1:
            self._ease(times, ratio, beside=self.limit)
            return
        known = self.ceiling.most
        at_ceiling = known is not None and self.limit >= known
        if ratio + _SURELY_FREE * error < _FREE or (whole and ratio < (_SLOW if at_ceiling else _FREE)):
            self._looks = 0
            self._go_up(at_ceiling, now)
            return
        if not whole:
            return
        self._looks += 1
        self._rushed = False
        if self.limit > 1 and self._looks >= (_LOOKS_BETWEEN_CHECKS if self._idle_known else _LOOKS_BEFORE_CHECK):
            self._check(times, min(0.7, 0.9 / ratio))
        else:
            self._times = AnswerTimes()

    def _go_up(self, at_ceiling: bool, now: float) -> None:
        if self.limit >= self._most or (at_ceiling and not self.ceiling.may_try(self.limit, now)):
            self._times = AnswerTimes()
        elif at_ceiling:
            self._enter("try", self.limit + 1)
        else:
            # Where a service refuses, a step at once would have half of it refused.
            step = round(self.limit * _STEP) if not self.ceiling.cuts else 0
            self._enter("start", max(self.limit + 1, step))
