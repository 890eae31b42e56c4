"""A worker's stop rules: it acts at once on what its own failures tell; what all of them tell is the desk's to see."""

from batchchat.errors import ProviderError
from batchchat.processes.messages import CarriedError
from batchchat.ray.words import FailedPrompt
from batchchat.records import PromptId
from batchchat.stopping import StopReason, StopRules

__all__ = ["SharedRules"]


class SharedRules(StopRules):
    """See ``StopRules``; limits of the user's are judged at the desk."""

    def __init__(self, *, max_wait_s: float) -> None:
        super().__init__(max_wait_s=max_wait_s)
        self._failures: list[FailedPrompt] = []
        self._answers = 0
        self.prompts_completed = self.prompts_failed = 0

    def answered(self) -> None:
        """See ``StopRules``."""
        super().answered()
        self._answers += 1

    def completed(self) -> None:
        """See ``StopRules``."""
        super().completed()
        self.prompts_completed += 1

    def failed(self, prompt_id: PromptId, error: ProviderError | None) -> StopReason | None:
        """See ``StopRules``."""
        reason = super().failed(prompt_id, error)
        carried = None if error is None else CarriedError.of(error)
        self._failures.append(FailedPrompt(prompt_id, carried, self._answers))
        self._answers = 0
        self.prompts_failed += 1
        return reason

    @property
    def untold(self) -> bool:
        """Whether there are failures that the desk knows nothing of."""
        return bool(self._failures)

    def take(self) -> tuple[tuple[FailedPrompt, ...], int]:
        """What is to be told: failures in their order, and the answers since."""
        failures, answers = tuple(self._failures), self._answers
        self._failures, self._answers = [], 0
        return failures, answers
