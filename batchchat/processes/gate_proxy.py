"""What a provider in a child has for the run's gate: it asks the parent, unless a request came with its leave.

Of a request that came with leave, nobody waits for the word that it went to the wire or is over: as a rule the end of
its attempt tells both, and a timer where that takes longer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from batchchat.admission import Abandoned
from batchchat.processes.messages import (
    ABANDONED,
    GO,
    Admit,
    Begun,
    Ended,
    Left,
    Observed,
    Sent,
    Unused,
    Withdraw,
    Written,
)
from batchchat.providers.base import always
from batchchat.rate_headers import RateHeaders

__all__ = ["GateProxy", "Pending"]

# What nobody waits for may be told so late.
_LATEST_S = 0.05


class Pending:
    """One attempt that the parent asked for, or a task of the provider's own that sends requests.

    Attributes:
        task: The task that makes the attempt.
        let_out: Whether a request may go out that has not been sent; it must be used at once, or it is void.
        begun: Whether a request is on its way.
        expected: Whether the parent takes that for granted.
        reply: What the parent's word is awaited by.
        patient: Whether the parent can wait for what becomes of the request.
        gone: Whether a request has gone to the wire and the parent does not know.
        over: Whether one is over and the parent does not know.
        started: Whether the task has had its first turn.
        writes: How often a request was to go to the wire, where the parent has the last word.
    """

    __slots__ = (
        "begun",
        "expected",
        "gone",
        "let_out",
        "number",
        "over",
        "patient",
        "reply",
        "started",
        "still",
        "task",
        "writes",
    )

    task: asyncio.Task[Any]

    def __init__(self, number: int, *, let_out: bool) -> None:
        self.number = number
        self.let_out = self.expected = self.patient = let_out
        self.begun = self.gone = self.over = self.started = False
        self.writes = 0
        self.reply: asyncio.Future[int] | None = None
        self.still: Callable[[], bool] = always


class _Pendings(dict[asyncio.Task[Any], Pending]):
    """The attempts by their tasks; a task that has none gets one of its own."""

    def __init__(self, make: Callable[[asyncio.Task[Any]], Pending]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, task: asyncio.Task[Any]) -> Pending:
        return self._make(task)


class GateProxy:
    """See ``Gate``.

    Args:
        tell: Sends a message to the parent.
        ask_before_sending: Whether the parent has the last word right before a request goes to the wire.
        tell_at_once: Whether the parent watches what becomes of each request.
    """

    def __init__(self, tell: Callable[[Any], None], *, ask_before_sending: bool, tell_at_once: bool = False) -> None:
        self._tell, self._ask_before_sending = tell, ask_before_sending
        self._tell_at_once = tell_at_once or ask_before_sending
        self._loop = asyncio.get_running_loop()
        self._pending = _Pendings(self._own_pending)
        self._by_number: dict[int, Pending] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._own = 0
        self.closed = False

    def enter(self, task: asyncio.Task[Any], pending: Pending) -> None:
        """The task makes this attempt from now on."""
        pending.task = task
        self._pending[task] = self._by_number[pending.number] = pending

    def leave(self, pending: Pending) -> None:
        """The attempt is over; what the parent does not know of it is told by its end."""
        if self._pending.pop(pending.task, None) is not None:
            del self._by_number[pending.number]

    def attempt(self, number: int) -> Pending | None:
        """The attempt with this number; None for one that is over."""
        return self._by_number.get(number)

    @property
    def attempts_left(self) -> bool:
        """Whether there is anything on its way, or to be sent."""
        return bool(self._by_number)

    @property
    def attempts(self) -> list[asyncio.Task[Any]]:
        """The tasks that make the parent's attempts."""
        return [pending.task for number, pending in self._by_number.items() if number > 0]

    async def admit(self, still: Callable[[], bool] = always) -> None:
        """See ``Gate``."""
        if self.closed:
            raise Abandoned
        pending = self._pending[self._task()]
        if pending.let_out:
            pending.let_out = False
            return
        pending.still, pending.patient = still, False
        self._catch_up(pending)
        self._tell(Admit(pending.number))
        await self._word(pending)

    def begin(self, task: asyncio.Task[Any]) -> None:
        """See ``Gate``."""
        pending = self._pending[task]
        pending.begun = True
        if not pending.expected:
            self._tell(Begun(pending.number))

    def sent(self, task: asyncio.Task[Any]) -> Awaitable[None] | None:
        """See ``Gate``."""
        if self.closed:
            raise Abandoned
        pending = self._pending[task]
        if pending.patient and not self._tell_at_once:
            pending.gone = True
            self._tell_later()
            return None
        self._tell(Sent(pending.number))
        if not self._ask_before_sending:
            return None
        pending.writes += 1
        return self._leave_to_send(pending)

    async def _leave_to_send(self, pending: Pending) -> None:
        """Waits for the parent's last word, and tells when the request has been written."""
        await self._word(pending)
        # It is written within this turn of the loop and the next.
        self._loop.call_soon(self._loop.call_soon, self._written, pending, pending.writes)

    def _written(self, pending: Pending, write: int) -> None:
        current = write == pending.writes  # else its connection was of no use, and it is written again
        if current and pending.begun and self._by_number.get(pending.number) is pending:
            self._tell(Written(pending.number))

    def left(self, task: asyncio.Task[Any]) -> None:
        """See ``Gate``."""
        pending = self._pending[task]
        pending.begun = pending.expected = False
        if pending.patient and not self._tell_at_once:
            pending.over = True
            self._tell_later()
        else:
            self._tell(Left(pending.number))

    def observed(self, told: RateHeaders) -> str | None:
        """See ``Gate``; the parent tells the user."""
        pending = self._pending[self._task()]
        self._catch_up(pending)
        self._tell(Observed(pending.number, told))
        return None

    def check_used(self, pendings: list[Pending]) -> None:
        """Gives back what was let out and is not on its way now that its task has had its turn."""
        for pending in pendings:
            if pending.expected and not pending.begun and self._by_number.get(pending.number) is pending:
                pending.expected = pending.let_out = False
                self._tell(Unused(pending.number))
                self._withdraw()

    def replied(self, number: int, word: int) -> None:
        """The parent's word about a request."""
        pending = self._by_number.get(number)
        if pending is None or pending.reply is None or pending.reply.done():
            return
        if word == GO and not pending.begun:
            pending.expected = True
            self._loop.call_soon(self._check_soon, pending)
        pending.reply.set_result(word)

    def _check_soon(self, pending: Pending) -> None:
        self._loop.call_soon(self.check_used, [pending])

    def _tell_later(self) -> None:
        if self._telling is None:
            self._telling = self._loop.call_later(_LATEST_S, self._tell_now)

    def _tell_now(self) -> None:
        self._telling = None
        for pending in self._by_number.values():
            self._catch_up(pending)

    def _catch_up(self, pending: Pending) -> None:
        """Tells what the parent does not know yet."""
        if pending.gone:
            pending.gone = False
            self._tell(Sent(pending.number))
        if pending.over:
            pending.over = False
            self._tell(Left(pending.number))

    async def _word(self, pending: Pending) -> None:
        pending.reply = self._loop.create_future()
        try:
            word = await pending.reply
        finally:
            pending.reply = None
        if word == ABANDONED:
            raise Abandoned

    def _withdraw(self) -> None:
        """Says of those that wait for their turn which could not send now, so that no turn is wasted on them."""
        for pending in self._waiting():
            if not pending.still():
                self._tell(Withdraw(pending.number))
                pending.still = always

    def _waiting(self) -> Iterator[Pending]:
        return (each for each in self._by_number.values() if each.reply is not None and not each.begun)

    def _task(self) -> asyncio.Task[Any]:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a gate is used outside a task")
        return task

    def _own_pending(self, task: asyncio.Task[Any]) -> Pending:
        """What the parent knows a task of the provider's own as: a negative number."""
        self._own -= 1
        pending = Pending(self._own, let_out=False)
        self.enter(task, pending)
        task.add_done_callback(lambda _: self._own_ended(pending))
        return pending

    def _own_ended(self, pending: Pending) -> None:
        self.leave(pending)
        self._tell(Ended(pending.number))
