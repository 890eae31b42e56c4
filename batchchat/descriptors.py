"""How many connections the system lets this process have."""

import sys

from batchchat.errors import ConfigError

__all__ = ["check_descriptors", "fit_concurrency"]

_OTHER_FILES = 32  # files, pipes, the event loop, name resolution
_FEWEST_FILES = 20


def check_descriptors() -> None:
    """Sees that a run can open its files at all, after raising the soft limit as far as that needs.

    Raises:
        ConfigError: It cannot.
    """
    allowed = _allowed(_OTHER_FILES)
    if allowed is not None and allowed < _FEWEST_FILES:
        raise ConfigError(
            f"the system lets this process open {allowed} files, expected {_FEWEST_FILES} at least; "
            "raise the limit (ulimit -n) to 64 or more"
        )


def fit_concurrency(concurrency: int, processes: int = 1) -> int:
    """The concurrency that the limit on open files allows, after raising the soft limit as far as it goes.

    Args:
        processes: How many share the connections.
    """
    share = -(-concurrency // processes)
    allowed = _allowed(share + _OTHER_FILES)
    return concurrency if allowed is None else max(1, min(concurrency, processes * (allowed - _OTHER_FILES)))


def _allowed(wanted: int) -> int | None:
    """How many files may be open, up to ``wanted`` where the soft limit can be raised; None for no limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (ValueError, OSError):
        return soft
    return target
