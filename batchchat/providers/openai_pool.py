"""Which endpoint gets the next request: by weight, none that fails, and none that the service wants left alone."""

import asyncio
from collections.abc import Callable, Collection, Sequence

from batchchat.errors import ProviderError, provider_error
from batchchat.providers.openai_endpoint import Endpoint

__all__ = ["EndpointPool"]

_FAILURES_IN_A_ROW = 5
_REFUSALS_IN_A_ROW = 3
_LONGEST_PAUSE_S = 60.0
_LONGEST_EXHAUSTION_S = 300.0
_FAILING = ("network", "timeout", "server", "rate_limit", "incomplete", "protocol")
# Not about the model that a line may have named.
_ABOUT_ENDPOINT = ("auth", "blocked", "quota", "network")


class _State:
    """What one endpoint has done lately.

    Attributes:
        balance: Of the smooth weighted round robin (as nginx has it): weights add to it, a turn takes from it.
        failures: Attempts in a row that failed.
        pauses: Times in a row that it was set aside.
        aside_until: Loop time until which it gets nothing.
        asked: Whether it asked for that itself.
        on_trial, trying: Whether it may get one request only, and whether that is on its way.
        out: Why it is left out for the rest of the run.
    """

    __slots__ = (
        "aside_until", "asked", "balance", "endpoint", "failures", "on_trial", "out", "pauses", "refusals", "trying",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.balance = self.failures = self.pauses = self.refusals = 0
        self.aside_until = 0.0
        self.asked = self.on_trial = self.trying = False
        self.out: ProviderError | None = None

    def open(self, now: float) -> bool:
        """Whether it may get a request now."""
        return self.out is None and self.aside_until <= now and not self.trying


class EndpointPool:
    """The endpoints of a run; with a single one it only ever gives that one, and leaves its errors as they are."""

    def __init__(self, endpoints: Sequence[Endpoint], notice: Callable[[str, int], None]) -> None:
        self._states = [_State(endpoint) for endpoint in endpoints]
        self._by_endpoint = {state.endpoint: state for state in self._states}
        self._notice = notice
        self._single = len(endpoints) == 1
        self._changed = asyncio.Event()

    def ready(self) -> bool:
        """Whether ``pick`` has something to say at once: an endpoint, or that there is none any more."""
        if self._single:
            return True
        now = asyncio.get_running_loop().time()
        return bool(self._open_states(now)) or all(state.out for state in self._states)

    def pick(self, avoided: Collection[Endpoint]) -> Endpoint | None:
        """The endpoint of the next request, none of ``avoided`` if possible; None while all are set aside.

        Raises:
            ProviderError: All are out; it is what the last one met.
        """
        if self._single:
            return self._states[0].endpoint
        now = asyncio.get_running_loop().time()
        opened = self._open_states(now)
        if not opened:
            self._raise_if_out()
            return None
        chosen = self._next_turn([state for state in opened if state.endpoint not in avoided] or opened)
        chosen.trying = chosen.on_trial
        return chosen.endpoint

    async def opened(self) -> None:
        """Waits until it may be worth to ``pick`` again."""
        now = asyncio.get_running_loop().time()
        times = [state.aside_until for state in self._states if state.out is None and state.aside_until > now]
        self._changed.clear()
        try:
            async with asyncio.timeout_at(min(times) if times else None):
                await self._changed.wait()
        except TimeoutError:
            return

    def answering(self, endpoint: Endpoint) -> None:
        """An answer has begun; whoever waited for the trial of its endpoint need not wait for its end."""
        state = self._by_endpoint[endpoint]
        state.on_trial = False
        self.left(endpoint)

    def succeeded(self, endpoint: Endpoint) -> None:
        """A request was answered, be it with a refusal of this one prompt."""
        state = self._by_endpoint[endpoint]
        state.failures = state.pauses = state.refusals = 0
        state.on_trial = False

    def left(self, endpoint: Endpoint) -> None:
        """A request is over, whatever came of it."""
        state = self._by_endpoint[endpoint]
        if state.trying:
            state.trying = False
            self._changed.set()

    def failed(self, endpoint: Endpoint, error: ProviderError, *, model_named: bool) -> bool:
        """Notes a failed attempt, and makes the error one of the whole service, not of this endpoint.

        Args:
            model_named: Whether the prompt named its model itself, so that a model that is not there is its own fault.

        Returns:
            Whether another endpoint should be asked at once, as this one would refuse any prompt.
        """
        if self._single:
            return False
        state = self._by_endpoint[endpoint]
        if error.stops_run:
            return self._refused(state, error, model_named=model_named)
        if error.type not in _FAILING:
            self.succeeded(endpoint)
            return False
        state.failures += 1
        now = asyncio.get_running_loop().time()
        if error.retry_after_s:
            self._set_aside(state, error.retry_after_s, now, asked=True, why=error)
        elif (state.failures >= _FAILURES_IN_A_ROW or state.on_trial) and state.aside_until <= now:
            pause_s = min(_LONGEST_PAUSE_S, 2.0**state.pauses)
            state.pauses = min(state.pauses + 1, 10)
            self._set_aside(state, pause_s, now, asked=False, why=error)
        error.retry_after_s = self._asked_wait_s(now)
        return False

    def exhausted(self, endpoint: Endpoint, wait_s: float) -> None:
        """The endpoint says that it takes no more for ``wait_s`` seconds; a wait beyond minutes is left to its 429."""
        if not self._single and 0 < wait_s <= _LONGEST_EXHAUSTION_S:
            state = self._by_endpoint[endpoint]
            state.aside_until = max(state.aside_until, asyncio.get_running_loop().time() + wait_s)
            state.asked = True

    def _open_states(self, now: float) -> list[_State]:
        """The endpoints that may get a request now.

        Where all that are left fail by themselves, that is the one whose pause ends first: prompts then fail after
        their retries, as they do with a single service, and do not wait for each other's trials.
        """
        opened = [state for state in self._states if state.open(now)]
        left = [state for state in self._states if state.out is None]
        failing = [state for state in left if not state.asked]
        if opened or not failing or any(state.aside_until <= now for state in left):  # the latter are being tried
            return opened
        return [min(failing, key=lambda state: state.aside_until)]

    def _next_turn(self, states: Sequence[_State]) -> _State:
        for state in states:
            state.balance += state.endpoint.weight
        chosen = max(states, key=lambda state: state.balance)
        chosen.balance -= sum(state.endpoint.weight for state in states)
        return chosen

    def _refused(self, state: _State, error: ProviderError, *, model_named: bool) -> bool:
        state.refusals += 1
        about_endpoint = error.type in _ABOUT_ENDPOINT or not model_named
        if state.out is None and (about_endpoint or state.refusals >= _REFUSALS_IN_A_ROW):
            state.out = error
            self._changed.set()
            self._notice(
                f"{state.endpoint.label} is left out for the rest of this run: {error.type}: {error.message}", 0
            )
        return any(other.out is None for other in self._states if other is not state)

    def _set_aside(self, state: _State, seconds: float, now: float, *, asked: bool, why: ProviderError) -> None:
        until = now + seconds
        if until <= state.aside_until:
            return
        if state.aside_until <= now:
            self._notice(f"{state.endpoint.label} is set aside for {seconds:.3g} s: {why.type}: {why.message}", 1)
        state.aside_until, state.asked = until, asked
        state.on_trial = True

    def _asked_wait_s(self, now: float) -> float | None:
        """Seconds that the whole run has to wait, as every endpoint that is left asked for it; None for none."""
        left = [state for state in self._states if state.out is None]
        if not left or any(state.aside_until <= now or not state.asked for state in left):
            return None
        return min(state.aside_until for state in left) - now

    def _raise_if_out(self) -> None:
        errors = [state.out for state in self._states if state.out is not None]
        if len(errors) == len(self._states):
            last = errors[-1]
            raise provider_error(last.type, last.message, status=last.status, stops_run=True)
