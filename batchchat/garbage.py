"""How Python is to run a process that is all ours: when it looks for garbage, and how long a thread goes on.

Garbage is hardly looked for while modules are read, later less often, and not in what they brought.
"""

import gc
import sys

__all__ = ["put_off_collecting", "settle_for_a_run"]

# More than a start makes; looking through all of it, again and again, would take a tenth of the start.
_OBJECTS_OF_A_START = 100_000
# Little of what a prompt leaves is for the collector; to look each 700 objects, the usual, costs 2 % of a prompt.
_OBJECTS_OF_A_RUN = 5_000
# Threads that wait for their turn are woken in vain by each callback of the loop until then; the usual are 5 ms.
_TURN_S = 0.001
_usual = gc.get_threshold()


def put_off_collecting() -> None:
    """For a process that is all ours, before anything else is imported."""
    gc.set_threshold(_OBJECTS_OF_A_START, *_usual[1:])


def settle_for_a_run() -> None:
    """Before the work begins, of which nobody knows how much garbage it makes."""
    gc.freeze()
    sys.setswitchinterval(_TURN_S)
    gc.set_threshold(_OBJECTS_OF_A_RUN, *_usual[1:])
