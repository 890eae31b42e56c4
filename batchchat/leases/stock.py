"""The leases that a worker has, and the requests that wait for one."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from batchchat.leases.clock_map import ClockMap
from batchchat.leases.messages import Lease
from batchchat.limits import Send

__all__ = ["Right", "Stock"]

# The most requests that one message wants leases for.
_MOST_WANTS = 256


class Right(Send):
    """A request and the lease that it is sent with; ``leaving`` from before it is written until it was.

    Attributes:
        begins: Own time from which it may be sent.
        ends: Own time until which it may be.
        leased: Tokens that the desk counts.
    """

    __slots__ = ("begins", "ends", "landed", "leased", "leaving", "number")

    def __init__(self, lease: Lease, begins: float, ends: float) -> None:
        super().__init__(begins, lease.tokens)
        self.leaving = self.landed = False
        self.number, self.leased, self.begins, self.ends = lease.number, lease.tokens, begins, ends

    def renew(self, other: "Right") -> None:
        """Takes another lease's place, as this one's is over."""
        self.number, self.leased, self.begins, self.ends = other.number, other.leased, other.begins, other.ends
        self.leaving = self.landed = False


class Waiter:
    """A request that waits for a lease; ``still`` says whether it could be sent."""

    __slots__ = ("right", "since", "still", "tokens")

    def __init__(self, tokens: int, since: float, still: Callable[[], bool]) -> None:
        self.tokens, self.since, self.still = tokens, since, still
        self.right: asyncio.Future[Right | None] = asyncio.get_running_loop().create_future()


class Stock:
    """First come, first served.

    Args:
        unused: Called with the number of each lease that will not be used.

    Attributes:
        last_begins: Own time at which the last lease begins.
    """

    def __init__(self, unused: Callable[[int], None]) -> None:
        self._unused = unused
        self._waiters: deque[Waiter] = deque()
        self._rights: dict[int, Right] = {}
        self.last_begins = float("-inf")

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, tokens: int, since: float, still: Callable[[], bool], *, first: bool) -> Right | None:
        """The next lease; None where it could not be used, or none will come.

        Args:
            since: Own time since when the request has waited for nothing but the limits.
            first: Whether it goes before all others, as it had a lease already.
        """
        waiter = Waiter(tokens, since, still)
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            return await waiter.right
        except BaseException:
            if waiter.right.done() and not waiter.right.cancelled() and (right := waiter.right.result()) is not None:
                self.give_back(right)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def wants(self, now: float) -> tuple[tuple[int, ...], float]:
        """Estimated tokens of the first that wait, and for how long the one that came first has."""
        wants = tuple(waiter.tokens for waiter, _ in zip(self._waiters, range(_MOST_WANTS), strict=False))
        return wants, max(0.0, now - self._waiters[0].since) if wants else 0.0

    def add(self, leases: Iterable[Lease], clock_map: ClockMap, now: float) -> None:
        """Gives leases to who waits for them; those that nobody can use go back."""
        for lease in leases:
            right = Right(lease, clock_map.surely_from(lease.at), clock_map.surely_until(lease.until))
            self._rights[right.number] = right
            self.last_begins = right.begins
            waiter = self._next(lease.tokens) if max(right.begins, now) <= right.ends else None
            if waiter is None:
                self.give_back(right)
            else:
                waiter.right.set_result(right)

    def has(self, right: Right) -> bool:
        """Whether the lease is still there to be used."""
        return self._rights.get(right.number) is right

    def use(self, right: Right) -> None:
        """The lease is used now."""
        self._rights.pop(right.number, None)

    def give_back(self, right: Right) -> None:
        """The lease will not be used; for one that is gone, nothing."""
        if self.has(right):
            del self._rights[right.number]
            self._unused(right.number)

    def drop(self, before: float = float("inf")) -> None:
        """Gives back all leases with lower numbers; who holds one finds it gone."""
        for right in [right for number, right in self._rights.items() if number < before]:
            self.give_back(right)

    def forget(self) -> None:
        """Leases of a desk that is gone: it counts them as sent, and its numbers may come again."""
        self._rights.clear()

    def send_away(self) -> None:
        """No lease will come any more."""
        while self._waiters:
            _resolve(self._waiters.popleft(), None)

    def _next(self, tokens: int) -> Waiter | None:
        """The first that waits, can be sent and needs no more tokens than these."""
        passed: list[Waiter] = []
        found = None
        while self._waiters and found is None:
            waiter = self._waiters.popleft()
            if waiter.right.done():
                continue
            if not waiter.still():
                _resolve(waiter, None)
            elif waiter.tokens > tokens:
                passed.append(waiter)
            else:
                found = waiter
        self._waiters.extendleft(reversed(passed))
        return found


def _resolve(waiter: Waiter, right: Right | None) -> None:
    if not waiter.right.done():
        waiter.right.set_result(right)
