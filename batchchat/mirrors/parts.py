"""Parts of a run on workers, in the store that has its results: what they are called, and how they are removed.

Under ``RESULTS.parts/TOKEN/``, each shard has segments while a worker is at it, and one object once it is whole. The
marker beside tells the token and between which numbers shards may be, so that nothing depends on listings.
"""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from batchchat.errors import ResultsWriteError
from batchchat.mirrors.place import parts_prefix
from batchchat.results.rescue import spills_of
from batchchat.storage.faults import StorageError
from batchchat.storage.objects import get_bytes, put_bytes, remove, stat_or_none
from batchchat.storage.reading import open_range
from batchchat.storage.segments import Segments
from batchchat.storage.tries import Tries
from batchchat.storage.urls import join

__all__ = [
    "Marker",
    "ShardPlaces",
    "copy_down",
    "each_of",
    "places_of",
    "read_marker",
    "remove_marker",
    "remove_shards",
    "scratch_folder",
    "write_marker",
]

_T = TypeVar("_T")
_R = TypeVar("_R")
_COPY_BYTES = 1 << 20
_AT_ONCE = 16


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What a run tells of its shards.

    Attributes:
        token: Of the run.
        first, last: Numbers between which shards may have left something, both included.
        merged: Whether all that they hold is in the results of the mirror.
    """

    token: str
    first: int = 1
    last: int = 0
    merged: bool = False


class ShardPlaces:
    """The objects of one shard.

    Attributes:
        part: Once it is whole, its answers.
        errors: Its failures; put before the part is.
        segments: Its answers while a worker is at it, see ``Segments``.
        scratch: The folder on the worker's machine that has its journal.
        journal: The path of that.
        journal_errors: The path of the failures beside it.
    """

    def __init__(self, results: str, token: str, number: int) -> None:
        prefix = join(parts_prefix(results), token)
        self.part, self.errors = join(prefix, f"part-{number:06}.jsonl"), join(prefix, f"part-{number:06}.errors.jsonl")
        self.segments = join(prefix, f"shard-{number:06}")
        self.scratch = scratch_folder(token, f"shard-{number:06}")
        self.journal = os.path.join(self.scratch, "journal.jsonl")
        self.journal_errors = os.path.join(self.scratch, "journal.errors.jsonl")

    def kept_here(self) -> list[str]:
        """Paths of what workers on this machine kept beside the journal: answers that it did not take, and copies."""
        copies = glob.glob(os.path.join(glob.escape(self.scratch), "*.recovered*"))
        return [*sorted(copies), *spills_of(os.path.realpath(self.journal), self.journal_errors)]

    def remove(self, tries: Tries, *, whole: bool = False) -> None:
        """Removes what there is of them in the store and on this machine; those of a whole part have no segments.

        Raises:
            StorageError: It cannot be removed.
        """
        for path in self.kept_here():
            with contextlib.suppress(OSError):
                os.unlink(path)
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not whole:
            Segments(self.segments, tries=tries).remove()
        remove(self.errors, tries=tries)
        remove(self.part, tries=tries)


def scratch_folder(token: str, name: str) -> str:
    """The path of a folder of this machine's for a run; nobody can guess it, and it is gone at the end."""
    return os.path.join(tempfile.gettempdir(), f"batchchat-{token}-{name}")


def read_marker(results: str, tries: Tries) -> Marker | None:
    """What the last run on workers has left of its shards; None where there is nothing.

    Raises:
        StorageError: The store cannot be asked.
        ResultsWriteError: What is there is none.
    """
    place = _marker(results)
    try:
        return msgspec.json.decode(get_bytes(place, tries=tries)[0], type=Marker)
    except StorageError as error:
        if error.kind == "missing" and error.is_object:
            return None
        raise
    except msgspec.DecodeError as error:
        raise ResultsWriteError(f"{place}: expected what a run has noted there, found something else") from error


def write_marker(results: str, marker: Marker, tries: Tries) -> None:
    """Notes what may be there; before it is.

    Raises:
        StorageError: It cannot be put.
    """
    put_bytes(_marker(results), msgspec.json.encode(marker), tries=tries)


def remove_shards(results: str, marker: Marker, tries: Tries) -> None:
    """Removes all that shards have left, the marker last; that of another run stays.

    Raises:
        StorageError: It cannot be removed.
    """
    each_of(places_of(results, marker), lambda places: places.remove(tries))
    remove_marker(results, marker, tries)


def remove_marker(results: str, marker: Marker, tries: Tries) -> None:
    """Removes the marker, unless another run has put its own there.

    Raises:
        StorageError: It cannot be removed.
    """
    found = read_marker(results, tries)
    if found is not None and found.token == marker.token:
        remove(_marker(results), tries=tries)


def copy_down(url: str, path: str, tries: Tries) -> bool:
    """Copies an object into a file; False where there is none.

    Raises:
        StorageError: It cannot be read.
        OSError: The file cannot be written.
    """
    if (found := stat_or_none(url, tries=tries)) is None:
        return False
    with open_range(url, etag=found.etag) as source, open(path, "wb") as target:
        while piece := source.read(_COPY_BYTES):
            if tries.given_up:
                raise StorageError(url, "given up while it was brought down", "given up")
            target.write(piece)
    return True


def each_of(items: Iterable[_T], call: Callable[[_T], _R]) -> list[_R]:
    """What a call gives for each item, some of them at a time."""
    with ThreadPoolExecutor(_AT_ONCE, "batchchat-parts") as threads:
        return list(threads.map(call, items))


def places_of(results: str, marker: Marker) -> list[ShardPlaces]:
    """The objects of each shard that there may be."""
    return [ShardPlaces(results, marker.token, number) for number in range(marker.first, marker.last + 1)]


def _marker(results: str) -> str:
    return join(parts_prefix(results), "workers.json")
