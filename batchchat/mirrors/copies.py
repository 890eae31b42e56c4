"""The files of a run in a store, on this machine for reading: a mirror that a run writes, or copies for a moment."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from batchchat.compress import compression_of, open_input
from batchchat.errors import ResultsFileError
from batchchat.ids import IdTable
from batchchat.jsonl import iter_lines
from batchchat.mirrors.place import MirrorPlace, mirror_place, naming, parts_prefix, placed_in
from batchchat.results.codec import Codec
from batchchat.results.lock import is_locked
from batchchat.results.scan import RawLine, judge
from batchchat.storage.faults import StorageError
from batchchat.storage.reading import open_range
from batchchat.storage.segments import Segments

__all__ = ["readable"]

_COPY_BYTES = 1 << 20


@contextlib.contextmanager
def readable(
    results: str, errors: str | None = None, summary: str | None = None, *, needed: bool = True
) -> Iterator[MirrorPlace]:
    """The files of results at a URL, with what a run has not brought into them yet.

    Args:
        needed: Whether it is an error that there are none.

    Raises:
        ResultsFileError: There are none, or they cannot be read; what is raised inside is told with the names that the
            user knows.
    """
    place = mirror_place(results, errors, summary)
    with contextlib.ExitStack() as stack:
        if not is_locked(place.local.results):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchchat-"))
            place = placed_in(folder, results, errors, summary)
            _copy(place, needed=needed)
        with naming(place):
            yield place


def _copy(place: MirrorPlace, *, needed: bool) -> None:
    local, remote = place.local, place.remote
    there = _copy_down(remote.results, local.results)
    there = _add_segments(place, exists=there) or there
    if not there and needed:
        raise ResultsFileError(f"{remote.results}: there is no such results file")
    for url, path in ((remote.errors, local.errors), (remote.summary, local.summary)):
        if url is not None and path is not None and url != path:
            _copy_down(url, path)


def _copy_down(url: str, path: str) -> bool:
    """False where there is no such object."""
    try:
        source = open_range(url)
    except StorageError as error:
        if error.kind == "missing" and error.is_object:
            return False
        raise
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with source, open(path, "wb") as target:
        while piece := source.read(_COPY_BYTES):
            target.write(piece)
    return True


def _add_segments(place: MirrorPlace, *, exists: bool) -> bool:
    """Adds answers that only segments hold; whether there are segments."""
    path, ids, some = place.local.results, IdTable(), False
    kind = compression_of(path)
    for data in Segments(parts_prefix(place.remote.results)).read_all():
        if exists and not some:
            for line in _lines(path):
                _is_new(line, ids)
        some = True
        piece = os.path.join(place.folder, f"segment{'.' + kind if kind else ''}")
        with open(piece, "wb") as file:
            file.write(data)
        new = b"".join(line + b"\n" for line in _lines(piece) if _is_new(line, ids))
        with open(path, "ab") as file:
            file.write(Codec(kind).encode(new))
    return some


def _lines(path: str) -> Iterator[bytes]:
    with open_input(path) as stream:
        for _, line in iter_lines(stream):
            yield line


def _is_new(line: bytes, ids: IdTable) -> bool:
    stored = judge(RawLine(2, 0, line, True)).stored
    return stored is not None and ids.add(stored.id)
