"""How long answers take with so many requests beside them, as a mean with its uncertainty."""

import math

__all__ = ["AnswerTimes", "relative_error"]


class AnswerTimes:
    """Mean of the times of some answers.

    Attributes:
        count: Answers in it.
        mean_s: Seconds from the request to its whole answer.
        beside: Requests that were on the wire when each was sent, itself included; the mean.
    """

    __slots__ = ("_squares", "beside", "count", "mean_s")

    def __init__(self) -> None:
        self.count = 0
        self.mean_s = self.beside = self._squares = 0.0

    def add(self, seconds: float, beside: int) -> None:
        """Takes in one answer."""
        self.count += 1
        off = seconds - self.mean_s
        self.mean_s += off / self.count
        self._squares += off * (seconds - self.mean_s)
        self.beside += (beside - self.beside) / self.count

    def merge(self, other: "AnswerTimes", most: int) -> None:
        """Takes in another one; both together then weigh no more than ``most`` answers, so that old ones fade."""
        count = self.count + other.count
        share, off = other.count / count, other.mean_s - self.mean_s
        self._squares += other._squares + off * off * self.count * share
        self.mean_s += off * share
        self.beside += (other.beside - self.beside) * share
        weight = min(1.0, most / count)
        self.count, self._squares = int(count * weight), self._squares * weight

    @property
    def variation(self) -> float:
        """Squared standard deviation over squared mean; 1 while that cannot be known."""
        if self.count < 2 or not self.mean_s:
            return 1.0
        return self._squares / (self.count - 1) / self.mean_s**2


def relative_error(one: AnswerTimes, other: AnswerTimes) -> float:
    """Standard error of the ratio of two means, as a share of it."""
    return math.sqrt(one.variation / max(1, one.count) + other.variation / max(1, other.count))
