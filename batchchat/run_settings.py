"""Settings of runs that are left alone: windows of the day, and the breaker."""

from typing import Annotated

import msgspec
from msgspec import Meta

from batchchat.day_window import DayWindows, parse_window
from batchchat.job_forms import Seconds, Windows, Zone

__all__ = ["BreakerConfig", "RunConfig"]


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the service counts as dead, so that the run waits for it.

    Attributes:
        failures: Attempts in a row, without an answer between them, that met no service; 0 to wait for none.
        after_s: Least time between the first and the last of them.
        max_open_s: Longest time to wait for the service, beyond it the run stops; 0 for any.
    """

    failures: Annotated[int, Meta(ge=0)] = 20
    after_s: Seconds = msgspec.field(name="after", default=15.0)
    max_open_s: Seconds = msgspec.field(name="max_open", default=3600.0)


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the run may send.

    Attributes:
        window: Windows of the day outside which nothing new is sent, ``22:00-06:00``, ``Mon-Fri 20:00-06:00``; one or a
            list.
        timezone: Time zone of the windows, ``Europe/Berlin``; the machine's own without it.
    """

    window: Windows = []
    timezone: Zone | None = None

    def windows(self) -> DayWindows | None:
        """The windows; None where there is none, so that requests may go out at any time."""
        return DayWindows([parse_window(text) for text in self.window], self.timezone) if self.window else None
