"""What processes that batchchat starts for itself get of its environment: what they need, and no keys."""

import os
import re
import sys
from collections.abc import Mapping

__all__ = ["bare_environment", "keyless_environment", "module_path"]

# What an interpreter needs to start as this one did, and to find its libraries.
_NEEDED = re.compile(
    r"PYTHON\w+|LC_\w+|(LD|DYLD)_\w+|PATH|HOME|LANG|LANGUAGE|TZ|TE?MP|TMPDIR|VIRTUAL_ENV|SYSTEMROOT|WINDIR",
    re.IGNORECASE | re.ASCII,
)
_SECRET = re.compile(
    r"BATCHCHAT_\w+|(\w*_)?(\w*KEY|\w*TOKEN|SECRETS?|\w*PASSWORD|PASSWD|PASS|CREDENTIALS?|AUTH|COOKIE|PROXY|DSN)(_\w*)?",
    re.IGNORECASE | re.ASCII,
)


def bare_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For a child that computes only: what Python itself needs."""
    return {name: value for name, value in environ.items() if _NEEDED.fullmatch(name)}


def keyless_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For a child that libraries set up by variables of theirs: all but what is named like a secret."""
    return {name: value for name, value in environ.items() if not _SECRET.fullmatch(name)}


def module_path() -> str:
    """A child's ``PYTHONPATH``: it finds its modules where this process does, whatever the working folder holds."""
    return os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
