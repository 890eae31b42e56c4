"""Processes that must not wait for a processor."""

import contextlib
import os

__all__ = ["put_first"]


def put_first(pid: int) -> None:
    """Lets a server run before others where that is permitted: one that is kept waiting sees what arrives in bunches."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, -15)
