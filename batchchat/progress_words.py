"""Words of progress: what a line tells of an attempt or a prompt, as text that steers no terminal."""

from batchchat.errors import ProviderError
from batchchat.records import Outcome, PromptId

__all__ = ["ALWAYS", "attempt_line", "count_of", "outcome_line", "visible"]

# Level of what is told even with ``-q``.
ALWAYS = -1


def visible(text: str) -> str:
    """The text with every character that could steer a terminal, or end the line, as ``�``."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)


def attempt_line(prompt_id: PromptId, number: int, error: ProviderError, retried: bool) -> str:
    """One line about a failed attempt."""
    after = "asked again" if retried else "given up"
    return f"batchchat: {prompt_id}: attempt {number}: {error.type}: {error.message} ({after})"


def outcome_line(outcome: Outcome) -> str:
    """One line about a prompt's end."""
    return f"batchchat: {outcome.id}: {outcome.status} after {count_of(outcome.attempts, 'attempt')}"


def count_of(number: int, noun: str) -> str:
    """``1 prompt``, ``2 prompts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
