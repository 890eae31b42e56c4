"""How fast prompts finish lately, and how long what is left will take."""

import time
from collections import deque
from collections.abc import Callable

__all__ = ["Pace", "time_left_s"]

# Lately: these many seconds, or as many more as it takes to see so many prompts, at most the seconds kept.
_LATELY_S, _ENOUGH = 30.0, 50
_KEPT = 900


class Pace:
    """Prompts that finished, counted by the second; at most 900 seconds in which any did are kept.

    Args:
        clock: Seconds in which the run was at work; time in which it was held up does not move it.
    """

    __slots__ = ("_began", "_seconds", "clock")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._seconds: deque[list[int]] = deque(maxlen=_KEPT)
        self._began = clock()

    def begin(self) -> None:
        """The first request is about to go out."""
        self._began = self.clock()

    def note(self) -> None:
        """Counts one prompt; this runs for each."""
        second = int(self.clock())
        seconds = self._seconds
        if seconds and seconds[-1][0] == second:
            seconds[-1][1] += 1
        else:
            seconds.append([second, 1])

    @property
    def per_s(self) -> float:
        """Prompts a second, lately; where nothing finishes any more it falls as time goes on."""
        now, count, since = self.clock(), 0, self._began
        for second, finished in reversed(self._seconds):
            count += finished
            if count >= _ENOUGH and now - second >= _LATELY_S:
                since = max(since, second)
                break
        else:
            if len(self._seconds) == _KEPT:
                since = max(since, self._seconds[0][0])
        return count / (now - since) if count and now > since else 0.0


def time_left_s(
    prompts: int, per_s: float, *, requests_each: float, most_per_s: float | None, wait_s: float, last_wait_s: float
) -> float | None:
    """Seconds until so many prompts are finished; None where that cannot be told.

    Args:
        per_s: Prompts that finish in a second, lately.
        requests_each: Attempts that a prompt takes, those that fail among them.
        most_per_s: Requests a second that the rate allows; None for any.
        wait_s: Seconds that the service asks to wait before anything else is sent.
        last_wait_s: Seconds until the last of the prompts that wait for their next attempt has it.
    """
    if prompts <= 0:
        return 0.0
    paces = [prompts / per_s] if per_s else []
    if most_per_s:
        paces.append(prompts * max(1.0, requests_each) / most_per_s)
    return max(wait_s + max(paces), last_wait_s) if paces else None
