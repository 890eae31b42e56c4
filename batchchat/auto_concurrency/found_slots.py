"""The slots of a run that finds out how many pay."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakSet

from batchchat.admission import Admission
from batchchat.auto_concurrency.control import MOST, ConcurrencyControl
from batchchat.auto_concurrency.metered_source import MeteredSource
from batchchat.auto_concurrency.watch import ConcurrencyWatch
from batchchat.pool import Source
from batchchat.run_slots import RunSlots

__all__ = ["FoundSlots"]

T = TypeVar("T")

_USUAL = 16  # what a run has without a word about it


class FoundSlots(RunSlots):
    """As many slots as turn out to pay.

    Args:
        processes: How many share the connections.
        admission: Where requests go out.
        tell: ``(message, level)``; told of each time there are fewer as the service is congested.
    """

    found = True

    def __init__(self, processes: int, admission: Admission, tell: Callable[[str, int], None]) -> None:
        super().__init__(MOST, processes)
        self.usual = min(self.most, _USUAL)
        self._control = ConcurrencyControl(self.most, changed=self._changed, cut=lambda sentence: tell(sentence, 1))
        admission.watch = watch = ConcurrencyWatch(self._control)
        self.around = watch.around
        self.slots.resize(self.limit)
        self._sources: WeakSet[MeteredSource[Any]] = WeakSet()  # of works that go on side by side

    @property
    def limit(self) -> int:
        """Prompts that may be in flight now."""
        return self._control.limit

    def metered(
        self, source: Source[T], handle: Callable[[Any], Awaitable[None]]
    ) -> tuple[Source[T], Callable[[Any], Awaitable[None]]]:
        """The source, which lets go of no more prompts than fit the slots of the moment, and who tells it of ends."""
        metered = MeteredSource(source, lambda: self.limit)
        self._sources.add(metered)

        async def handled(item: T) -> None:
            try:
                await handle(item)
            finally:
                metered.done()

        return metered, handled

    def _changed(self) -> None:
        self.slots.resize(self.limit)
        for source in self._sources:
            source.changed()
