"""How many requests went out when, roughly and in little memory, for a rate that is set while the run goes on."""

from collections import deque
from collections.abc import Iterator

__all__ = ["SentHistory"]

# Single seconds for an hour, whole minutes for a day: no rate has a longer window.
_SECONDS, _MINUTES = 3700, 1500
_MINUTE_S = 60


class SentHistory:
    """Counts of requests by the second, older ones by the minute; times are the event loop's, in seconds."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        self._minutes: deque[list[int]] = deque(maxlen=_MINUTES)

    def note(self, now: float, count: int = 1) -> None:
        """Counts one request, or more; no earlier ones than before."""
        slot = int(now)
        seconds = self._seconds
        if seconds and seconds[-1][0] >= slot:
            seconds[-1][1] += count
            return
        seconds.append([slot, count])
        if len(seconds) > _SECONDS:
            second, count = seconds.popleft()
            minute = second // _MINUTE_S
            if self._minutes and self._minutes[-1][0] == minute:
                self._minutes[-1][1] += count
            else:
                self._minutes.append([minute, count])

    def latest(self, now: float, within_s: float) -> Iterator[float]:
        """Times of the requests of the last seconds, the newest first, each as late as it can have been."""
        for slots, size in ((self._seconds, 1), (self._minutes, _MINUTE_S)):
            for slot, count in reversed(slots):
                at = min(now, (slot + 1.0) * size)
                if at <= now - within_s:
                    return
                for _ in range(count):
                    yield at

    def before(self, newest: int) -> list[tuple[float, int]]:
        """All requests but so many of the newest: how many, each time as late as it can have been, the oldest first."""
        found = []
        for slots, size in ((self._seconds, 1), (self._minutes, _MINUTE_S)):
            for slot, count in reversed(slots):
                passed = min(count, newest)
                newest -= passed
                if count > passed:
                    found.append(((slot + 1.0) * size, count - passed))
        return found[::-1]

    def per_s(self, now: float, within_s: int) -> float:
        """Requests a second over the last whole seconds, this many or as many as there were since the first."""
        slot, found = int(now), 0
        if not self._seconds or self._seconds[0][0] == slot:
            return 0.0
        for second, count in reversed(self._seconds):
            if second < slot - within_s:
                break
            if second < slot:
                found += count
        return found / min(within_s, slot - self._seconds[0][0])
