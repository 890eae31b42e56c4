"""The work place of a run whose results are in a store: journals on the workers' machines, parts in the store."""

import contextlib
import glob
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any, Self

from batchchat.errors import ConfigError, ResultsWriteError
from batchchat.mirrors.parts import Marker, ShardPlaces, copy_down, read_marker, scratch_folder, write_marker
from batchchat.mirrors.place import parts_prefix
from batchchat.mirrors.shard import ShardMirror
from batchchat.run_output import OutputSettings, RunOutput
from batchchat.shards.work_place import PartFiles
from batchchat.storage.faults import StorageError
from batchchat.storage.objects import put_bytes, remove
from batchchat.storage.segments import Segments
from batchchat.storage.tries import PATIENT, Tries
from batchchat.storage.urls import join

__all__ = ["WorkStore"]

# So many shards are noted at once before their workers get them.
_AHEAD = 32


class WorkStore:
    """See ``WorkPlace``.

    Args:
        results: URL.
        token: Names the run.
    """

    def __init__(self, results: str, token: str) -> None:
        self._results, self._token = results, token
        self._lock = threading.Lock()
        self._last = 0
        self._left: set[int] = set()
        # The first that is not gone, which may be yet to begin, as they do not begin in order; and later ones that are.
        self._first, self._gone = 1, set[int]()
        self._open: dict[int, ShardMirror] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._results, self._token)

    @classmethod
    def make(cls, results: str) -> Self:
        """A place for a run that holds the results; blocks.

        Raises:
            StorageError: The store cannot be written to.
        """
        place = cls(results, secrets.token_hex(16))
        write_marker(results, Marker(token=place._token), Tries(PATIENT))
        return place

    @property
    def told(self) -> str:
        """See ``WorkPlace``."""
        return f"{parts_prefix(self._results)}/"

    @property
    def desk_memory(self) -> str:
        """See ``WorkPlace``."""
        return scratch_folder(self._token, "desk")

    def check(self) -> None:
        """See ``WorkPlace``."""
        host, expected = socket.gethostname(), "expected a store that every node of the cluster reaches"
        trial = join(parts_prefix(self._results), self._token, f"trial-{secrets.token_hex(8)}")
        try:
            found = read_marker(self._results, Tries())
            if same := found is not None and found.token == self._token:
                put_bytes(trial, b"", tries=Tries())
                remove(trial, tries=Tries())
        except StorageError as error:
            raise ConfigError(
                f"a worker on {host} cannot write beside {error}; {expected}, with the same keys"
            ) from error
        if not same:
            raise ConfigError(f"a worker on {host} sees another {self._results} than the run does, {expected}")

    def open(self, number: int, settings: OutputSettings) -> RunOutput | None:
        """See ``WorkPlace``."""
        mirror = ShardMirror(self._places(number))
        if mirror.is_whole():
            return None
        output = RunOutput.open(mirror.files, settings, mirror)
        self._open[number] = mirror
        return output

    def make_whole(self, number: int) -> None:
        """See ``WorkPlace``."""
        self._open.pop(number).make_whole()

    def leave(self, number: int) -> None:
        """See ``WorkPlace``."""
        self._open.pop(number).leave()

    def begin(self, number: int) -> None:
        """See ``WorkPlace``."""
        with self._lock:
            self._left.add(number)
            if number > self._last:
                last = number + _AHEAD
                write_marker(self._results, self._marker(last), Tries(PATIENT))
                self._last = last

    @contextlib.contextmanager
    def fetched(self, number: int, *, whole: bool) -> Iterator[PartFiles]:
        """See ``WorkPlace``."""
        places, folder = self._places(number), scratch_folder(self._token, f"merge-{number:06}")
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            yield _brought(places, folder)
        except OSError as error:
            raise ResultsWriteError(f"{folder}: a part cannot be brought here: {error.strerror or error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self, number: int, *, whole: bool) -> None:
        """See ``WorkPlace``."""
        self._places(number).remove(Tries(), whole=whole)
        with self._lock:
            self._left.discard(number)
            self._gone.add(number)
            while self._first in self._gone:
                self._gone.discard(self._first)
                self._first += 1

    def remove(self) -> None:
        """See ``WorkPlace``; the mirror removes them once the results are in the store."""
        for path in glob.glob(f"{glob.escape(self.desk_memory)}*"):
            with contextlib.suppress(OSError):
                os.unlink(path)
        with self._lock:
            last = max(self._left, default=0)
            write_marker(self._results, self._marker(last, merged=True), Tries(PATIENT))

    def _marker(self, last: int, *, merged: bool = False) -> Marker:
        return Marker(token=self._token, first=self._first, last=last, merged=merged)

    def _places(self, number: int) -> ShardPlaces:
        return ShardPlaces(self._results, self._token, number)


def _brought(places: ShardPlaces, folder: str) -> PartFiles:
    """Copies of what there is: the part, or segments and what a worker on this machine had not brought up."""
    answers, failures, tries = os.path.join(folder, "answers"), os.path.join(folder, "failures"), Tries(PATIENT)
    if not copy_down(places.part, answers, tries):
        with open(answers, "wb") as file:
            file.writelines(Segments(places.segments, tries=tries).read_all())
            for path in (places.journal, *places.kept_here()):
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as here:
                    shutil.copyfileobj(here, file)
                    file.write(b"\n")  # the last line may be torn
    return PartFiles(answers, failures if copy_down(places.errors, failures, tries) else None)
