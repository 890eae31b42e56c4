"""A process that is forked off a run lets go of the run's files: their lock would outlive the run with it."""

import contextlib
import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["let_go_in_forks"]


class _Holding(Protocol):
    fd: int


_held: WeakSet[_Holding] = WeakSet()


def let_go_in_forks(holder: _Holding) -> None:
    """From now on, what is forked off this process finds ``os.devnull`` behind the holder's descriptor.

    A kernel lock belongs to the open file, which a fork shares; so a worker process of the user's program that is
    still there after the run would keep the next run out.
    """
    _held.add(holder)


def _let_go() -> None:
    for holder in _held:
        if holder.fd >= 0:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR)
                # The number stays taken, so that a late write or close here hits no other file.
                os.dup2(null, holder.fd, inheritable=False)
                os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
