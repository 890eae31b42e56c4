"""Attempts that meet a service known to be dead, which cost their prompt nothing."""

from collections.abc import Awaitable, Callable

from batchchat.breaker import Breaker
from batchchat.errors import ProviderError
from batchchat.life import Life
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion

__all__ = ["SparedAttempts"]


class SparedAttempts:
    """Makes an attempt again, without a wait of its own, for as long as the breaker spares it.

    The wait is at the door: nothing passes the breaker's hold but what it lets through.
    """

    __slots__ = ("_attempt", "_breaker")

    def __init__(self, attempt: Callable[[ChatRequest, Life], Awaitable[Completion]], breaker: Breaker) -> None:
        self._attempt, self._breaker = attempt, breaker

    async def __call__(self, request: ChatRequest, life: Life) -> Completion:
        """The answer.

        Raises:
            ProviderError: An attempt failed that counts.
        """
        while True:
            try:
                completion = await self._attempt(request, life)
            except ProviderError:
                if not life.spared:
                    raise
                life.spared = False
                continue
            self._breaker.alive()
            return completion
