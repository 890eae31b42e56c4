"""Pacing by what a service tells of its own limits (``x-ratelimit-*``)."""

import msgspec

from batchchat.rate_headers import Quota, RateHeaders

__all__ = ["QuotaPace"]

# From this share on, what is left is spread over the time until the limit is whole again.
_FEW_SHARE = 0.1
_FEW_REQUESTS = 10
# A limit that takes longer to be whole again is a budget of a day or so: whoever meets its end is told by the service,
# and the run waits or stops as for any such answer.
_LONGEST_RESET_S = 300.0


class QuotaPace:
    """What is left of the service's limits, and when the next request fits.

    What an answer tells holds as of the moment when the service took its request in, which lies somewhere between
    sending and answer; requests overtake each other on the way. So the lowest remainder counts that no later request
    is known to have replaced, less everything that is on its way. When the limit is due to be whole again, it counts as
    whole, or as one request where its size is not known.

    Args:
        spread: Whether the last part of a limit is spread over its time; if not, only its end is heeded.
    """

    def __init__(self, *, spread: bool) -> None:
        self._requests, self._tokens = _Left(spread=spread), _Left(spread=spread)
        self._on_way: dict[object, tuple[float, float]] = {}  # when it was sent, and its tokens
        self._counts = False  # before anything is told, nobody needs the sums of what is on its way
        self._last_at = 0.0

    @property
    def active(self) -> bool:
        """Whether the service has told anything."""
        return self._counts and (self._requests.known or self._tokens.known)

    @property
    def counts_tokens(self) -> bool:
        """Whether the service has told of tokens, so that requests have to be estimated."""
        return self._tokens.known

    def sent(self, request: object, tokens: float, now: float) -> None:
        """A request of an estimated number of tokens goes out now."""
        self._on_way[request] = (now, tokens)
        self._last_at = now
        if self._counts:
            self._requests.spend(1, now)
            self._tokens.spend(tokens, now)

    def left(self, request: object, *, told: bool = False) -> None:
        """The request is over; if its answer has ``told`` nothing, what it spent stays spent."""
        if (found := self._on_way.pop(request, None)) is not None and self._counts:
            self._requests.arrive(1, told=told)
            self._tokens.arrive(found[1], told=told)

    def observe(self, told: RateHeaders, request: object, now: float) -> str | None:
        """Takes in what the answer to a request tells; a sentence where a limit begins to hold requests up."""
        if not self._counts:
            self._count()
        sent_at, _ = self._on_way.get(request, (now, 0.0))
        self.left(request, told=True)
        sentences = []
        for left, quota, what in ((self._requests, told.requests, "requests"), (self._tokens, told.tokens, "tokens")):
            if quota is not None and quota.reset_s <= _LONGEST_RESET_S and left.observe(quota, sent_at, now):
                of = f" of {quota.limit}" if quota.limit else ""
                sentences.append(f"{quota.remaining}{of} {what} are left for {quota.reset_s:.3g} s")
        return f"the service says that {' and '.join(sentences)}; sending no faster than that" if sentences else None

    def _count(self) -> None:
        self._counts = True
        for left, spent in (
            (self._requests, len(self._on_way)),
            (self._tokens, sum(t for _, t in self._on_way.values())),
        ):
            left.spend(spent, self._last_at)

    def open_at(self, tokens: float, at: float, now: float | None = None) -> float:
        """Loop time from which a request of ``tokens`` fits, if nothing newer is known until then.

        Args:
            at: When it could go out at the earliest.
            now: Where that is not yet: limits that are whole again by then are not taken for whole before.
        """
        opens_at = 0.0
        for left, amount in ((self._requests, 1.0), (self._tokens, tokens)):
            if left.known:
                if at >= left.reset_at:
                    if now is not None and now < left.reset_at:
                        continue
                    self._forget_before(at - left.renew(amount, at))
                opens_at = max(opens_at, left.open_at(amount, at))
        return opens_at

    def _forget_before(self, sent_at: float) -> None:
        """What was sent before the limit was last whole no longer counts, even if its answer takes for ever."""
        for request in [request for request, (at, _) in self._on_way.items() if at < sent_at]:
            self.left(request, told=True)


class _Told(msgspec.Struct, frozen=True):
    """One remainder: when its answer came, and when the limit is whole again after it."""

    remaining: float
    answered_at: float
    reset_at: float


class _Left:
    """What is left of one limit.

    Attributes:
        known: Whether anything has been told.
        on_way: What requests without an answer spend.
        reset_at: Loop time at which the limit is whole again.
    """

    __slots__ = ("_last_at", "_limit", "_period_s", "_remaining", "_spread", "_told", "known", "on_way", "reset_at")

    def __init__(self, *, spread: bool) -> None:
        self._spread = spread
        self._told: list[_Told] = []
        self._remaining = self._last_at = self._period_s = 0.0
        self._limit: int | None = None
        self.known = False
        self.on_way = self.reset_at = 0.0

    def spend(self, amount: float, now: float) -> None:
        """Counts a request that goes out."""
        self.on_way += amount
        self._last_at = now

    def arrive(self, amount: float, *, told: bool) -> None:
        """Counts a request as no longer on its way."""
        self.on_way -= amount
        if not told:
            self._remaining -= amount

    def observe(self, quota: Quota, sent_at: float, now: float) -> bool:
        """Takes in a remainder of a request sent at a time; whether little is left now, and was not before."""
        was_low = self.known and self._is_low(self._remaining, 1)
        self._told = [each for each in self._told if each.answered_at >= sent_at]
        self._told.append(_Told(float(quota.remaining), now, now + quota.reset_s))
        self.known, self._limit = True, quota.limit
        self._remaining = min(each.remaining for each in self._told)
        self.reset_at = max(each.reset_at for each in self._told)
        self._period_s = max(self._period_s, quota.reset_s)
        return self._is_low(self._remaining, 1) and not was_low

    def renew(self, amount: float, now: float) -> float:
        """Takes the limit for whole, which lets a request larger than it through; the length of its period."""
        self._told = []
        self._remaining = max(float(self._limit or 0), amount)
        self.reset_at = now + self._period_s
        return self._period_s

    def open_at(self, amount: float, now: float) -> float:
        """Loop time from which ``amount`` fits."""
        available = self._remaining - self.on_way
        if available < amount:
            return self.reset_at
        if not self._spread or not self._is_low(available, amount):
            return 0.0
        return self._last_at + (self.reset_at - now) * amount / available

    def _is_low(self, available: float, amount: float) -> bool:
        return available <= (self._limit * _FEW_SHARE if self._limit else _FEW_REQUESTS * amount)
