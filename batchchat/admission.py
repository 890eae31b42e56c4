"""Where a run's requests go out: limits, the tasks on the wire, and the end of sending."""

import asyncio
from collections.abc import Mapping
from typing import Any

from batchchat.limits import Limiter
from batchchat.records import Usage

__all__ = ["Abandoned", "Admission", "estimated_tokens"]

_CHARS_PER_TOKEN = 4
_MOST_TOKENS = 10**9  # what a ``max_tokens`` without sense counts as


class Abandoned(Exception):
    """The run stopped before this prompt came to its end; it stays pending."""


class Admission:
    """One door for every request of a run.

    Attributes:
        in_flight: Tasks that have a request on the wire.
        sent_at: ``time.monotonic()`` of a task's first request.
        closed: Whether nothing new may be sent.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.in_flight: set[asyncio.Task[Any]] = set()
        self.sent_at: dict[asyncio.Task[Any], float] = {}
        self.closed = False
        self._estimates: dict[asyncio.Task[Any], int] = {}
        self._receipts: dict[asyncio.Task[Any], list[float]] = {}
        self._output_tokens = 0.0  # running mean of what answers cost

    async def admit(self) -> None:
        """Waits until one more request may go out.

        Raises:
            Abandoned: Nothing new is sent any more.
        """
        if self.closed:
            raise Abandoned
        task = asyncio.current_task()
        tokens = self._estimates.get(task, 0) if task is not None else 0
        receipt = await self._limiter.acquire(tokens)
        if receipt is not None and task is not None:
            self._receipts[task] = receipt
        if self.closed:
            raise Abandoned

    def expect(self, tokens: int) -> None:
        """Tells how many tokens the running task's next request is estimated to send."""
        if task := asyncio.current_task():
            self._estimates[task] = tokens + round(self._output_tokens)

    def settle(self, usage: Usage | None) -> None:
        """Tells what the running task's request cost in the end."""
        task = asyncio.current_task()
        receipt = self._receipts.pop(task, None) if task is not None else None
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return
        self._output_tokens += (usage.output_tokens - self._output_tokens) / 10
        self._limiter.correct(receipt, usage.input_tokens + usage.output_tokens)

    def forget(self) -> float | None:
        """Ends the running task's prompt; ``time.monotonic()`` of its first request, None if nothing was sent."""
        task = asyncio.current_task()
        if task is None:
            return None
        self._estimates.pop(task, None)
        self._receipts.pop(task, None)
        return self.sent_at.pop(task, None)


def estimated_tokens(messages: list[dict[str, Any]], system: str | None, params: Mapping[str, Any]) -> int:
    """Tokens that a request is likely to cost: four characters to the token, plus ``max_tokens`` if it is given."""
    characters = len(system or "") + sum(len(str(message.get("content") or "")) for message in messages)
    most = params.get("max_tokens") or params.get("max_completion_tokens") or 0
    return characters // _CHARS_PER_TOKEN + (min(max(most, 0), _MOST_TOKENS) if isinstance(most, int) else 0)
