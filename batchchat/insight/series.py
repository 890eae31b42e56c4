"""A timeline as columns of one width, without the long stretches in which nothing ended."""

from itertools import pairwise
from statistics import median

import msgspec

from batchchat.insight.timeline import Bucket, Timeline

__all__ = ["Column", "Stretch", "cut_into_stretches"]

_MOST_COLUMNS = 96
# A stretch without an outcome is cut out where it is longer than a minute, than twenty usual ones, and than a quarter
# of the time in which something happened: a stall within a run stays in sight, the night between two runs does not.
_LEAST_IDLE_S, _USUAL_TIMES, _SHARE = 60.0, 20, 0.25


class Column(msgspec.Struct, frozen=True, gc=False):
    """What ended within some seconds.

    Attributes:
        start_s, end_s: Unix times.
        covered_s: Seconds of it up to the last outcome, at least half of it; for rates.
    """

    start_s: float
    end_s: float
    covered_s: float
    bucket: Bucket


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """Columns that follow each other, also those in which nothing ended.

    Attributes:
        idle_before_s: How long nothing ended before it; 0 for the first.
    """

    columns: list[Column]
    idle_before_s: float


def cut_into_stretches(timeline: Timeline, most_columns: int = _MOST_COLUMNS) -> list[Stretch]:
    """The timeline in about ``most_columns`` columns at most, of one width; none where nothing ended."""
    numbers = sorted(timeline.buckets)
    if not numbers:
        return []
    parts = _split(numbers, timeline.width_s)
    spans = sum(part[-1] - part[0] + 1 for part in parts)
    share = 1
    while spans > share * most_columns:
        share *= 2
    made: list[Stretch] = []
    for part in parts:
        columns = _columns(timeline, part, share)
        if made and columns[0].start_s <= made[-1].columns[-1].start_s:  # one wide column holds the end and the start
            columns[0].bucket.merge(made[-1].columns[-1].bucket)
            del made[-1].columns[-1]
            if not made[-1].columns:
                made.pop()
        idle_s = columns[0].start_s - made[-1].columns[-1].end_s if made else 0.0
        made.append(Stretch(columns, max(0.0, idle_s)))
    return made


def _split(numbers: list[int], width_s: float) -> list[list[int]]:
    steps = [later - earlier for earlier, later in pairwise(numbers)]
    usual = max(1.0, median(steps)) if steps else 1.0
    busy_s = sum(step for step in steps if step <= _USUAL_TIMES * usual) * width_s
    longest_s = max(_LEAST_IDLE_S, _USUAL_TIMES * usual * width_s, _SHARE * busy_s)
    parts = [[numbers[0]]]
    for step, number in zip(steps, numbers[1:], strict=True):
        if step * width_s > longest_s:
            parts.append([])
        parts[-1].append(number)
    return parts


def _columns(timeline: Timeline, numbers: list[int], share: int) -> list[Column]:
    width_s = timeline.width_s * share
    first, last = numbers[0] // share, numbers[-1] // share
    buckets = [Bucket() for _ in range(last - first + 1)]
    for number in numbers:
        buckets[number // share - first].merge(timeline.buckets[number])
    begin_s, finish_s = timeline.first_at or 0.0, timeline.last_at or 0.0
    made = []
    for place, bucket in enumerate(buckets):
        start_s = (first + place) * width_s
        covered_s = width_s
        if start_s + width_s > finish_s:  # the last one, which may have only begun; and may be the first as well
            covered_s = max(finish_s - max(start_s, begin_s), width_s / 2)
        made.append(Column(start_s, start_s + width_s, covered_s, bucket))
    return made
