"""Where a run's socket is: a folder of the user's own, a name that follows from the results file."""

import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from hashlib import blake2b

__all__ = ["available", "folders", "is_own_folder", "own_folder", "socket_name"]

# The shortest bound of any system for a socket's path, with its closing zero: macOS; Linux has 108.
_MOST_PATH_BYTES = 103


def available() -> bool:
    """Whether this system has what a run listens on."""
    return hasattr(socket, "AF_UNIX") and sys.platform != "win32"


def folders() -> Iterator[str]:
    """Folders that may hold sockets, the best one first.

    A run from cron and the user's shell differ in their environment, so whoever asks looks into all of them.
    """
    uid = os.geteuid()
    places = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"]
    seen = set()
    for place in places:
        if os.path.isabs(place) and os.path.isdir(place):
            seen.add(os.path.join(place, "batchchat"))
            yield os.path.join(place, "batchchat")
    for place in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - of others' making is refused
        folder = os.path.join(os.path.abspath(place), f"batchchat-{uid}")
        if folder not in seen:
            seen.add(folder)
            yield folder


def socket_name(results: str) -> str:
    """Name of the socket of a results file: a digest of its real path, whatever way leads to it."""
    return blake2b(os.fsencode(os.path.realpath(results)), digest_size=16).hexdigest() + ".sock"


def own_folder(folder: str, name: str) -> str | None:
    """Makes a folder for sockets where there is none; what speaks against it, None where it can be used.

    Args:
        name: Of the socket that is to be there.
    """
    if len(os.fsencode(os.path.join(folder, name))) > _MOST_PATH_BYTES:
        return f"{folder}: the path is too long for a socket"
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not is_own_folder(folder):
        return f"{folder}: not a folder that is this user's alone (mode 0700)"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder}: it cannot be written to"
    return None


def is_own_folder(folder: str) -> bool:
    """Whether it is this user's folder, not a link to one, and nobody else may look into it."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
