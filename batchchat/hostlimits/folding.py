"""The shared file made small again: a day of requests, the older the coarser, in a few thousand records."""

from collections.abc import Iterable

from batchchat.hostlimits import events as e
from batchchat.hostlimits.events import Event

__all__ = ["fold_events"]

# Up to which age requests stay apart, and into how many seconds older ones are put together; each group counts at the
# time of its last, so that no window is taken for emptier than it is. Longer than a day with its margin nothing counts.
_APART_S, _FINE_S, _LONGEST_S = 61.0, 3700.0, 86_900.0
_FINE_GROUP_S, _COARSE_GROUP_S = 1.0, 60.0


def fold_events(events: Iterable[Event], now: float) -> list[Event]:
    """Events that amount to the same as these.

    Args:
        events: All of a file, in their order.
    """
    open_events: dict[tuple[int, int], list[Event]] = {}
    landed: dict[tuple[int, int], Event] = {}
    past: list[Event] = []
    pause: Event | None = None
    for event in events:
        key = (event.owner, event.seq)
        if event.kind == e.RESERVE:
            open_events[key] = [event]
        elif event.kind == e.LEAVE and key in open_events:
            open_events[key].append(event)
        elif event.kind == e.FREE:
            open_events.pop(key, None)
        elif event.kind == e.LAND and key in open_events:
            tokens = open_events.pop(key)[0].value
            landed[key] = Event(e.PAST, event.seq, event.owner, event.at, tokens, 1)
        elif event.kind == e.CORRECT and key in open_events:
            open_events[key][0] = open_events[key][0]._replace(value=event.value)
        elif event.kind == e.CORRECT and key in landed:
            landed[key] = landed[key]._replace(value=event.value)
        elif event.kind == e.PAST and key != (0, 0):
            landed[key] = event
        elif event.kind == e.PAST:
            past.append(event)
        elif event.kind == e.PAUSE and event.at > now and (pause is None or event.at > pause.at):
            pause = event
    kept = _grouped(sorted([*past, *landed.values()], key=lambda event: event.at), now)
    return [*kept, *(event for group in open_events.values() for event in group), *([pause] if pause else [])]


def _grouped(past: Iterable[Event], now: float) -> list[Event]:
    groups: list[Event] = []
    last = None
    for event in past:
        age = now - event.at
        if age > _LONGEST_S:
            continue
        if age <= _APART_S:
            groups.append(event)
            continue
        size = _FINE_GROUP_S if age <= _FINE_S else _COARSE_GROUP_S
        slot = (size, event.at // size)
        if slot == last:
            groups[-1] = groups[-1]._replace(
                at=event.at, requests=min(0xFFFFFFFF, groups[-1].requests + event.requests)
            )
        else:
            groups.append(Event(e.PAST, 0, 0, event.at, 0.0, event.requests))
        last = slot
    return groups
