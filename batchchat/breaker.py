"""Circuit breaker: while the service is dead the run waits, and one request at a time finds out when it is back."""

import asyncio
import random
from collections.abc import Callable
from typing import Literal, Self

from batchchat.durations import render_duration
from batchchat.errors import ProviderError
from batchchat.limits import Limiter
from batchchat.observer import HoldObserver
from batchchat.run_settings import BreakerConfig

__all__ = ["Breaker"]

_WORD = "breaker"
# What stands before a service says these in its place; 500 is the service's own, and may be for one prompt alone.
_GATEWAY = frozenset((502, 503, 504, *range(520, 531)))
_FIRST_PROBE_S, _LONGEST_PROBE_S = 1.0, 60.0
_JITTER = 0.1
# Failures in a row, without an answer between them, that end a trial: one alone may be the prompt's own.
_TRIAL_FAILURES = 3
# A run with few slots meets few failures before its prompts have used up their attempts.
_FAILURES_PER_SLOT = 10


class Breaker:
    """Counts attempts that say that the service is dead; opens, probes, and closes again.

    ``closed``: everything goes out. ``open``: nothing does but one probe at a time, a waiting prompt's own attempt.
    ``trial``, after the first sign of life: each answer lets two more out, until as many were answered as there are
    slots. What fails while it is not closed counts against no prompt.

    Args:
        slots: Prompts that may be in flight.
        give_up: Told in a sentence that the service was dead for longer than the user allows.
    """

    def __init__(
        self,
        settings: BreakerConfig,
        limiter: Limiter,
        observer: HoldObserver,
        *,
        slots: int,
        give_up: Callable[[str], None],
    ) -> None:
        self._settings, self._limiter, self._observer = settings, limiter, observer
        self._slots, self._give_up = slots, give_up
        self._most = min(settings.failures, _FAILURES_PER_SLOT * slots)
        self._state: Literal["closed", "open", "trial"] = "closed"
        self._row = 0
        self._row_since = self._outage_s = self._counted_at = self._began_at = 0.0
        self._delay_s = _FIRST_PROBE_S
        self._probing = False
        self._answers = 0
        self._last: ProviderError | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._disarm()

    def alive(self) -> None:
        """Notes an answer, or an error that only a service at work gives."""
        self._row = 0
        if self._state == "open":
            self._try_out()
        elif self._state == "trial":
            self._answers += 1
            if self._answers >= self._slots:
                self._close()
            else:
                self._limiter.let_through(2)

    def failed(self, error: ProviderError) -> bool:
        """Notes a failed attempt; whether it does not count against its prompt, which may be sent again at once."""
        if not self._most:
            return False
        if not is_dead(error):
            if self._state != "closed" or error.type != "server":
                self.alive()
            return False
        now = asyncio.get_running_loop().time()
        if not self._row:
            self._row_since = now
        self._row += 1
        self._last = error
        if self._state == "closed":
            if self._row < self._most or now - self._row_since < self._settings.after_s:
                return False
            self._began_at = self._row_since
            self._open(0)
        elif self._state == "trial":
            if self._row >= _TRIAL_FAILURES:
                self._open(1)
            else:
                self._limiter.let_through(1)
        elif self._probing and not self._limiter.through:  # else it went out before, and tells nothing new
            self._limiter.let_none_through()
            self._probing = False
            self._count_outage()
            self._arm(self._next_delay_s())
        return True

    def _open(self, level: int) -> None:
        self._state, self._probing = "open", False
        self._limiter.hold(_WORD)
        self._limiter.let_none_through()
        self._outage_s, self._counted_at = 0.0, asyncio.get_running_loop().time()
        self._delay_s = _FIRST_PROBE_S
        self._observer.run_held(_WORD, "waiting for the service, which does not answer (--max-outage)")
        cause = "" if self._last is None else f": {self._last.type}: {self._last.message}"
        self._observer.notice(f"the service does not answer; waiting, and asking from time to time{cause}", level)
        self._arm(self._next_delay_s())

    def _try_out(self) -> None:
        """The service is back, or seems so."""
        self._state, self._answers = "trial", 1
        self._disarm()
        self._limiter.let_none_through()
        self._observer.run_held(_WORD, None)
        self._observer.notice("the service answers again; sending more with each answer", 1)
        if self._slots <= 1:
            self._close()
        else:
            self._limiter.let_through(2)
            self._arm(_LONGEST_PROBE_S)

    def _close(self) -> None:
        self._state = "closed"
        self._disarm()
        self._limiter.let_none_through()
        self._limiter.release(_WORD)
        outage_s = asyncio.get_running_loop().time() - self._began_at
        self._observer.notice(f"the service answers again after {render_duration(outage_s)}; going on", 0)

    def _look(self) -> None:
        """Lets a probe out, gives up, or looks again."""
        self._count_outage()
        most_s = self._settings.max_open_s
        if self._state == "open" and most_s and self._outage_s >= most_s:
            cause = "" if self._last is None else f": {self._last.type}: {self._last.message}"
            waited = render_duration(self._outage_s)
            self._give_up(f"the service has not answered for {waited} (--max-outage){cause}")
            return
        # One that was let through and never told anything, as its prompt was given up, is replaced.
        if not self._limiter.through:
            self._limiter.let_none_through()
            self._limiter.let_through(1)
        self._probing = True
        self._arm(_LONGEST_PROBE_S)

    def _count_outage(self) -> None:
        """Adds the time since the last count, unless something else held the run up: then nobody could ask."""
        now = asyncio.get_running_loop().time()
        if self._limiter.holds == {_WORD}:
            self._outage_s += now - self._counted_at
        self._counted_at = now

    def _next_delay_s(self) -> float:
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, _LONGEST_PROBE_S)
        return delay_s * random.uniform(1 - _JITTER, 1 + _JITTER)

    def _arm(self, wait_s: float) -> None:
        self._disarm()
        if self._state == "open" and self._settings.max_open_s:
            wait_s = min(wait_s, max(0.001, self._settings.max_open_s - self._outage_s))
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def is_dead(error: ProviderError) -> bool:
    """Whether an attempt met no service: no connection, a time-out, or a gateway that speaks for it.

    An HTTP 500 is none of these. Prompts that a service fails on each time may be all that is left of an input; a run
    that took that for an outage would wait for nothing.
    """
    if error.stops_run or error.retry_limit is not None:
        return False
    return error.type in ("network", "timeout") or (error.type == "server" and error.status in _GATEWAY)
