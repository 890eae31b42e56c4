"""How many connections the system lets this process have."""

import sys

__all__ = ["fit_concurrency"]

_OTHER_FILES = 32  # files, pipes, the event loop, name resolution


def fit_concurrency(concurrency: int) -> int:
    """The concurrency that the limit on open files allows, after raising the soft limit as far as it goes."""
    if sys.platform == "win32":
        return concurrency
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = concurrency + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return concurrency
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (ValueError, OSError):
        target = soft
    return max(1, min(concurrency, target - _OTHER_FILES))
