"""What one prompt has gone through so far."""

from batchchat.answers import Structured
from batchchat.errors import ProviderError
from batchchat.prompt_clock import PromptClock
from batchchat.records import Prompt, Usage

__all__ = ["Life"]


class Life:
    """Counts and marks of one prompt, kept by the worker.

    Attributes:
        attempts: HTTP exchanges begun.
        tries: Attempts at the request that is being made now.
        holds_slot: Whether it counts as in flight.
        judged: Whether its failure for good has been told to the stop rules.
        responses: Answers to its turns so far.
        spared: Whether its last attempt does not count and is made again.
        usage: Tokens of its answers so far.
        structured: What was read from its last answer.
        clock: Its own deadline, not started before its first attempt; None for none.
    """

    __slots__ = (
        "attempts",
        "clock",
        "holds_slot",
        "judged",
        "last_error",
        "prompt",
        "responses",
        "spared",
        "structured",
        "tries",
        "usage",
    )

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.attempts = 0
        self.tries = 0
        self.judged = self.holds_slot = self.spared = False
        self.responses: list[str | None] = []
        self.structured = Structured()
        self.usage = Usage()
        self.last_error: ProviderError | None = None
        self.clock: PromptClock | None = None

    def begin(self) -> None:
        """Counts an attempt; the first one starts the prompt's own clock."""
        if self.clock is not None and not self.attempts:
            self.clock.start()
        self.attempts += 1
        self.tries += 1

    def spare(self) -> None:
        """Takes the attempt that just failed off the tries."""
        self.tries -= 1
        self.spared = True
