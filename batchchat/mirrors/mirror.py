"""The mirror of one run's files in a store: brought down at the beginning, up at the end, and never anything lost."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from batchchat.errors import ResultsWriteError
from batchchat.mirrors.folder import MirrorFolder
from batchchat.mirrors.held import HeldTries
from batchchat.mirrors.keeping import LeaseKeeper
from batchchat.mirrors.lease import Lease, LeaseLostError
from batchchat.mirrors.left_shards import LeftShards
from batchchat.mirrors.leftovers import left_files, set_aside, take_in_data, take_in_left
from batchchat.mirrors.newest import Newest, NotedSegments
from batchchat.mirrors.parts import read_marker, remove_shards
from batchchat.mirrors.place import MirrorPlace, machine_name, parts_prefix
from batchchat.mirrors.shipping import Shipping, whole_pieces
from batchchat.results import Journal
from batchchat.results.rescue import take_in_spills
from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.objects import get_bytes, put_bytes, put_whole, stat_or_none
from batchchat.storage.reading import open_range
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
        self._stop = threading.Event()
        self._tries, self._shipping_tries = Tries(PATIENT, self._stop), Tries(PATIENT)
        self._folder = MirrorFolder(place)
        self._expect = ABSENT
        self._stamp: tuple[int, ...] | None = None
        prefix = parts_prefix(place.remote.results)
        self._segments = NotedSegments(prefix, tries=self._shipping_tries)
        lease = join(prefix, "lease.json")
        self._lease = Lease(lease, place.remote.results, machine_name(), self._tries)
        self._keeper: LeaseKeeper | None = None
        self._newest: Newest | None = None
        self._has_segments = False
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
        self._folder.open()
        self.notes = self._lease.take()
        self._keeper = LeaseKeeper(self._lease)
        self._keeper.start()
        set_aside(self.place.folder, self.place.local.results)
        self._in_order = True
        self._bring_down()
        self._newest = Newest.of(self.place.folder, self.place.remote.results, self._expect, self._tries)
        self._segments.newest = self._newest

    def take_in(self, journal: Journal) -> list[str]:
        """Adds the answers that runs before have left, here and in the store; a sentence where there were some.

        Raises:
            ResultsFileError: They cannot be added.
        """
        before, results = len(journal.completed), self.place.remote.results
        if self._newest is not None and not self._newest.segments:
            self._segments.remove()  # the rest of a removal
        for data in self._segments.read_all():
            take_in_data(journal, self.place.folder, data)
            self._has_segments = True
        with self._shipped_at_once(journal):
            told, shards = self._take_in_left(journal)
        for path in left_files(self.place.folder):
            os.unlink(path)
        while shards is not None and not shards.remove():
            with self._shipped_at_once(journal):
                shards.take_in(journal)
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

    def publish(self, *, keep_errors: bool, failed: bool) -> list[str]:
        """Brings the results and what goes with them up, whole; a sentence for each thing that went wrong.

        Args:
            keep_errors: Whether the errors file in the store stays as it is.
            failed: Whether something could not be written here. Then what is here is not whole, and what was spilled
                may be beside it: all stays as it is, in the store too.
        """
        self._end_shipping()
        if not self._begun:
            return []
        if self._keeper is not None and self._keeper.lost is not None:
            return [self._kept(str(self._keeper.lost))]
        if failed:
            return [self._kept(f"{self.place.remote.results}: not brought up whole, as it could not be written here")]
        local, remote = self.place.local, self.place.remote
        try:
            if self._stamp != _stamp(local.results):
                self._expect = put_whole(remote.results, local.results, expect=self._expect, tries=self._tries)
            if not keep_errors:
                self._put_up(local.errors, remote.errors, self._tries)
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
        troubles = []
        try:
            try:
                self._clean_up()
            finally:
                if self._keeper is not None:
                    self._keeper.close()
            self._lease.release()
        except (StorageError, OSError) as error:
            troubles.append(f"{error}; what a run leaves behind there, the next one takes away")
        if self._folder.is_open and (self._published or not self._holds_answers()):
            self._folder.remove()
        self._folder.close()
        return troubles

    def _clean_up(self) -> None:
        """Brings the summary up and removes what is in the results now, while the lease is still renewed."""
        if self._keeper is None or self._newest is None or not self._begun:
            return
        results, tries = self.place.remote.results, HeldTries(self._keeper, self._stop)
        with contextlib.suppress(LeaseLostError):  # told of already
            self._put_up(self.place.local.summary, self.place.remote.summary, tries)
            if not self._published:
                return
            if self._has_segments or self._newest.noted:
                # From here on, segments that are left are older than what is in the results.
                self._newest.note_whole(self._expect, tries)
            self._segments.tries = tries
            self._segments.remove()
            self._newest.forget(tries)
            marker = read_marker(results, tries)
            if marker is not None and marker.merged:
                remove_shards(results, marker, tries)

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

    def _take_in_left(self, journal: Journal) -> tuple[list[str], LeftShards | None]:
        """Adds what only this machine has, and what workers have left; what tells of it, and the shards to remove."""
        folder, results = self.place.folder, self.place.remote.results
        take_in_left(journal, folder)
        told = take_in_spills(journal)
        if (marker := read_marker(results, self._tries)) is None:
            return told, None
        shards = LeftShards(folder, results, marker, self._tries)
        shards.take_in(journal)
        return told, shards

    @contextlib.contextmanager
    def _shipped_at_once(self, journal: Journal) -> Iterator[None]:
        """What is added inside is safe in the store before what it came from goes."""
        start, file = journal.end, os.fstat(journal.fd)
        yield
        # Where answers were taken out, the file was written anew.
        start = start if os.path.samestat(file, os.fstat(journal.fd)) else 0
        if journal.end <= start:
            return
        for data in whole_pieces(journal, start):
            self._segments.append(data)

    def _end_shipping(self) -> None:
        if self._shipping is not None:
            self._shipping.close()
            self._shipping = None
        self._segments.tries = self._tries

    def _put_up(self, local: str | None, remote: str | None, tries: Tries) -> None:
        if local is not None and remote is not None and local != remote and os.path.exists(local):
            put_whole(remote, local, tries=tries)

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
