"""The run's own process among those that make attempts."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from batchchat.errors import ProviderError
from batchchat.processes.own_share import OwnShare
from batchchat.processes.places import Places
from batchchat.providers.base import ChatRequest, Provider
from batchchat.records import Completion

__all__ = ["OwnPlace"]


class _Child(Protocol):
    @property
    def answered(self) -> bool: ...


class OwnPlace:
    """Attempts that this process makes itself, with a provider of its own.

    It makes none before every child has brought an answer, and none of a prompt that a child died of: what ends a
    process is not to end the run's own.

    Args:
        provider: Asks through the run's gate; not entered yet.
        places: Where tasks failed; shared with the children.
        children: How many there are.
        most: Requests that one process may have.

    Attributes:
        load: Attempts that it has.
        share: How many it should have.
    """

    def __init__(self, provider: Provider, places: Places, *, children: int, most: int) -> None:
        self._provider, self._places, self._most = provider, places, most
        self.share = OwnShare(children)
        self.load = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trusting = False

    async def open(self) -> None:
        """Enters the provider."""
        self._loop = asyncio.get_running_loop()  # asking for it at each request costs a system call
        await self._provider.__aenter__()

    async def close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the provider."""
        await self._provider.__aexit__(kind, error, trace)

    def distrust(self) -> None:
        """A child has died: makes no attempt until its successor has brought an answer."""
        self._trusting = False

    def may_take(self, children: Sequence[_Child], in_flight: int, least: int | None) -> bool:
        """Whether the running task's next attempt may be made here.

        Args:
            children: ``answered`` tells whether one has brought an answer.
            in_flight: Requests of the whole run.
            least: Those of the child that has the fewest; None where no child has room for one more.
        """
        if self.load >= self._most or (least is not None and not self.share.allows(in_flight, least)):
            return False
        if not self._trusting:
            self._trusting = all(child.answered for child in children)
        # Asked last and seldom, as is all that would cost something for each request.
        return self._trusting and not (self._places.deadly and asyncio.current_task() in self._places.deadly)

    async def complete(self, request: ChatRequest) -> Completion:
        """One attempt; see ``Provider.complete``."""
        task = asyncio.current_task(self._loop)
        if (place := self._places.take(task, request)) is not None:
            self._provider.avoid(request, place)  # type: ignore[attr-defined]
        self.load += 1
        try:
            return await self._provider.complete(request)
        except ProviderError:
            failed_place = getattr(self._provider, "failed_place", None)
            self._places.keep(task, request, None if failed_place is None else failed_place())
            raise
        finally:
            self.load -= 1
