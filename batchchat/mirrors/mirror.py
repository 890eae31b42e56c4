"""The mirror of one run's files in a store: brought down at the beginning, up at the end, and never anything lost."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from typing import Any

from batchchat.errors import ResultsLockedError, ResultsWriteError
from batchchat.mirrors.keeping import LeaseKeeper
from batchchat.mirrors.lease import Lease, LeaseLostError
from batchchat.mirrors.leftovers import left_files, set_aside, take_in_data, take_in_file
from batchchat.mirrors.parts import read_marker, remove_shards, take_in_shards
from batchchat.mirrors.place import MirrorPlace, machine_name, parts_prefix
from batchchat.mirrors.shipping import Shipping
from batchchat.results import Journal
from batchchat.results.lock import open_locked
from batchchat.results.rescue import take_in_spills
from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.objects import get_bytes, put_bytes, put_whole, stat_or_none
from batchchat.storage.reading import open_range
from batchchat.storage.segments import Segments
from batchchat.storage.store import ABSENT
from batchchat.storage.tries import PATIENT, Tries
from batchchat.storage.urls import join

__all__ = ["Mirror"]

_COPY_BYTES = 1 << 20


class Mirror:
    """Used in this order: ``open``, ``take_in``, ``begin``, ``wrote``, ``publish``, ``finish``; they block.

    ``finish`` follows whatever happened before.

    Attributes:
        notes: What the user should know of the store; known after ``open``.
        notice: Told of what the store does while the run goes on, on its loop.
    """

    def __init__(self, place: MirrorPlace) -> None:
        self.place = place
        # One of them for the thread that ships, which is ended before the whole goes up.
        self._tries, self._shipping_tries = Tries(PATIENT), Tries(PATIENT)
        self._lock: int | None = None
        self._expect = ABSENT
        self._stamp: tuple[int, ...] | None = None
        prefix = parts_prefix(place.remote.results)
        self._segments = Segments(prefix, tries=self._shipping_tries)
        lease = join(prefix, "lease.json")
        self._lease = Lease(lease, place.remote.results, machine_name(), self._tries)
        self._keeper: LeaseKeeper | None = None
        self._in_order = False
        self._shipping: Shipping | None = None
        self._begun = self._published = False
        self.notes: list[str] = []
        self.notice: Callable[[str, int], None] = lambda sentence, level: None

    def give_up(self) -> None:
        """Ends what goes on with the store, and what is to come; the mirror stays for the next run."""
        self._tries.give_up()
        self._shipping_tries.give_up()

    def open(self) -> None:
        """Takes hold of the results and brings them down.

        Raises:
            ResultsLockedError: Another run holds them.
            ResultsWriteError: The mirror cannot be made; ``StorageError`` where the store cannot be asked.
        """
        self._make_folders()
        self._take_lock()
        self.notes = self._lease.take()
        self._keeper = LeaseKeeper(self._lease)
        self._keeper.start()
        set_aside(self.place.folder, self.place.local.results)
        self._in_order = True
        self._bring_down()

    def take_in(self, journal: Journal) -> list[str]:
        """Adds the answers that runs before have left, here and in the store; a sentence where there were some.

        Raises:
            ResultsFileError: They cannot be added.
        """
        before, told = len(journal.completed), list[str]()
        for data in self._segments.read_all():
            take_in_data(journal, self.place.folder, data)
        stored, file = journal.end, os.fstat(journal.fd)
        for path in left_files(self.place.folder):
            take_in_file(journal, self.place.folder, path)
        told = take_in_spills(journal)
        results = self.place.remote.results
        if (marker := read_marker(results, self._tries)) is not None:
            take_in_shards(journal, self.place.folder, results, marker, self._tries)
        # Where answers were taken out, the file was written anew.
        self._ship_at_once(journal, stored if os.path.samestat(file, os.fstat(journal.fd)) else 0)
        for path in left_files(self.place.folder):
            os.unlink(path)
        if marker is not None:
            remove_shards(results, marker, self._tries)
        count = len(journal.completed) - before
        if count and not told:
            told.append(f"{results}: {count} answers of a run that did not come to its end were taken in")
        return told

    def begin(self, end: int, lost: Callable[[LeaseLostError], None]) -> None:
        """From here on, what is written goes up; ``lost`` is called on the running loop where another run has it."""
        loop = asyncio.get_running_loop()

        def on_loop(call: Callable[[Any], None]) -> Callable[[Any], None]:
            def later(told: Any) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(call, told)

            return later

        self._begun = True
        self._shipping = Shipping(
            self.place.local.results,
            end,
            self._segments,
            tries=self._shipping_tries,
            notice=on_loop(lambda sentence: self.notice(sentence, 0)),
        )
        self._shipping.start()
        if self._keeper is not None:
            self._keeper.on_loss(on_loop(lost), on_loop(lambda sentence: self.notice(sentence, 0)))

    def wrote(self, end: int) -> None:
        """The results in the mirror are whole up to an offset."""
        if self._shipping is not None:
            self._shipping.wrote(end)

    @property
    def shipped(self) -> int:
        """Offset up to which the store has what is in the mirror."""
        return 0 if self._shipping is None else self._shipping.shipped

    def told_all(self, value: Any) -> Any:
        """See ``MirrorPlace.told_all``."""
        return self.place.told_all(value)

    def publish(self, *, keep_errors: bool) -> list[str]:
        """Brings the results and what goes with them up, whole; a sentence for each thing that went wrong.

        Args:
            keep_errors: Whether the errors file in the store stays as it is.
        """
        self._end_shipping()
        if not self._begun:
            return []
        if self._keeper is not None and self._keeper.lost is not None:
            return [self._kept(str(self._keeper.lost))]
        local, remote = self.place.local, self.place.remote
        try:
            if self._stamp != _stamp(local.results):
                put_whole(remote.results, local.results, expect=self._expect, tries=self._tries)
            if not keep_errors:
                self._put_up(local.errors, remote.errors)
            self._put_torn()
        except ConflictError as error:
            return [self._kept(f"{error.place}: somebody else changed it during the run, and it was not touched")]
        except (StorageError, OSError) as error:
            return [self._kept(str(error))]
        self._published = True
        return []

    def finish(self) -> list[str]:
        """Brings the summary up, and gives up what the run held; a sentence for each thing that went wrong."""
        self._end_shipping()
        if self._keeper is not None:
            self._keeper.close()
        troubles = []
        try:
            if self._begun and (self._keeper is None or self._keeper.lost is None):
                self._put_up(self.place.local.summary, self.place.remote.summary)
            if self._published:
                self._segments.remove()
                self._remove_shards()
            self._lease.release()
        except (StorageError, OSError) as error:
            troubles.append(f"{error}; what a run leaves behind there, the next one takes away")
        if self._lock is not None:
            if self._published or not self._holds_answers():
                shutil.rmtree(self.place.folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = None
        return troubles

    def _remove_shards(self) -> None:
        """What workers have left, where all of it is in the results."""
        marker = read_marker(self.place.remote.results, self._tries)
        if marker is not None and marker.merged:
            remove_shards(self.place.remote.results, marker, self._tries)

    def _make_folders(self) -> None:
        place = self.place
        try:
            for path in (place.local.results, place.local.errors, place.local.summary):
                if path is not None and path.startswith(place.folder + os.sep):
                    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise ResultsWriteError(
                f"{place.folder}: the mirror of {place.remote.results} cannot be made: {error.strerror}"
            ) from error

    def _take_lock(self) -> None:
        path, results = os.path.join(self.place.folder, "lock"), self.place.remote.results
        try:
            self._lock, _ = open_locked(path)
        except ResultsLockedError as error:
            raise ResultsLockedError(
                f"{results}: another run on this machine holds these results; "
                "wait for it to end, or name others with -o"
            ) from error

    def _bring_down(self) -> None:
        local, remote = self.place.local, self.place.remote
        found = stat_or_none(remote.results, tries=self._tries)
        if found is not None:
            self._expect = found.etag
            self._copy_down(remote.results, local.results, found.etag)
            self._stamp = _stamp(local.results)
        is_mirrored = local.errors is not None and local.errors != remote.errors
        if (
            is_mirrored
            and local.errors
            and remote.errors
            and stat_or_none(remote.errors, tries=self._tries) is not None
        ):
            self._copy_down(remote.errors, local.errors, None)  # it may be the input

    def _copy_down(self, url: str, path: str, etag: str | None) -> None:
        try:
            with open_range(url, etag=etag) as source, open(path, "wb") as target:
                while piece := source.read(_COPY_BYTES):
                    if self._tries.given_up:
                        raise StorageError(url, "given up while it was brought down", "given up")
                    target.write(piece)
                target.flush()
                os.fsync(target.fileno())
        except OSError as error:
            raise ResultsWriteError(f"{path}: the mirror of {url} cannot be written: {error.strerror}") from error

    def _ship_at_once(self, journal: Journal, start: int) -> None:
        """What only this machine had is safe in the store before the mirror's old files go."""
        if journal.end <= start:
            return
        with open(journal.path, "rb") as file:
            file.seek(start)
            while data := file.read(32 << 20):
                self._segments.append(data)

    def _end_shipping(self) -> None:
        if self._shipping is not None:
            self._shipping.close()
            self._shipping = None
        self._segments.tries = self._tries

    def _put_up(self, local: str | None, remote: str | None) -> None:
        if local is not None and remote is not None and local != remote and os.path.exists(local):
            put_whole(remote, local, tries=self._tries)

    def _put_torn(self) -> None:
        local, remote = self.place.local.torn, self.place.remote.torn
        if local is None or remote is None or not os.path.exists(local):
            return
        with open(local, "rb") as file:
            data = file.read()
        if stat_or_none(remote, tries=self._tries) is not None:
            data = get_bytes(remote, tries=self._tries)[0] + data
        put_bytes(remote, data, tries=self._tries)
        os.unlink(local)

    def _kept(self, what: str) -> str:
        return f"{what}; all answers are kept in the folder {self.place.folder}, and the same command takes them in"

    def _holds_answers(self) -> bool:
        """Whether there is anything in the mirror that the store may not have."""
        return self._begun or not self._in_order or bool(left_files(self.place.folder))


def _stamp(path: str) -> tuple[int, ...] | None:
    """Changes with every change of a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
