"""The slots of a run: one for each prompt that may be in flight."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from batchchat.descriptors import fit_concurrency
from batchchat.pool import Source
from batchchat.slots import Slots
from batchchat.worker import Attempt

__all__ = ["RunSlots"]

T = TypeVar("T")


class RunSlots:
    """A fixed number of slots.

    Args:
        wanted: Prompts in flight, if the system lets a process open so many connections.
        processes: How many share them.

    Attributes:
        most: Prompts that are ever in flight at a time.
        usual: The same, for who needs a number that is not far from what there will be.
        around: Puts what watches attempts around one; None where nobody does.
        slots: What a prompt in flight holds.
        found: Whether the number of slots is found out while the run goes on.
    """

    found = False

    def __init__(self, wanted: int, processes: int = 1) -> None:
        self.most = self.usual = fit_concurrency(wanted, processes)
        self.around: Callable[[Attempt], Attempt] | None = None
        self.slots = Slots(self.most)

    @property
    def limit(self) -> int:
        """Prompts that may be in flight now."""
        return self.most

    def metered(
        self, source: Source[T], handle: Callable[[Any], Awaitable[None]]
    ) -> tuple[Source[T], Callable[[Any], Awaitable[None]]]:
        """The source for the tasks of a pool, of which there are enough for the most slots, and what they do."""
        return source, handle
