"""One limit for all runs of a user on this machine: a small file of events that every process reads and adds to.

``events`` is the form of the file, ``store`` its lock and its repair, ``table`` what the events amount to, ``members``
tells the dead from the living, ``ledger`` puts these together, ``access`` brings it to an event loop, ``limiter`` is
what a run sees.
"""

from batchchat.hostlimits.limiter import HostLimiter
from batchchat.hostlimits.place import limits_folder, service_digest

__all__ = ["HostLimiter", "limits_folder", "service_digest"]
