"""The records of the shared file: fixed size, each with a checksum, so that a garbled one is seen and counted."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = [
    "CORRECT",
    "FREE",
    "HEADER",
    "LAND",
    "LEAVE",
    "MOVED",
    "PAST",
    "PAUSE",
    "RECORD_BYTES",
    "RESERVE",
    "WANT",
    "Event",
    "dump_event",
    "dump_events",
    "load_events",
]

_FIELDS = struct.Struct("<IIQddI")
_SUM = struct.Struct("<I")
RECORD_BYTES = _FIELDS.size + _SUM.size

# "bcl" and a number; the first says which version of this form it is.
HEADER, RESERVE, LEAVE, LAND, FREE, CORRECT, PAUSE, WANT, PAST, MOVED = range(0x62636C00, 0x62636C0A)
_KINDS = frozenset(range(HEADER, MOVED + 1))


class Event(NamedTuple):
    """What one process did.

    Attributes:
        kind: ``RESERVE``: a request may leave at ``at``. ``LEAVE``: it is about to be written. ``LAND``: it was written
            by ``at``. ``FREE``: it never left. ``CORRECT``: it cost ``value`` tokens. ``PAUSE``: nobody sends before
            ``at``. ``WANT``: a process waits at ``at`` for ``value`` tokens. ``PAST``: ``requests`` were written
            by ``at``. ``HEADER``: ``owner`` stands for the machine's boot. ``MOVED``: another file has taken this one's
            place.
        seq: The request's number among its owner's.
        owner: The process, a random number.
        at: Seconds on the machine's monotonic clock.
        value: Tokens; seconds of a pause.
    """

    kind: int
    seq: int
    owner: int
    at: float
    value: float = 0.0
    requests: int = 0


def dump_event(event: Event) -> bytes:
    """One record."""
    fields = _FIELDS.pack(*event)
    return fields + _SUM.pack(zlib.crc32(fields))


def dump_events(events: Iterable[Event]) -> bytes:
    """The records of several events."""
    return b"".join(map(dump_event, events))


def load_events(data: bytes) -> Iterator[Event | None]:
    """The event of each whole record, None for one that is garbled."""
    for start in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        end = start + _FIELDS.size
        whole = zlib.crc32(data[start:end]) == _SUM.unpack_from(data, end)[0]
        event = Event._make(_FIELDS.unpack_from(data, start)) if whole else None
        yield event if event is not None and event.kind in _KINDS and _is_time(event.at) else None


def _is_time(at: float) -> bool:
    return 0.0 <= at < 1e12  # also false for NaN
