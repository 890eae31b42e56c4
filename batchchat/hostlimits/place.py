"""Where the shared file of a service lies, and how it is named without telling anything."""

import os
import sys
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

__all__ = ["boot_id", "limits_folder", "service_digest", "service_host"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def limits_folder() -> Path:
    """The folder of the shared files: below the user's state folder, so that a terminal and cron find the same one."""
    return Path(platformdirs.user_state_path("batchchat")) / "limits"


def service_digest(kind: str, services: Iterable[tuple[str, str | None]]) -> str:
    """32 hex digits for a service and a key; neither can be read out of it.

    Args:
        kind: The provider's.
        services: Addresses, each with its key.
    """
    named = repr((kind, sorted({(service_host(url), key or "") for url, key in services})))
    return blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16, person=b"batchchat-limits").hexdigest()


def service_host(url: str) -> str:
    """``host:port`` of an address: whatever the path, it is one service that counts the requests."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').lower()}:{parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)}"


def boot_id() -> str:
    """What is another one after each start of the machine, and on each machine of a shared home; empty if unknown."""
    if sys.platform != "linux":
        return ""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return f"{stream.read().strip()} {_clock_namespace()}"
    except (OSError, ValueError):
        return ""


def _clock_namespace() -> str:
    """Containers may have a monotonic clock of their own."""
    try:
        return os.readlink("/proc/self/ns/time")
    except OSError:
        return ""
