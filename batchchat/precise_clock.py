"""The clock of an event loop, as of now and not as of the beginning of the loop's turn."""

import asyncio
import sys
import time
from collections.abc import Callable

__all__ = ["precise_clock"]


def precise_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What ``loop.time`` gives, in seconds, but exactly.

    uvloop reads its clock once in a turn, in whole milliseconds: a turn that took 20 ms would have its requests counted
    20 ms too early, and a window could hold too many. On Linux its clock is the one that Python reads.
    """
    if sys.platform == "linux" and type(loop).__module__.partition(".")[0] == "uvloop":
        return time.monotonic
    return loop.time
