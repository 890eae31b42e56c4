"""What happened when: a bounded number of stretches of time, which double in length as a run goes on."""

import msgspec

from batchchat.insight.histogram import Histogram

__all__ = ["Bucket", "Timeline"]

_MOST_BUCKETS = 200
_FIRST_WIDTH_S = 0.25


class Bucket(msgspec.Struct, gc=False):
    """Prompts that ended within a stretch of time, and attempts that failed in it.

    Attributes:
        failed: Error type to how many failed so.
        failed_attempts: Error type to how many attempts came to it, as far as lines tell when.
        requests: Attempts of the prompts that ended; they may have been made earlier.
        input_tokens, output_tokens: Of the answers.
        latency: Of the answers.
    """

    answered: int = 0
    failed: dict[str, int] = msgspec.field(default_factory=dict)
    failed_attempts: dict[str, int] = msgspec.field(default_factory=dict)
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency: Histogram = msgspec.field(default_factory=Histogram)

    def merge(self, other: "Bucket") -> None:
        """Counts what the other one has counted."""
        self.answered += other.answered
        for kind, count in other.failed.items():
            self.failed[kind] = self.failed.get(kind, 0) + count
        for kind, count in other.failed_attempts.items():
            self.failed_attempts[kind] = self.failed_attempts.get(kind, 0) + count
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.latency.merge(other.latency)

    @property
    def ended(self) -> int:
        """Answered and failed."""
        return self.answered + sum(self.failed.values())


class Timeline(msgspec.Struct, gc=False):
    """Buckets by their time; only those in which something ended exist, so that pauses of any length cost nothing.

    At most 200 buckets: beyond, all become twice as long, and two of them one.

    Attributes:
        width_s: Seconds of each; a power of two times 0.25.
        buckets: Number to bucket; number n begins at Unix time n × ``width_s``.
        first_at, last_at: Unix time of the first and last thing that ended; None where nothing did.
    """

    width_s: float = _FIRST_WIDTH_S
    buckets: dict[int, Bucket] = msgspec.field(default_factory=dict)
    first_at: float | None = None
    last_at: float | None = None

    def at(self, moment: float) -> Bucket:
        """The bucket of a Unix time, made where there is none."""
        if self.first_at is None or moment < self.first_at:
            self.first_at = moment
        if self.last_at is None or moment > self.last_at:
            self.last_at = moment
        number = int(moment // self.width_s)
        bucket = self.buckets.get(number)
        if bucket is None:
            bucket = self.buckets[number] = Bucket()
            if len(self.buckets) > _MOST_BUCKETS:
                self._shrink()
                bucket = self.buckets[int(moment // self.width_s)]
        return bucket

    def merge(self, other: "Timeline") -> None:
        """Counts what the other one has counted; its buckets stay its own."""
        while self.width_s < other.width_s:
            self._double()
        share = round(self.width_s / other.width_s)
        for number, bucket in other.buckets.items():
            self.buckets.setdefault(number // share, Bucket()).merge(bucket)
        for moment in (other.first_at, other.last_at):
            if moment is not None:
                self.first_at = moment if self.first_at is None else min(self.first_at, moment)
                self.last_at = moment if self.last_at is None else max(self.last_at, moment)
        self._shrink()

    def _shrink(self) -> None:
        while len(self.buckets) > _MOST_BUCKETS:
            self._double()

    def _double(self) -> None:
        self.width_s *= 2
        wider: dict[int, Bucket] = {}
        for number, bucket in self.buckets.items():
            known = wider.setdefault(number // 2, bucket)
            if known is not bucket:
                known.merge(bucket)
        self.buckets = wider
