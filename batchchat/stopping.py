"""When a run ends early: a service that will refuse every prompt, and the user's own limits."""

from typing import Literal

import msgspec

from batchchat.errors import AttachmentError, ProviderError
from batchchat.records import PromptId

__all__ = ["StopReason", "StopRules"]

_IN_A_ROW = 3
_SAME_TEXT_IN_A_ROW = 20
# With an input of unknown length a percentage is measured against the prompts finished so far, from here on.
_PERCENT_FROM = 50


class StopReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why no new prompt is sent; ``message`` is one sentence."""

    kind: Literal["service", "limit", "results", "input", "interrupted", "terminated"]
    message: str


class StopRules:
    """Counts what final failures tell of the prompts to come; an answer in between starts the counts anew.

    Args:
        max_wait_s: Longest single wait in seconds that the service may ask for; 0 for any.
        max_failures: Failures that are tolerated, or None.
        max_failed_share: Share of the prompts (0 to 1) that may fail, or None.
        total: Prompts of the input, or None where that is not known.
    """

    def __init__(
        self,
        *,
        max_wait_s: float = 300.0,
        max_failures: int | None = None,
        max_failed_share: float | None = None,
        total: int | None = None,
    ) -> None:
        self._max_wait_s, self._max_failures, self._share = max_wait_s, max_failures, max_failed_share
        self._total = total
        self._answered = self._failed = 0
        self._hopeless = 0
        self._text, self._same_text = "", 0

    def wait_too_long(self, error: ProviderError) -> bool:
        """Whether the error asks for a longer wait than the run may make."""
        return bool(self._max_wait_s) and (error.retry_after_s or 0.0) > self._max_wait_s

    def answered(self) -> None:
        """Notes an answer, of a turn as of a prompt: the service does not refuse everything."""
        self._hopeless = self._same_text = 0

    def completed(self) -> None:
        """Notes a prompt that is answered whole."""
        self._answered += 1

    def failed(self, prompt_id: PromptId, error: ProviderError | None) -> StopReason | None:
        """Notes a prompt's final failure (None: a faulty input line); the reason to stop, if there is one now."""
        self._failed += 1
        if error is not None:
            if self.wait_too_long(error):
                return StopReason(
                    kind="service",
                    message=f"the service asks to wait {error.retry_after_s:.0f} s, longer than --max-retry-wait "
                    f"({self._max_wait_s:.0f} s) allows: {error.message}",
                )
            if reason := self._service_reason(error):
                return reason
        reason = self._limit_reason()
        if reason is not None and error is not None and error.stops_run:
            # Both hold, and three in a row may never come: what the user has to mend is the service's refusal.
            met = f"{reason.message}; the last one met: {error.type}: {error.message}"
            return StopReason(kind="service", message=met)
        return reason

    def _service_reason(self, error: ProviderError) -> StopReason | None:
        if error.stops_run:
            self._hopeless += 1
            if self._hopeless >= _IN_A_ROW:
                return StopReason(
                    kind="service", message=f"{self._hopeless} prompts in a row met: {error.type}: {error.message}"
                )
        elif isinstance(error, AttachmentError):
            return None  # nothing was sent; many prompts may share the file that went away
        elif not error.retryable or error.retry_limit is not None:
            self._same_text = self._same_text + 1 if error.message == self._text else 1
            self._text = error.message
            if self._same_text >= _SAME_TEXT_IN_A_ROW:
                return StopReason(
                    kind="service",
                    message=f"{self._same_text} prompts in a row were refused with the same words: {error.message}",
                )
        return None

    def _limit_reason(self) -> StopReason | None:
        if self._max_failures is not None and self._failed > self._max_failures:
            return StopReason(
                kind="limit", message=f"{self._failed} prompts failed, more than --max-failures {self._max_failures}"
            )
        if self._share is not None:
            finished = self._answered + self._failed
            base = self._total if self._total is not None else finished if finished >= _PERCENT_FROM else None
            if base and self._failed > self._share * base:
                return StopReason(
                    kind="limit",
                    message=f"{self._failed} of {base} prompts failed, more than --max-failures {self._share * 100:g}%",
                )
        return None
