"""Which processes that share a limit are still there: each holds a lock on a file of its own."""

import contextlib
import os
from pathlib import Path

from batchchat.hostlimits.store import lock_now

__all__ = ["Membership"]


class Membership:
    """This process among those that share a service's limits.

    A kernel lock ends with its process, however that ends, and holds while it is stopped; unlike a process id it means
    the same in every container and is never given out again.

    Args:
        stem: What the files' names begin with.
        owner: This process's number.
    """

    def __init__(self, stem: Path, owner: int) -> None:
        self._stem, self._owner = stem, owner
        self._fd = -1

    def join(self) -> None:
        """Makes this process known as alive.

        Raises:
            OSError: Its file cannot be written or locked.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._fd = os.open(self._path(self._owner), flags, 0o600)
        lock_now(self._fd)

    def tidy(self) -> None:
        """Removes what killed processes left; needs the lock under which processes join and files are written anew."""
        for path in self._stem.parent.glob(f"{self._stem.name}.*"):
            if path.suffix != ".lock":
                self._is_held(path)

    def leave(self) -> None:
        """Ends it; reservations that are left are then nobody's."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path(self._owner))
            self.forget()

    def forget(self) -> None:
        """Closes the file without a word, in a child that was forked with it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def is_alive(self, owner: int) -> bool:
        """Whether another process is there, running or stopped."""
        return owner == self._owner or self._is_held(self._path(owner))

    @staticmethod
    def _is_held(path: Path) -> bool:
        """Whether a process holds the file; one that nobody holds is removed."""
        try:
            fd = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            if not lock_now(fd):
                return True
            with contextlib.suppress(OSError):
                os.unlink(path)
            return False
        except OSError:
            return True
        finally:
            os.close(fd)

    def _path(self, owner: int) -> Path:
        return Path(f"{self._stem}.{owner:016x}")
