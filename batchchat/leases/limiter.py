"""What a worker sees of limits that it shares with workers elsewhere: a ``Limiter`` that lives on leases."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from batchchat.durations import Rate
from batchchat.leases.line import Exchange, Line
from batchchat.leases.messages import Answer, Told
from batchchat.leases.stock import Right, Stock
from batchchat.leases.talk import Talk
from batchchat.limits import Limiter, Send
from batchchat.rate_headers import RateHeaders

__all__ = ["LeasedLimiter"]

_TICK_S = 0.001
_PATIENCE_S = 60.0
# What a service has left is told at once where it is less than this share, or than this number.
_LOW_SHARE, _LOW = 0.2, 50
# How late a request may come to the wire because of a busy loop; what takes longer is its connection.
_MOST_WAY_S = 0.1


class LeasedLimiter(Limiter):
    """Rates, tokens and pauses over all workers that ask the same desk; entered before the first request.

    A lease is the leave to send one request within some milliseconds. Whether the time is still right is asked once
    more when the request goes to the wire; if not, the lease goes back and another one is waited for.

    Args:
        exchange: Takes an ask to the desk and gives the answer; raises ``DeskAwayError``.
        failed: Called once with a sentence where the desk stays away; it must end the run, as nothing is sent then.
        notice: Called with a sentence worth telling.
        patience_s: How long the desk may be away.
        clock: Seconds; None for the loop's clock.
    """

    def __init__(
        self,
        rates: Sequence[Rate] = (),
        *,
        burst: int = 1,
        tokens_per_minute: int | None = None,
        exchange: Exchange,
        failed: Callable[[str], None],
        notice: Callable[[str], None] = lambda sentence: None,
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self.rates, self._burst = tuple(rates), burst
        self._limited = bool(rates) or tokens_per_minute is not None
        self._counts = tokens_per_minute is not None
        self._failed, self._notice = failed, notice
        if clock is not None:
            self._read_clock = clock
        self._line = Line(
            exchange,
            worker=secrets.token_hex(8),
            clock=self._now,
            taken=self._take_answer,
            away=self._break,
            figures=self._figures,
            patience_s=patience_s,
        )
        self._stock = Stock(self._unused)
        self._revision = 0
        self._desk: int | None = None
        self._desk_words: frozenset[str] = frozenset()
        self._talk = Talk(self._line, self._stock, self._now, lambda: self._revision)
        self._closed = False

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a token budget, the user's or the service's, so that requests have to be estimated."""
        return self._counts

    @property
    def free(self) -> bool:
        """Whether nothing limits or holds requests at the moment."""
        return not self._limited and not self._line.broken and super().free

    async def __aenter__(self) -> Self:
        await self._talk.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await self._talk.end()

    async def acquire(self, tokens: int = 0, still: Callable[[], bool] = lambda: True) -> Send | None:
        """See ``Limiter.acquire``; None also where the desk cannot be asked."""
        if not self._limited and not self._line.broken:
            return await super().acquire(tokens, still)
        self._waiting += 1
        try:
            right = await self._right(tokens, still)
            if right is not None:
                self.admitted += 1
                right.at, right.tokens = self._now(), float(tokens)
                self._holds.take_pass(right)
                self._history.note(right.at)
        finally:
            self._waiting -= 1
        if right is None and still() and not (self._limited or self._closed or self._line.broken):
            return await super().acquire(tokens, still)  # the limits were taken away meanwhile
        return right

    def begin(self, send: Send) -> None:
        """The lease stands; whether its time still is right is asked when the request goes to the wire."""
        if not isinstance(send, Right):
            super().begin(send)

    def sent(self, send: Send) -> Awaitable[None] | None:
        """The request goes to the wire now, or, if its lease is not good any more, when what is returned is done."""
        if not isinstance(send, Right):
            return super().sent(send)
        if send.leaving or send.landed:  # it is written a second time
            self._landed(send, send.number)
            self._tell_later("over", send.number)
            return self._sent_later(send)
        if (late_s := self._now() - send.begins) < _MOST_WAY_S:
            self._line.late(late_s)
        if self._usable(send, send):
            self._leaves(send)
            return None
        self._stock.give_back(send)
        return self._sent_later(send)

    async def _sent_later(self, send: Right) -> None:
        if (right := await self._right(int(send.tokens), lambda: True, again=send)) is not None:
            send.renew(right)
            self._stock.use(right)
            self._leaves(send)

    def left(self, send: Send) -> None:
        """The request is over, whether it ever came to the wire or not."""
        if not isinstance(send, Right):
            super().left(send)
            return
        self._holds.left(send)
        if send.leaving:
            self._landed(send, send.number)
        if send.landed:
            self._tell_later("over", send.number)
        else:
            self._stock.give_back(send)

    def correct(self, send: Send, tokens: int) -> None:
        """Replaces the estimated tokens of a request by what the service counted."""
        if isinstance(send, Right) and send.leased != tokens and self._counts:
            send.leased = tokens
            self._tell_later("tokens", send.number, tokens)

    def observed(self, send: Send, told: RateHeaders) -> str | None:
        """Tells the desk, which knows what all send; what the user has to know is told where the run is steered."""
        number = send.number if isinstance(send, Right) else 0
        quotas = [quota for quota in (told.requests, told.tokens) if quota is not None]
        low = any(quota.remaining < max(_LOW, _LOW_SHARE * (quota.limit or 0)) for quota in quotas)
        self._line.reports.told(Told(number, told))
        self._talk.tell(urgent=low)
        return None

    def pause(self, seconds: float) -> bool:
        """Holds every request of every worker back; see ``Limiter.pause``."""
        longer = super().pause(seconds)
        if longer:
            self._stock.drop()
            self._line.reports.pause(self._now() + seconds)
            self._talk.tell(urgent=True)
        return longer

    def set_rates(self, rates: Sequence[Rate]) -> None:
        """Asks the desk for other rates, for all."""
        self._line.reports.rates(tuple(rates))
        self._talk.tell(urgent=True)

    def _figures(self) -> dict[str, Any]:
        return {"admitted": self.admitted, "waiting": self._waiting}

    def _unused(self, number: int) -> None:
        self._tell_later("unused", number)

    def _tell_later(self, what: str, *values: int) -> None:
        getattr(self._line.reports, what)(*values)
        self._talk.tell()

    async def _right(self, tokens: int, still: Callable[[], bool], *, again: Right | None = None) -> Right | None:
        """The next lease, when its time has come; None where none is needed or can be used any more.

        Args:
            again: The request that wants it, where it was let out already: it goes first, with the pass that it has.
        """
        since, first = self._now(), again is not None
        while self._limited and not self._line.broken and not self._closed and still():
            if not self._holds.lets(again):
                self._moved.clear()
                await self._moved.wait()  # whoever holds it releases it, or the run stops
                since = self._now()
                continue
            since = max(since, min(self._paused_until, self._now()))
            self._talk.want()
            right = await self._stock.wait(tokens, since, still, first=first)
            first = True
            if right is None or not await self._until(right, again):
                continue
            if not still():
                self._stock.give_back(right)
                return None
            if self._counts and tokens != right.leased:
                right.leased = tokens
                self._tell_later("tokens", right.number, tokens)
            return right
        return None

    async def _until(self, right: Right, again: Right | None) -> bool:
        """Waits for a lease's time; whether the request can use it. Where not, it is given back."""
        aimed = max(right.begins, self._now())
        try:
            # The time is known; a timer may only be a little early.
            while (wait_s := right.begins - self._now()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(max(_TICK_S, wait_s))
        except BaseException:
            self._stock.give_back(right)
            raise
        self._line.late(self._now() - aimed)
        if not self._usable(right, again):
            self._stock.give_back(right)
            return False
        return True

    def _usable(self, right: Right, send: Right | None) -> bool:
        now = self._now()
        held = not self._holds.lets(send) or now < self._paused_until
        return self._stock.has(right) and not held and right.begins <= now <= right.ends

    def _leaves(self, send: Right) -> None:
        """It is written within this turn of the loop and the next; then it has landed."""
        self._holds.take_pass(send)  # it may have been let out before there was a hold
        self._stock.use(send)
        send.leaving, loop = True, asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._landed, send, send.number)

    def _landed(self, send: Right, number: int) -> None:
        if send.number != number or send.landed:
            return
        send.leaving, send.landed, send.at = False, True, self._now()
        self._line.reports.sent(number, send.at - send.ends)
        self._talk.tell(urgent=send.at > send.ends)

    def _take_answer(self, answer: Answer) -> None:
        self._talk.heard(answer)
        if answer.desk != self._desk:
            self._stock.forget()
        if answer.desk != self._desk or answer.revision > self._revision:
            self._desk, self._revision = answer.desk, answer.revision
            self._take_news(answer)
        self._stock.add(answer.leases, self._line.clock_map, self._now())

    def _take_news(self, answer: Answer) -> None:
        """What holds for everybody."""
        self._stock.drop(answer.void_before)
        self._limited, self._counts = answer.limited, answer.counts_tokens
        self.rates = answer.rates
        if not self._limited:
            self._stock.send_away()  # they need no lease any more
        if answer.pause_s > self.paused_s:
            super().pause(answer.pause_s)
        words = frozenset(answer.holds)
        for word in words - self._desk_words:
            self._holds.add(word)
        for word in self._desk_words - words:
            super().release(word)
        self._desk_words = words

    def _break(self, sentence: str) -> None:
        """The desk stays away: sending without it could break the limit."""
        self._failed(sentence)
        self._stock.send_away()
        self._moved.set()
