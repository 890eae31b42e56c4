"""What one prompt has gone through so far."""

import asyncio
import time
from typing import Any

from batchchat.answers import Structured
from batchchat.errors import ProviderError
from batchchat.prompt_clock import PromptClock
from batchchat.records import Completion, Prompt, Usage

__all__ = ["Life"]

# Of each prompt, in memory and in its line.
_MOST_FAILURES, _MOST_MESSAGE_CHARS = 20, 300

_NOTHING_READ, _NOTHING_USED = Structured(), Usage()


class Life:
    """Counts and marks of one prompt, kept by the worker.

    Attributes:
        task: The one that it lives in.
        attempts: HTTP exchanges begun.
        tries: Attempts at the request that is being made now.
        holds_slot: Whether it counts as in flight.
        judged: Whether its failure for good has been told to the stop rules.
        responses: Answers to its turns so far.
        due_at: Loop time of its next attempt, where it waits for one.
        spared: Whether its last attempt does not count and is made again.
        usage: Tokens of its answers so far.
        structured: What was read from its last answer.
        last_error, failed_attempts: What its attempts came to so far; see ``Outcome``.
        clock: Its own deadline, not started before its first attempt; None for none.
    """

    __slots__ = (
        "attempts",
        "clock",
        "due_at",
        "failed_attempts",
        "holds_slot",
        "judged",
        "last_error",
        "prompt",
        "responses",
        "spared",
        "structured",
        "task",
        "tries",
        "usage",
    )

    def __init__(self, prompt: Prompt, task: asyncio.Task[Any]) -> None:
        self.prompt, self.task = prompt, task
        self.attempts = self.tries = 0
        self.due_at = 0.0
        self.judged = self.holds_slot = self.spared = False
        self.responses: list[str | None] = []
        self.structured, self.usage = _NOTHING_READ, _NOTHING_USED
        self.last_error: ProviderError | None = None
        self.clock: PromptClock | None = None
        self.failed_attempts: list[dict[str, Any]] | None = None

    def begin(self) -> None:
        """Counts an attempt; the first one starts the prompt's own clock."""
        if self.clock is not None and not self.attempts:
            self.clock.start()
        self.attempts += 1
        self.tries += 1

    def note_failure(self, error: ProviderError, began_at: float | None) -> None:
        """Keeps what an attempt came to.

        Args:
            began_at: ``time.monotonic()`` of the prompt's first request; None where there was none.
        """
        self.last_error = error
        kept = self.failed_attempts = self.failed_attempts or []
        kept.append(
            {
                "attempt": self.attempts,
                "after_s": None if began_at is None else round(time.monotonic() - began_at, 3),
                "type": error.type,
                "status": error.status,
                "message": error.message[:_MOST_MESSAGE_CHARS],
            }
        )
        del kept[:-_MOST_FAILURES]

    def spare(self) -> None:
        """Takes the attempt that just failed off the tries."""
        self.tries -= 1
        self.spared = True

    def note_turn(self, completion: Completion) -> None:
        """Keeps the answer to a turn."""
        self.responses.append(completion.text)

    def end_if_cancelled(self) -> None:
        """Ends the task if that was put off; see ``providers.base.end_if_cancelled``."""
        if self.task.cancelling():
            raise asyncio.CancelledError
