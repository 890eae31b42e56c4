"""Seconds by size, in few numbers whatever their count: percentiles that are right within 2 %."""

import math

import msgspec

__all__ = ["Histogram"]

# Each class reaches 4 % further than the one below it; its middle is at most 2 % from every value in it.
_GROWTH = 1.04
_SCALE = 1.0 / math.log(_GROWTH)
_LEAST_S = 0.001
_MOST_S = 1e8
_log = math.log


class Histogram(msgspec.Struct, gc=False):
    """How often which number of seconds came; two of them can be added up.

    Classes grow by 4 % from a millisecond on, so that there are at most 650 of them. What is less counts as that.

    Attributes:
        counts: Number of a class to how many values are in it.
        total: How many values there are.
        sum_s, least_s, most_s: Exact; ``least_s`` and ``most_s`` are 0 where there is no value.
    """

    counts: dict[int, int] = msgspec.field(default_factory=dict)
    total: int = 0
    sum_s: float = 0.0
    least_s: float = 0.0
    most_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Counts one value; one that is negative or no number is none."""
        if not 0.0 <= seconds <= _MOST_S:
            return
        number = int(_log(seconds / _LEAST_S) * _SCALE) if seconds > _LEAST_S else 0
        counts = self.counts
        counts[number] = counts.get(number, 0) + 1
        if not self.total or seconds < self.least_s:
            self.least_s = seconds
        if seconds > self.most_s:
            self.most_s = seconds
        self.total += 1
        self.sum_s += seconds

    def merge(self, other: "Histogram") -> None:
        """Counts what the other one has counted."""
        if not other.total:
            return
        for number, count in other.counts.items():
            self.counts[number] = self.counts.get(number, 0) + count
        self.least_s = min(self.least_s, other.least_s) if self.total else other.least_s
        self.most_s = max(self.most_s, other.most_s)
        self.total += other.total
        self.sum_s += other.sum_s

    def mean(self) -> float | None:
        """Seconds; None where there is no value."""
        return self.sum_s / self.total if self.total else None

    def percentile(self, percent: float) -> float | None:
        """Seconds that ``percent`` of the values do not exceed, within 2 %; None where there is no value."""
        if not self.total:
            return None
        wanted = max(1, math.ceil(self.total * percent / 100))
        if wanted >= self.total:
            return self.most_s
        seen = 0
        for number in sorted(self.counts):
            seen += self.counts[number]
            if seen >= wanted:
                middle: float = _LEAST_S * _GROWTH ** (number + 0.5)
                return min(max(middle, self.least_s), self.most_s)
        return self.most_s

    def classes(self) -> list[tuple[float, float, int]]:
        """From and to in seconds and the count of each class that has any, the smallest first."""
        return [
            (0.0 if number == 0 else _LEAST_S * _GROWTH**number, _LEAST_S * _GROWTH ** (number + 1), count)
            for number, count in sorted(self.counts.items())
        ]
