"""What a provider in a child has for the run's gate: it asks the parent, unless a request came with its leave."""

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
)
from batchchat.providers.base import always
from batchchat.rate_headers import RateHeaders

__all__ = ["GateProxy", "Pending"]


class Pending:
    """One attempt that the parent asked for, or a task of the provider's own that sends requests.

    Attributes:
        let_out: Whether a request may go out that has not been sent; it must be used at once, or it is void.
        begun: Whether a request is on its way.
        expected: Whether the parent takes that for granted.
        reply: What the parent's word is awaited by.
    """

    __slots__ = ("begun", "expected", "let_out", "number", "reply", "still")

    def __init__(self, number: int, *, let_out: bool) -> None:
        self.number, self.let_out, self.expected, self.begun = number, let_out, let_out, False
        self.reply: asyncio.Future[int] | None = None
        self.still: Callable[[], bool] = always


class GateProxy:
    """See ``Gate``.

    Args:
        tell: Sends a message to the parent.
        ask_before_sending: Whether the parent has the last word right before a request goes to the wire.
    """

    def __init__(self, tell: Callable[[Any], None], *, ask_before_sending: bool) -> None:
        self._tell, self._ask_before_sending = tell, ask_before_sending
        self._pending: dict[asyncio.Task[Any], Pending] = {}
        self._by_number: dict[int, Pending] = {}
        self._own = 0
        self.closed = False

    def enter(self, task: asyncio.Task[Any], pending: Pending) -> None:
        """The task makes this attempt from now on."""
        self._pending[task] = pending
        self._by_number[pending.number] = pending

    def leave(self, task: asyncio.Task[Any]) -> None:
        """The task's attempt is over."""
        if (pending := self._pending.pop(task, None)) is not None:
            self._by_number.pop(pending.number, None)

    async def admit(self, still: Callable[[], bool] = always) -> None:
        """See ``Gate``."""
        if self.closed:
            raise Abandoned
        pending = self._pending_of(asyncio.current_task())
        if pending.let_out:
            pending.let_out = False
            return
        pending.still = still
        self._tell(Admit(pending.number))
        await self._word(pending)

    def begin(self, task: asyncio.Task[Any]) -> None:
        """See ``Gate``."""
        pending = self._pending_of(task)
        pending.begun = True
        if not pending.expected:
            self._tell(Begun(pending.number))

    def sent(self, task: asyncio.Task[Any]) -> Awaitable[None] | None:
        """See ``Gate``."""
        if self.closed:
            raise Abandoned
        pending = self._pending_of(task)
        self._tell(Sent(pending.number))
        return self._word(pending) if self._ask_before_sending else None

    def left(self, task: asyncio.Task[Any]) -> None:
        """See ``Gate``."""
        pending = self._pending_of(task)
        pending.begun = pending.expected = False
        self._tell(Left(pending.number))

    def observed(self, told: RateHeaders) -> str | None:
        """See ``Gate``; the parent tells the user."""
        self._tell(Observed(self._pending_of(asyncio.current_task()).number, told))
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
            asyncio.get_running_loop().call_soon(self._check_soon, pending)
        pending.reply.set_result(word)

    def _check_soon(self, pending: Pending) -> None:
        asyncio.get_running_loop().call_soon(self.check_used, [pending])

    async def _word(self, pending: Pending) -> None:
        pending.reply = asyncio.get_running_loop().create_future()
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

    def _pending_of(self, task: asyncio.Task[Any] | None) -> Pending:
        """What the parent knows the task as; one of the provider's own gets a negative number."""
        if task is None:
            raise RuntimeError("a gate is used outside a task")
        if (pending := self._pending.get(task)) is None:
            self._own -= 1
            pending = Pending(self._own, let_out=False)
            self.enter(task, pending)
            task.add_done_callback(self._own_ended)
        return pending

    def _own_ended(self, task: asyncio.Task[Any]) -> None:
        pending = self._pending[task]
        self.leave(task)
        self._tell(Ended(pending.number))
