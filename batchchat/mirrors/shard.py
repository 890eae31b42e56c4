"""The mirror of one shard's journal: a worker writes it on its own machine, and its new lines go up as they come."""

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from typing import Any

from batchchat.errors import ResultsWriteError
from batchchat.mirrors.lease import LeaseLostError
from batchchat.mirrors.leftovers import take_in_data, take_in_file
from batchchat.mirrors.parts import ShardPlaces
from batchchat.mirrors.shipping import Shipping
from batchchat.results import Journal, RunFiles
from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.objects import put_whole, stat_or_none
from batchchat.storage.segments import Segments
from batchchat.storage.store import ABSENT
from batchchat.storage.tries import PATIENT, Tries

__all__ = ["ShardMirror"]


class ShardMirror:
    """See ``Mirror``, whose calls it has; ``make_whole`` or ``leave`` after ``publish``."""

    notes: Sequence[str] = ()

    def __init__(self, places: ShardPlaces) -> None:
        self._places = places
        self._tries, self._shipping_tries = Tries(PATIENT), Tries(PATIENT)
        self._segments = Segments(places.segments, tries=self._tries)
        self._shipping: Shipping | None = None
        torn = os.path.join(places.scratch, "journal.torn")
        self.files = RunFiles(results=places.journal, errors=places.journal_errors, summary=None, torn=torn)

    def open(self) -> None:
        """Makes the folder of the journal, which may have one of a worker that died here."""
        folder = self._places.scratch
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            found = os.lstat(folder)
        except OSError as error:
            raise ResultsWriteError(f"{folder}: answers cannot be kept there: {error.strerror}") from error
        if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            raise ResultsWriteError(f"{folder}: found a folder of somebody else, expected none")

    def take_in(self, journal: Journal) -> list[str]:
        """Adds what workers before have brought to the store, and brings there what one here had not."""
        here, folder = journal.end, self._places.scratch
        for data in self._segments.read_all():
            take_in_data(journal, folder, data)
        stored = journal.end
        for path in self._places.kept_here():
            take_in_file(journal, folder, path)
        if here or journal.end != stored:
            with open(journal.path, "rb") as file:
                self._segments.append(file.read())  # lines that are there already count once
        for path in self._places.kept_here():
            with contextlib.suppress(OSError):
                os.unlink(path)
        return []

    def begin(self, end: int, lost: Callable[[LeaseLostError], None]) -> None:
        """See ``Mirror.begin``; a shard has no lease."""
        self._segments.tries = self._shipping_tries
        self._shipping = Shipping(
            self._places.journal, end, self._segments, tries=self._shipping_tries, notice=lambda sentence: None
        )
        self._shipping.start()

    def wrote(self, end: int) -> None:
        """See ``Mirror.wrote``."""
        if self._shipping is not None:
            self._shipping.wrote(end)

    @property
    def shipped(self) -> int:
        """See ``Mirror.shipped``."""
        return 0 if self._shipping is None else self._shipping.shipped

    def publish(self, *, keep_errors: bool, failed: bool) -> list[str]:
        """Brings the rest of the closed journal up, and the failures; a sentence where that went wrong."""
        if self._shipping is None:
            return []
        self._shipping.close()
        self._segments.tries = self._tries
        try:
            with open(self._places.journal, "rb") as file:
                file.seek(self._shipping.shipped)
                if rest := file.read():
                    self._segments.append(rest)
            if self.files.errors is not None and os.path.getsize(self.files.errors):
                put_whole(self._places.errors, self.files.errors, tries=self._tries)
        except (StorageError, OSError) as error:
            where = f"the folder {self._places.scratch} on {socket.gethostname()}"
            return [f"{error}; answers that did not get there are kept in {where}"]
        return []

    def make_whole(self) -> None:
        """The closed journal becomes the part, unless it is there; blocks.

        Raises:
            StorageError: It cannot be put; segments and journal stay.
        """
        with contextlib.suppress(ConflictError):  # another worker did, that was thought to be dead
            put_whole(self._places.part, self._places.journal, expect=ABSENT, tries=self._tries)
        self._segments.remove()
        self.leave()

    def leave(self) -> None:
        """Removes what is on this machine, as all of it is in the store."""
        shutil.rmtree(self._places.scratch, ignore_errors=True)

    def is_whole(self) -> bool:
        """Whether there is a part; then nothing else stays.

        Raises:
            StorageError: The store cannot be asked.
        """
        if stat_or_none(self._places.part, tries=self._tries) is None:
            return False
        self._segments.remove()
        self.leave()
        return True

    def told_all(self, value: Any) -> Any:
        """See ``Mirror.told_all``."""
        return value
