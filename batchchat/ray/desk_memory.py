"""What outlives the desk, in a small file: what each worker has done, and what it may spend."""

import contextlib
import os
import time
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from batchchat.budget import Spent
from batchchat.ray.words import Figures
from batchchat.records import Usage
from batchchat.stopping import StopReason

__all__ = ["DeskMemory", "Remembered", "sum_figures"]


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What a desk has to know of the starts before it.

    Attributes:
        figures: Of each life of a worker, by its name.
        told: Number of what each told last, of which the figures are.
        granted: US dollars that each may spend.
        asked: Number of the last of the asks by which each came to that.
        lives: The one of each worker.
        ended: Lives that are over.
        number: Of the desk; see ``Word.desk``.
        stop: Why the run is to end.
    """

    figures: dict[str, Figures] = {}
    told: dict[str, int] = {}
    granted: dict[str, Decimal] = {}
    asked: dict[str, int] = {}
    lives: dict[int, str] = {}
    ended: frozenset[str] = frozenset()
    number: int = 0
    stop: StopReason | None = None


class DeskMemory:
    """The file at a path; it is replaced as a whole."""

    def __init__(self, path: str) -> None:
        self._path, self._written_at = path, float("-inf")

    def read(self) -> Remembered:
        """What an earlier start of the desk wrote; nothing where there was none."""
        try:
            with open(self._path, "rb") as file:
                return msgspec.msgpack.decode(file.read(), type=Remembered)
        except (OSError, msgspec.DecodeError):
            return Remembered()

    def write(self, remembered: Remembered, at_most_every_s: float) -> None:
        """Writes it, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._written_at < at_most_every_s:
            return
        self._written_at = now
        part = f"{self._path}.part"
        with contextlib.suppress(OSError):  # a full disk ends the run where answers are written
            with open(part, "wb") as file:
                file.write(msgspec.msgpack.encode(remembered))
            os.replace(part, self._path)


def sum_figures(all_figures: Iterable[Figures]) -> Figures:
    """All workers together."""
    total = Figures()
    attempts: dict[str, int] = {}
    sources: dict[str, None] = {}
    usage, estimated, unpriced = Usage(), 0, dict[str, int]()
    cost: Decimal | None = Decimal(0)
    for each in all_figures:
        for name, count in each.attempts.items():
            attempts[name] = attempts.get(name, 0) + count
        for name, count in each.spent.unpriced.items():
            unpriced[name] = unpriced.get(name, 0) + count
        sources |= dict.fromkeys(each.price_sources)
        usage += each.spent.usage
        estimated += each.spent.estimated_requests
        cost = None if cost is None or each.spent.cost_usd is None else cost + each.spent.cost_usd
        total = msgspec.structs.replace(
            total,
            completed=total.completed + each.completed,
            failed=total.failed + each.failed,
            requests=total.requests + each.requests,
            second_attempts=total.second_attempts + each.second_attempts,
            in_flight=total.in_flight + each.in_flight,
            retrying=total.retrying + each.retrying,
            slots=total.slots + each.slots,
        )
    spent = Spent(usage=usage, estimated_requests=estimated, cost_usd=cost, unpriced=unpriced)
    return msgspec.structs.replace(total, attempts=attempts, spent=spent, price_sources=tuple(sources))
