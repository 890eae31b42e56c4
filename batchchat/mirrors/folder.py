"""The folder of a mirror: made and locked for one run of this machine at a time, and removed by the one that has it."""

import os
import shutil
from contextlib import suppress

from batchchat.errors import ResultsLockedError, ResultsWriteError
from batchchat.mirrors.place import MirrorPlace
from batchchat.results.lock import open_locked

__all__ = ["MirrorFolder"]

_LOCK = "lock"
# A run that ends may take the folder away while the next one is about to lock it.
_TURNS = 5


class MirrorFolder:
    """From ``open`` to ``close``, no other run of this machine has it."""

    def __init__(self, place: MirrorPlace) -> None:
        self._place, self._fd = place, -1
        self._lock = os.path.join(place.folder, _LOCK)

    def open(self) -> None:
        """Makes the folder and what is to be in it.

        Raises:
            ResultsLockedError: Another run of this machine has it.
            ResultsWriteError: It cannot be made.
        """
        self._take_lock()
        # Only now, as the run that had the lock may have removed them.
        for path in (self._place.local.errors, self._place.local.summary):
            if path is not None and path.startswith(self._place.folder + os.sep):
                self._make(os.path.dirname(path))

    @property
    def is_open(self) -> bool:
        """Whether this run has it."""
        return self._fd >= 0

    def remove(self) -> None:
        """Removes it, the lock as the last: what is there once the lock is gone is another run's."""
        with suppress(OSError):
            for found in list(os.scandir(self._place.folder)):
                if found.name == _LOCK:
                    continue
                if found.is_dir(follow_symlinks=False):
                    shutil.rmtree(found.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(found.path)
            os.unlink(self._lock)
            os.rmdir(self._place.folder)

    def close(self) -> None:
        """Gives it up."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _take_lock(self) -> None:
        for left in reversed(range(_TURNS)):
            self._make(self._place.folder)
            try:
                self._fd, _ = open_locked(self._lock)
                return
            except ResultsLockedError as error:
                raise ResultsLockedError(
                    f"{self._place.remote.results}: another run on this machine holds these results; "
                    "wait for it to end, or name others with -o"
                ) from error
            except ResultsWriteError as error:
                if not left or not isinstance(error.__cause__, FileNotFoundError):
                    raise

    def _make(self, folder: str) -> None:
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise ResultsWriteError(
                f"{self._place.folder}: the mirror of {self._place.remote.results} cannot be made: {error.strerror}"
            ) from error
