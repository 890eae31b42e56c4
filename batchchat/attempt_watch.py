"""Every attempt of a run told when it has ended, for observers that want to know; else nothing of this is used."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from batchchat.admission import Abandoned, Admission
from batchchat.errors import ProviderError
from batchchat.life import Life
from batchchat.observer import AttemptReport
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion

__all__ = ["AttemptWatch"]


class AttemptWatch:
    """Makes attempts in the place of the worker's own way, and tells how each ended.

    Args:
        attempt: The worker's way to make one.
        tell: Told of each attempt that went to the wire.
    """

    def __init__(
        self,
        attempt: Callable[[ChatRequest, Life], Awaitable[Completion]],
        admission: Admission,
        tell: Callable[[AttemptReport], None],
    ) -> None:
        self._attempt, self._tell = attempt, tell
        self._wire_times = admission.wire_times = {}

    async def __call__(self, request: ChatRequest, life: Life) -> Completion:
        """Makes one attempt; what it raises is the worker's."""
        started, before = time.monotonic(), life.attempts
        completion: Completion | None = None
        met: BaseException | None = None
        try:
            completion = await self._attempt(request, life)
            return completion
        except BaseException as caught:
            met = caught
            raise
        finally:
            task = asyncio.current_task()
            sent_at = None if task is None else self._wire_times.pop(task, None)
            error = met.__cause__ if isinstance(met, Abandoned) else met
            if life.attempts > before and (sent_at is not None or completion or isinstance(error, ProviderError)):
                self._tell(
                    AttemptReport(
                        prompt_id=life.prompt.id,
                        number=life.attempts,
                        request=request,
                        duration_s=time.monotonic() - (started if sent_at is None else sent_at),
                        completion=completion,
                        error_type=None if completion is not None else _type_of(error, life),
                        status=error.status if isinstance(error, ProviderError) else None,
                    )
                )


def _type_of(error: BaseException | None, life: Life) -> str:
    if isinstance(error, ProviderError):
        return error.type
    # The prompt's own deadline ends its task by a cancellation.
    return "timeout" if life.clock is not None and life.clock.expired() else "cancelled"
