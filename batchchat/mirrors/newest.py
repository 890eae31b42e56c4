"""Which answers are newer: those in the store, or those that a run has left in its mirror or in segments.

The store has a note of the mirror that last added to it, and a mirror one of the object that it was brought down from.
"""

import contextlib
import os
import secrets
from typing import Self

import msgspec

from batchchat.errors import ResultsWriteError
from batchchat.mirrors.leftovers import outdate
from batchchat.mirrors.place import parts_prefix
from batchchat.storage.faults import StorageError
from batchchat.storage.objects import get_bytes, put_bytes, remove
from batchchat.storage.segments import Segments
from batchchat.storage.tries import Tries
from batchchat.storage.urls import join

__all__ = ["Newest", "NotedSegments"]


class _InStore(msgspec.Struct, frozen=True, kw_only=True):
    """The note in the store.

    Attributes:
        mirror: The one that last added to it.
        whole: Etag of the results that have all that segments have; None where they have not.
    """

    mirror: str
    whole: str | None = None


class _InMirror(msgspec.Struct, frozen=True, kw_only=True):
    """The note in a mirror.

    Attributes:
        mirror: What it is called.
        etag: Of the results that it was brought down from.
        before: The note in the store then.
    """

    mirror: str
    etag: str
    before: _InStore | None


class Newest:
    """Made by ``of`` once the results are held and brought down.

    Attributes:
        segments: Whether segments are newer than the results.
    """

    def __init__(self, place: str, name: str, there: _InStore | None, *, segments: bool) -> None:
        self._place, self._name, self._there = place, name, there
        self.segments = segments

    @classmethod
    def of(cls, folder: str, results: str, etag: str, tries: Tries) -> Self:
        """Reads both notes; where somebody has added to the store since, what is left in the mirror is older.

        Args:
            folder: Of the mirror.
            results: URL.
            etag: Of the results that are brought down now, or ``ABSENT``.
            tries: For requests.

        Raises:
            StorageError: The store cannot be asked.
            ResultsWriteError: The note cannot be written.
        """
        place, path = join(parts_prefix(results), "mirror.json"), os.path.join(folder, "brought-down.json")
        there, here = _there(place, tries), _here(path)
        segments = there is None or there.whole != etag
        if here is not None and here.etag == etag and there in (_InStore(mirror=here.mirror), here.before):
            return cls(place, here.mirror, there, segments=segments)
        outdate(folder)
        here = _InMirror(mirror=secrets.token_hex(16), etag=etag, before=there)
        _write(path, here)
        return cls(place, here.mirror, there, segments=segments)

    def note(self, tries: Tries) -> None:
        """Notes in the store that this mirror is about to add to it.

        Raises:
            StorageError: It cannot be put.
        """
        self._put(_InStore(mirror=self._name), tries)

    def note_whole(self, etag: str, tries: Tries) -> None:
        """Notes in the store that the results have all that segments have, before these are removed.

        Raises:
            StorageError: It cannot be put.
        """
        self._put(_InStore(mirror=self._name, whole=etag), tries)

    @property
    def noted(self) -> bool:
        """Whether the store has a note."""
        return self._there is not None

    def forget(self, tries: Tries) -> None:
        """Removes the note in the store, once there are no segments.

        Raises:
            StorageError: It cannot be removed.
        """
        if self._there is not None:
            remove(self._place, tries=tries)
            self._there = None

    def _put(self, note: _InStore, tries: Tries) -> None:
        if self._there != note:
            put_bytes(self._place, msgspec.json.encode(note), tries=tries)
            self._there = note


class NotedSegments(Segments):
    """Those of a mirror: the store has its note before the first of them.

    Attributes:
        newest: Known once the results are brought down.
    """

    newest: Newest | None = None

    def append(self, data: bytes) -> None:
        """See ``Segments``."""
        if self.newest is not None:
            self.newest.note(self.tries or Tries())
        super().append(data)


def _there(place: str, tries: Tries) -> _InStore | None:
    try:
        data = get_bytes(place, tries=tries)[0]
    except StorageError as error:
        if error.kind == "missing" and error.is_object:
            return None
        raise
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(data, type=_InStore)
    return None


def _here(path: str) -> _InMirror | None:
    with contextlib.suppress(OSError, msgspec.DecodeError), open(path, "rb") as file:
        return msgspec.json.decode(file.read(), type=_InMirror)
    return None


def _write(path: str, note: _InMirror) -> None:
    try:
        with open(path, "wb") as file:
            file.write(msgspec.json.encode(note))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResultsWriteError(f"{path}: the mirror cannot be written: {error.strerror}") from error
