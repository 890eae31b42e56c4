"""How many of a run's requests its own process makes, beside its children: as many as leave all equally busy. Pure."""

__all__ = ["OwnShare"]

# What is measured over a shorter or a longer time says little of now.
_SHORTEST_S, _LONGEST_S = 0.05, 1.0
# Below this, nobody waits for a processor, and it does not matter who makes a request.
_BUSY = 0.5
# Children fed by a process that is busier than they are lose nothing by it, up to here (measured, docs/performance.md).
_AHEAD = 0.4
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

    def allows(self, own: int, all_in_flight: int) -> bool:
        """Whether one more request may be the run's own, of so many that are in flight, ``own`` of them its own."""
        return own + 1 <= self.part * (all_in_flight + 1)

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
