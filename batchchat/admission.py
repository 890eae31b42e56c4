"""Where a run's requests go out: limits, the tasks on the wire, and the end of sending."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from batchchat.limits import Limiter, Send
from batchchat.providers.base import always, text_of
from batchchat.records import Usage

__all__ = ["Abandoned", "Admission", "estimated_tokens"]

_CHARS_PER_TOKEN = 4
_TOKENS_PER_PART = 1000  # of an image or a file
_MOST_TOKENS = 10**9  # what a ``max_tokens`` without sense counts as


class Abandoned(Exception):
    """The run stopped before this prompt came to its end; it stays pending."""


class Admission:
    """One door for every request of a run.

    Attributes:
        in_flight: Tasks that have a request on the wire.
        closed: Whether nothing new may be sent.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.in_flight: set[asyncio.Task[Any]] = set()
        self._began_at: dict[asyncio.Task[Any], float] = {}
        self.closed = False
        self._estimates: dict[asyncio.Task[Any], int] = {}
        self._sends: dict[asyncio.Task[Any], Send] = {}
        self._output_tokens = 0.0  # running mean of what answers cost

    async def admit(self, still: Callable[[], bool] = always) -> None:
        """Waits until one more request may go out; see ``Gate``.

        Raises:
            Abandoned: Nothing new is sent any more.
        """
        if self.closed:
            raise Abandoned
        task = asyncio.current_task()
        tokens = self._estimates.get(task, 0) if task is not None else 0
        send = await self._limiter.acquire(tokens, still)
        if send is not None and task is not None:
            self._sends[task] = send
        if self.closed:
            raise Abandoned

    def begin(self, task: asyncio.Task[Any]) -> None:
        """The task's request, let out before, begins its way to the wire."""
        self.in_flight.add(task)
        self._began_at.setdefault(task, time.monotonic())
        if (send := self._sends.get(task)) is not None:
            self._limiter.begin(send)

    def sent(self, task: asyncio.Task[Any]) -> None:
        """The task's request goes to the wire.

        Raises:
            Abandoned: The run stopped while its connection was made.
        """
        if self.closed:
            raise Abandoned
        if (send := self._sends.get(task)) is not None:
            self._limiter.sent(send)

    def left(self, task: asyncio.Task[Any]) -> None:
        """The task's request is over."""
        self.in_flight.discard(task)
        if (send := self._sends.get(task)) is not None:
            self._limiter.left(send)
        if task not in self._estimates:  # a fetch of a nonce: no prompt's end will clear it away
            self._sends.pop(task, None)
            self._began_at.pop(task, None)

    def expect(self, tokens: int) -> None:
        """Tells how many tokens the running task's next request is estimated to send."""
        if task := asyncio.current_task():
            self._estimates[task] = tokens + round(self._output_tokens)

    def settle(self, usage: Usage | None) -> None:
        """Tells what the running task's request cost in the end."""
        task = asyncio.current_task()
        send = self._sends.pop(task, None) if task is not None else None
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return
        self._output_tokens += (usage.output_tokens - self._output_tokens) / 10
        if send is not None:
            self._limiter.correct(send, usage.input_tokens + usage.output_tokens)

    def forget(self) -> float | None:
        """Ends the running task's prompt; ``time.monotonic()`` of its first request, None if nothing was sent."""
        task = asyncio.current_task()
        if task is None:
            return None
        self._estimates.pop(task, None)
        self._sends.pop(task, None)
        return self._began_at.pop(task, None)


def estimated_tokens(messages: list[dict[str, Any]], system: str | None, params: Mapping[str, Any]) -> int:
    """Tokens that a request is likely to cost.

    Four characters to the token, a thousand for each image or file, plus ``max_tokens`` if it is given.
    """
    contents = [message.get("content") for message in messages]
    characters = len(system or "") + sum(len(text_of(content)) for content in contents)
    others = sum(
        isinstance(part, dict) and part.get("type") != "text"
        for content in contents
        if isinstance(content, list)
        for part in content
    )
    most = params.get("max_tokens") or params.get("max_completion_tokens") or 0
    answer = min(max(most, 0), _MOST_TOKENS) if isinstance(most, int) else 0
    return int(characters // _CHARS_PER_TOKEN + others * _TOKENS_PER_PART + answer)
