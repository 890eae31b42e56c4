"""Processes that must not wait for a processor."""

import contextlib
import os

__all__ = ["put_first"]


def put_first(pid: int) -> None:
    """Lets a server run before others where that is permitted: one that is kept waiting sees what arrives in bunches.

    Its clock judges limits. Beside two busy processes, one of the usual kind was seen to look at it 30 ms late.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, -15)
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
