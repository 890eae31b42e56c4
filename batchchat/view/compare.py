"""Two runs side by side: their prompts joined by id, each with a verdict on its answers."""

from array import array
from bisect import bisect_left
from typing import Literal, get_args

from batchchat.view.columns import ANSWERED, Columns

__all__ = ["NONE", "VERDICTS", "Comparison", "Verdict"]

Verdict = Literal["same", "differs", "one_failed", "both_failed", "only_left", "only_right"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
NONE = -1
_SAME, _DIFFERS, _ONE_FAILED, _BOTH_FAILED, _ONLY_LEFT, _ONLY_RIGHT = range(6)


class Comparison:
    """Every prompt of either table once, those of the left one first; takes about 3 s for a million and one.

    Attributes:
        left, right: Rows; ``NONE`` where there is none.
        verdict: Index into ``VERDICTS``.
        counts: How many have each verdict.
    """

    def __init__(self, left: Columns, right: Columns) -> None:
        self.left, self.right, self.verdict = array("q"), array("q"), array("B")
        self.counts = dict.fromkeys(VERDICTS, 0)
        self._tables = left, right
        found = _Finder(right)
        seen = bytearray(right.count)
        own = _Finder(left)
        for row in range(left.count):
            if own.row_of(left.ids[row]) != row:
                continue  # a second line for an id
            other = found.row_of(left.ids[row])
            if other != NONE:
                seen[other] = 1
            self._add(row, other)
        for other in range(right.count):
            if not seen[other] and found.row_of(right.ids[other]) == other:
                self._add(NONE, other)

    def chosen(self, verdicts: frozenset[str], flags: tuple[bytearray, bytearray] | None = None) -> "array[int]":
        """Positions that have one of these verdicts; all for none.

        Args:
            flags: For each row of the left and the right table, whether it is one that is looked for; rows beyond their
                end are none. None for no such choice.
        """
        wanted = [not verdicts or verdict in verdicts for verdict in VERDICTS]
        found = (at for at, verdict in enumerate(self.verdict) if wanted[verdict])
        if flags is None:
            return array("I", found)
        ours, theirs = flags
        left, right = self.left, self.right
        return array("I", (at for at in found if _is_set(ours, left[at]) or _is_set(theirs, right[at])))

    def _add(self, left: int, right: int) -> None:
        verdict = self._judge(left, right)
        self.left.append(left)
        self.right.append(right)
        self.verdict.append(verdict)
        self.counts[VERDICTS[verdict]] += 1

    def _judge(self, left: int, right: int) -> int:
        if left == NONE:
            return _ONLY_RIGHT
        if right == NONE:
            return _ONLY_LEFT
        one, other = self._tables
        answered = (one.kind[left] == ANSWERED) + (other.kind[right] == ANSWERED)
        if answered < 2:
            return _ONE_FAILED if answered else _BOTH_FAILED
        return _SAME if one.answers[left] == other.answers[right] else _DIFFERS


def _is_set(flags: bytearray, row: int) -> bool:
    return 0 <= row < len(flags) and flags[row] == 1


class _Finder:
    """The first row of an id, found by its hash; 12 bytes for each row."""

    def __init__(self, columns: Columns) -> None:
        ids = columns.ids
        self._rows = array("I", sorted(range(columns.count), key=ids.__getitem__))
        self._keys = array("q", (ids[row] for row in self._rows))

    def row_of(self, key: int) -> int:
        at = bisect_left(self._keys, key)
        return self._rows[at] if at < len(self._keys) and self._keys[at] == key else NONE
