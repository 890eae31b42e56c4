"""Windows of the day in which a run may send, such as ``22:00-06:00`` and ``Sat,Sun 00:00-24:00``.

Pure arithmetic over Unix times: what "now" is, the caller says.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta

import msgspec

__all__ = ["DayWindow", "DayWindows", "parse_window", "parse_zone"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FORM = re.compile(r"(?:([A-Za-z, -]*[A-Za-z])\s+)?(\d{1,2}):(\d{2})\s*(?:-|–|to)\s*(\d{1,2}):(\d{2})", re.ASCII)
_DAY_MINUTES = 24 * 60
_EXPECTED = "expected a window of the day such as 22:00-06:00, or Mon-Fri 20:00-06:00"
# A window opens at least once a week; one that daylight saving leaves out on its only day, a week later.
_AHEAD_DAYS = 16


class DayWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window: from ``start`` to ``end``, minutes after midnight by the clock on the wall.

    Attributes:
        start: 0 to 1439.
        end: 1 to 1440; at or before ``start`` it is on the next day.
        days: Days on which it opens, 0 for Monday.
    """

    start: int
    end: int
    days: frozenset[int] = frozenset(range(7))

    def __str__(self) -> str:
        days = "" if len(self.days) == 7 else ",".join(_DAYS[day] for day in sorted(self.days)) + " "
        return f"{days}{_clock(self.start)}-{_clock(self.end)}"


def parse_window(text: object) -> DayWindow:
    """The window that a text such as ``Mon-Fri 20:00-06:00`` means.

    Raises:
        ValueError: It is none; the sentence says what was found and what was expected.
    """
    match = _FORM.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{_EXPECTED}, found {text!r}")
    start, end = (_minutes(hours, minutes, text) for hours, minutes in ((match[2], match[3]), (match[4], match[5])))
    if start == _DAY_MINUTES:
        raise ValueError(f"expected a window that opens at 00:00 and not at 24:00, found {text!r}")
    if start == end or (start, end) == (0, 0):
        raise ValueError(f"expected two different times (00:00-24:00 for the whole day), found {text!r}")
    return DayWindow(start=start, end=end or _DAY_MINUTES, days=_days(match[1], text))


def parse_zone(text: object) -> str:
    """The name of a time zone, known on this machine.

    Raises:
        ValueError: There is none of that name.
    """
    from zoneinfo import ZoneInfo, available_timezones

    if isinstance(text, str) and text.strip():
        try:
            return ZoneInfo(text.strip()).key
        except (LookupError, ValueError, OSError):
            pass
    missing = "" if available_timezones() else " (this machine has no time zones; install the package tzdata)"
    raise ValueError(f"expected the name of a time zone such as Europe/Berlin, found {text!r}{missing}")


class DayWindows:
    """Several windows in one time zone; open where any of them is.

    Daylight saving: nothing is ever open while the clock on the wall shows a time outside. An hour that comes twice
    counts for opening the second time and for closing the first time; in an hour that is left out a window opens or
    closes at its end. A window that lies whole in such an hour opens in the second one, or not at all that day.

    Args:
        windows: At least one.
        zone: Name of the time zone; None for the machine's own.
    """

    def __init__(self, windows: Sequence[DayWindow], zone: str | None = None) -> None:
        from zoneinfo import ZoneInfo

        self._windows = tuple(windows)
        self._zone = None if zone is None else ZoneInfo(zone)

    def __str__(self) -> str:
        return ", ".join(map(str, self._windows)) + (f" ({self._zone.key})" if self._zone is not None else "")

    def closes_at(self, now: float) -> float | None:
        """Unix time at which what is open at ``now`` closes; None where it is closed, or never closes."""
        for start, end in self._spans(now):
            if start <= now < end:
                return end if end < now + (_AHEAD_DAYS - 2) * 86400 else None
        return None

    def opens_at(self, now: float) -> float:
        """Unix time from which it is open: ``now`` where it is already."""
        for start, end in self._spans(now):
            if now < end:
                return max(start, now)
        raise ValueError(f"{self} never opens")  # a week has every window

    def is_open(self, now: float) -> bool:
        """Whether requests may go out at ``now``."""
        return self.opens_at(now) == now

    def end_of(self, now: float, seconds: float) -> float:
        """Unix time at which so many open seconds from ``now`` on are over."""
        while True:
            now = self.opens_at(now)
            closes = self.closes_at(now)
            if closes is None or now + seconds <= closes:
                return now + seconds
            seconds -= closes - now
            now = closes

    def render(self, at: float, now: float) -> str:
        """A moment by the clock of the zone: ``22:00``, with its day where that is not the day of ``now``."""
        moment, today = self._local(at), self._local(now)
        day = "" if moment.date() == today.date() else f"{_DAYS[moment.weekday()]} "
        if moment - today > timedelta(days=6):
            day += f"{moment:%Y-%m-%d} "
        return f"{day}{moment:%H:%M}"

    def _spans(self, now: float) -> Iterator[tuple[float, float]]:
        """Open times from the day before ``now`` on, in order, those that touch joined."""
        first = self._local(now).date() - timedelta(days=2)
        days = [first + timedelta(days=ahead) for ahead in range(_AHEAD_DAYS + 2)]
        spans = sorted(span for day in days for window in self._windows if (span := self._span(window, day)))
        joined: tuple[float, float] | None = None
        for start, end in spans:
            if joined is not None and start <= joined[1]:
                joined = joined[0], max(joined[1], end)
                continue
            if joined is not None:
                yield joined
            joined = start, end
        if joined is not None:
            yield joined

    def _span(self, window: DayWindow, day: date) -> tuple[float, float] | None:
        if day.weekday() not in window.days:
            return None
        end_day = day if window.end > window.start else day + timedelta(days=1)
        start, end = self._instant(day, window.start, second=True), self._instant(end_day, window.end, second=False)
        if end <= start:  # both in the hour that comes twice
            end = self._instant(end_day, window.end, second=True)
        return (start, end) if start < end else None

    def _instant(self, day: date, minutes: int, *, second: bool) -> float:
        """Unix time of a time on the wall; of the end of the gap where the clock leaves it out."""
        shown = datetime.combine(day, time()) + timedelta(minutes=minutes)
        early, late = (shown.replace(fold=fold, tzinfo=self._zone).timestamp() for fold in (0, 1))
        if early <= late:
            return late if second else early
        # Left out: reckoned with the offset before (fold 0) it is too late, with the one after it too early.
        before, after = int(late), int(early)
        while after - before > 1:
            middle = (before + after) // 2
            if self._local(middle) < shown:
                before = middle
            else:
                after = middle
        return float(after)

    def _local(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone).replace(tzinfo=None, fold=0)


def _minutes(hours: str, minutes: str, text: object) -> int:
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > _DAY_MINUTES:
        raise ValueError(f"expected times from 00:00 to 24:00, found {text!r}")
    return total


def _days(names: str | None, text: object) -> frozenset[int]:
    """Numbers of the days in ``Mon-Fri``, ``Sat,Sun``; a range may go round the end of the week."""
    if names is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in names.split(","):
        first, dash, last = part.partition("-")
        bounds = [_day(name.strip(), text) for name in (first, last if dash else first)]
        day, end = bounds
        days.add(end)
        while day != end:
            days.add(day)
            day = (day + 1) % 7
    return frozenset(days)


def _day(name: str, text: object) -> int:
    for number, day in enumerate(_DAYS):
        if name.lower() in (day.lower(), _LONG[number]):
            return number
    raise ValueError(f"expected days such as Mon-Fri or Sat,Sun, found {name!r} in {text!r}")


_LONG = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
