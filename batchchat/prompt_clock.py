"""One prompt's own deadline, which does not run while the run is held up."""

from types import TracebackType

from batchchat.limits import Limiter
from batchchat.patience import PatientTimeout

__all__ = ["PromptClock"]

_LEAST_S = 0.001


class PromptClock(PatientTimeout):
    """A time-out around a prompt's attempts and waits; raises ``TimeoutError`` where it is over.

    Args:
        seconds: How long the prompt may take from ``start`` on.
        limiter: Knows for how long the run was held up; that time does not count.
    """

    __slots__ = ("_began_at", "_held_before_s", "_limiter", "_over", "_seconds")

    def __init__(self, seconds: float, limiter: Limiter) -> None:
        super().__init__(None)
        self._seconds, self._limiter = seconds, limiter
        self._over = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        await super().__aexit__(kind, error, trace)

    def start(self) -> None:
        """Begins to count."""
        self._began_at, self._held_before_s = self._loop.time(), self._limiter.held_s
        self.reschedule(self._began_at + self._seconds)

    def _fire(self, due: float) -> None:
        """Ends the prompt, or waits for what is left of its time: that of holds, once they are over."""
        if self._limiter.holds:
            self._limiter.when_released(self._go_on)
            return
        now = self._loop.time()
        counted_s = now - self._began_at - (self._limiter.held_s - self._held_before_s) - self.held_s
        if self._seconds - counted_s < _LEAST_S:
            super()._fire(due)
        else:
            self.reschedule(now + self._seconds - counted_s)

    def _go_on(self) -> None:
        if not self._over:
            self._fire(self._loop.time())
