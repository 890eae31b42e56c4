"""What a run sees of the limits that all processes share: a ``Limiter`` whose windows lie in the shared file."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from batchchat.durations import Rate
from batchchat.errors import ConfigError
from batchchat.hostlimits.access import LedgerAccess
from batchchat.hostlimits.ledger import Later, Ledger, Start
from batchchat.limits import Limiter, Send
from batchchat.quota_pace import QuotaPace

__all__ = ["HostLimiter"]

_TICK_S = 0.001


class _HostSend(Send):
    """A request and its number in the shared file; ``leaving`` from before it is written until it was.

    It may be ``over`` before it may leave, where another process was to write it.
    """

    __slots__ = ("landed", "leaving", "over", "seq")

    def __init__(self, at: float, tokens: int, seq: int) -> None:
        super().__init__(at, tokens)
        self.seq, self.leaving, self.landed, self.over = seq, False, False, False


class HostLimiter(Limiter):
    """Rates, tokens and pauses over all processes of this user on this machine; entered before the first request.

    Args:
        folder: See ``limits_folder``.
        service: Gives what stands for the service and the key, once the key is known; see ``service_digest``.
        failed: Called once with a sentence where the shared file cannot be used any more; it must end the run, as
            nothing may be sent then.
        notice: Called with a sentence worth telling.
        clock: One for all processes of the machine.
    """

    def __init__(
        self,
        rates: Sequence[Rate] = (),
        *,
        burst: int = 1,
        tokens_per_minute: int | None = None,
        folder: Path,
        service: Callable[[], str],
        failed: Callable[[str], None],
        notice: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._quota = QuotaPace(spread=not rates)
        self.rates, self._burst, self._per_minute = tuple(rates), burst, tokens_per_minute
        self._changed = asyncio.Event()
        self._folder, self._service = folder, service
        self._failed, self._notice, self._clock = failed, notice, clock
        self._access: LedgerAccess | None = None
        self._paused_as_told = 0.0

    @property
    def counts_tokens(self) -> bool:
        """Always: another process may have a budget for them."""
        return True

    @property
    def free(self) -> bool:
        """Never: what other processes do counts."""
        return False

    async def __aenter__(self) -> Self:
        ledger = Ledger(
            self._folder,
            self._service(),
            self.rates,
            burst=self._burst,
            tokens_per_minute=self._per_minute,
            clock=self._clock,
            tell=self._notice,
        )
        try:
            await asyncio.to_thread(ledger.open)
        except OSError as error:
            raise ConfigError(
                f"rate_scope: host keeps what all runs share in {self._folder}, which cannot be used "
                f"({error.strerror or error}); make that folder writable, or use --rate-scope run"
            ) from error
        self._access = LedgerAccess(ledger, self._break, self._notice)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (access := self._access) is not None:
            self._access = None
            await access.close()

    async def acquire(self, tokens: int = 0, still: Callable[[], bool] = lambda: True) -> Send | None:
        """See ``Limiter.acquire``; None also where the shared file cannot be used."""
        self._waiting += 1
        try:
            while still() and not self._entered.broken:
                async with self._turn:  # only until a time is reserved, so that one late timer delays no other request
                    await self._wait_open(tokens)
                    start = await self._reserve(tokens) if still() else None
                if start is None:
                    return None
                await self._until(start)
                if self._holds.blocks or self._now() < self._paused_until or not still():
                    self._give_back(start.seq)
                    continue
                self.admitted += 1
                send = _HostSend(self._now(), tokens, start.seq)
                self._holds.take_pass(send)
                self._history.note(send.at)
                self._quota.sent(send, tokens, send.at)
                return send
            return None
        finally:
            self._waiting -= 1

    def begin(self, send: Send) -> None:
        """The reservation stands; whether it still does is asked when the request goes to the wire."""

    def sent(self, send: Send) -> Awaitable[None] | None:
        """The request goes to the wire now, or, if it took too long to come here, when what is returned is done."""
        if not isinstance(send, _HostSend) or send.over:
            return None
        if send.leaving or send.landed:  # it is written a second time
            return self._sent_again(send)
        if self._entered.now(lambda ledger: ledger.leave(send.seq)):
            self._leaves(send)
            return None
        return self._sent_later(send)

    async def _sent_again(self, send: _HostSend) -> None:
        self._land_now(send, send.seq)
        if await self._another_time(send):
            await self._sent_later(send)

    async def _sent_later(self, send: _HostSend) -> None:
        access = self._entered
        while not access.broken:
            if await access.locked(lambda ledger: ledger.leave(send.seq)):
                self._leaves(send)
                return
            if not await self._another_time(send):
                return

    async def _another_time(self, send: _HostSend) -> bool:
        """Reserves one and waits for it; whether the request still needs it."""
        if (again := await self._reserve(int(send.tokens))) is None:
            return False
        await self._until(again)
        if send.over:
            self._give_back(again.seq)
            return False
        send.seq, send.leaving, send.landed = again.seq, False, False
        return True

    def written(self, send: Send) -> None:
        """The request has been written: it has landed."""
        if isinstance(send, _HostSend) and send.leaving:
            self._land_now(send, send.seq)

    def left(self, send: Send) -> None:
        """The request is over, whether it ever came to the wire or not."""
        self._quota.left(send)
        self._holds.left(send)
        if self._quota.active:
            self._moved.set()
        if not isinstance(send, _HostSend):
            return
        send.over = True
        if send.landed:
            return
        if send.leaving:
            self._land_now(send, send.seq)
        else:
            send.landed = True
            self._give_back(send.seq)

    def correct(self, send: Send, tokens: int) -> None:
        """Replaces the estimated tokens of a request by what the service counted."""
        if isinstance(send, _HostSend) and send.tokens != tokens and self._access is not None:
            send.tokens = float(tokens)
            self._access.ledger.correct(send.seq, tokens)
            self._access.flush_soon()
            self._moved.set()

    def pause(self, seconds: float) -> bool:
        """Holds every request of every process back; see ``Limiter.pause``."""
        longer = super().pause(seconds)
        if longer and (access := self._access) is not None:
            self._paused_as_told = max(self._paused_as_told, access.ledger.clock() + seconds)
            access.ledger.pause(seconds)
            access.flush()
        return longer

    def set_rates(self, rates: Sequence[Rate]) -> None:
        """Other rates from now on, for this run; what was sent before, by any run, counts."""
        self.rates = tuple(rates)
        if self._access is not None:
            self._access.run(self._set_rates)

    def _set_rates(self, ledger: Ledger) -> None:
        ledger.set_rates(self.rates, burst=self._burst, tokens_per_minute=self._per_minute)
        self._changed.set()
        self._moved.set()

    @property
    def _entered(self) -> LedgerAccess:
        if self._access is None:
            raise RuntimeError("the limiter is used outside its 'async with'")
        return self._access

    async def _reserve(self, tokens: int) -> Start | None:
        """The time of one more request, as soon as one can be reserved; None where the file cannot be used."""
        access = self._entered
        while not access.broken:
            made: list[Start] = []
            wanted = [True]

            def reserve(ledger: Ledger, made: list[Start] = made, wanted: list[bool] = wanted) -> Start | Later | None:
                found = ledger.reserve(tokens) if wanted else None
                if isinstance(found, Start):
                    made.append(found)
                return found

            try:
                found = await access.locked(reserve)
                self._look(access)
            except BaseException:
                wanted.clear()  # the lock may still be waited for
                for start in made:
                    self._give_back(start.seq)
                raise
            if isinstance(found, Start):
                return found
            if found is not None:
                await self._wait(found)
        return None

    async def _until(self, start: Start) -> None:
        """Waits for a reserved time, which is given back where the wait is given up."""
        clock = self._entered.ledger.clock
        try:
            # The time is known; a timer may only be a little early.
            while (wait_s := start.at - clock()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(max(_TICK_S, wait_s))
        except BaseException:
            self._give_back(start.seq)
            raise

    async def _wait(self, later: Later) -> None:
        wait_s = max(_TICK_S, later.at - self._entered.ledger.clock())
        change = self._changed if later.certain else self._moved
        change.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await change.wait()

    def _look(self, access: LedgerAccess) -> None:
        """What others told: a pause for everybody. And whether the file should be made smaller."""
        ledger = access.ledger
        if ledger.paused_until > self._paused_as_told:
            self._paused_as_told = ledger.paused_until
            if (seconds := ledger.paused_until - ledger.clock()) > 0:
                super().pause(seconds)
        access.fold_if_due()

    def _leaves(self, send: _HostSend) -> None:
        """Here it is written within this turn of the loop and the next; then it has landed."""
        send.leaving = True
        if send.over:  # while the file was waited for: nobody is left to tell that it was written
            send.landed = False
            self._land_now(send, send.seq)
        elif not send.elsewhere:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._land_now, send, send.seq)

    def _land_now(self, send: _HostSend, seq: int) -> None:
        if send.seq == seq and not send.landed and self._access is not None:
            send.landed = True
            send.at = self._now()
            self._access.ledger.land(send.seq)
            self._access.flush_soon()
            self._moved.set()

    def _give_back(self, seq: int) -> None:
        if self._access is not None:
            self._access.ledger.free(seq)
            self._access.flush_soon()

    def _break(self, error: OSError) -> None:
        """The shared file cannot be used: sending without it could break the limit."""
        self._failed(
            f"the limits shared by runs on this machine cannot be kept in {self._folder} "
            f"({error.strerror or error}); make room or make it writable, or use --rate-scope run"
        )
        self._moved.set()
        self._changed.set()
