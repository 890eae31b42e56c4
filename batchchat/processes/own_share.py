"""How many of a run's requests its own process makes, beside its children: as many as leave all equally busy. Pure."""

__all__ = ["OwnShare"]

# What is measured over a shorter or a longer time says little of now.
_SHORTEST_S, _LONGEST_S = 0.05, 1.0
# Below this, nobody waits for a processor, and it does not matter who makes a request.
_BUSY = 0.5
# Children fed by a process that is busier than they are lose nothing by it, up to here (tried, docs/performance.md).
_AHEAD = 0.3
_STEP = 1 / 64


class OwnShare:
    """The part of the requests in flight that the run's process may have, found by how busy it and its children are.

    It reads the input, hands requests out and writes results besides. Where requests are cheap, that is most of what a
    prompt costs, and the children do nearly all the asking; where they are dear, its part is that of any other process.

    Args:
        children: How many there are.

    Attributes:
        part: Of all requests in flight, from 0 to an equal part.
    """

    def __init__(self, children: int) -> None:
        self._children, self._most = children, 1 / (children + 1)
        self.part = self._most / 4
        self._last: dict[int, tuple[float, float, float]] = {}
        self._peak = self._peak_before = 0

    def allows(self, in_flight: int, least: int) -> bool:
        """Whether one more request should be the run's own, as the children have their part of what there is at most.

        They come first whenever fewer are on their way than that, as while results are written: this process has
        enough to do then.

        Args:
            in_flight: Requests of the whole run.
            least: Those of the child that has the fewest.
        """
        if in_flight >= self._peak:
            self._peak = in_flight + 1
        return least * self._children >= (1 - self.part) * max(self._peak, self._peak_before)

    def told(self, child: int, child_cpu_s: float, own_cpu_s: float, now: float) -> None:
        """Takes in the CPU time that a child has used so far, and this process; both at ``now`` (seconds)."""
        last = self._last.get(child)
        if last is None or child_cpu_s < last[0]:  # the first word, also of one that took another's place
            self._last[child] = (child_cpu_s, own_cpu_s, now)
            return
        passed_s = now - last[2]
        if passed_s < _SHORTEST_S:
            return
        self._last[child] = (child_cpu_s, own_cpu_s, now)
        self._peak, self._peak_before = 0, self._peak
        if passed_s > _LONGEST_S:
            return
        child_busy, own_busy = (child_cpu_s - last[0]) / passed_s, (own_cpu_s - last[1]) / passed_s
        if max(child_busy, own_busy) < _BUSY:
            return
        step = _STEP / self._children
        if own_busy > child_busy + _AHEAD:
            self.part = max(0.0, self.part - step)
        elif own_busy < child_busy:
            self.part = min(self._most, self.part + step)
