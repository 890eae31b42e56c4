"""One object at a time, with further tries, and with an answer that was lost told from a conflict."""

import uuid
from collections.abc import Callable

from batchchat.storage.faults import ConflictError, StorageError
from batchchat.storage.store import ABSENT, ANY, Stat, store_of
from batchchat.storage.tries import PATIENT, Tries

__all__ = ["get_bytes", "put_bytes", "put_whole", "remove", "stat", "stat_or_none"]


def stat(place: str, *, tries: Tries | None = None) -> Stat:
    """Size and etag of an object or file.

    Raises:
        StorageError: There is none (``kind`` missing), or it cannot be asked for.
    """
    return (tries or Tries()).call(lambda: store_of(place).stat(place))


def stat_or_none(place: str, *, tries: Tries | None = None) -> Stat | None:
    """As ``stat``; None where there is no such object. A missing bucket is an error."""
    try:
        return stat(place, tries=tries)
    except StorageError as error:
        if error.kind == "missing" and error.is_object:
            return None
        raise


def get_bytes(place: str, *, tries: Tries | None = None) -> tuple[bytes, str]:
    """The whole of a small object, and its etag.

    Raises:
        StorageError: As ``stat``.
    """
    tries = tries or Tries()
    store = store_of(place)
    while True:
        found = tries.call(lambda: store.stat(place))
        came = bytearray()

        def read(came: bytearray = came, found: Stat = found) -> None:
            if len(came) < found.size_bytes:
                store.read(place, len(came), found.size_bytes, found.etag, came)

        try:
            tries.call(read, progress=lambda came=came: len(came))  # type: ignore[misc]
        except ConflictError:
            if tries.given_up:
                raise
            continue  # it was replaced between both requests, as a lease is
        return bytes(came), found.etag


def put_bytes(place: str, data: bytes, *, expect: str = ANY, tries: Tries | None = None) -> str:
    """Puts a small object in one request; gives its etag.

    Args:
        expect: ``ABSENT``, ``ANY``, or the etag of the object that it replaces.

    Raises:
        ConflictError: What is there is not what was expected; it was not touched.
        StorageError: It cannot be put.
    """
    tries = tries or Tries(PATIENT)
    store, mark = store_of(place), uuid.uuid4().hex
    return _put(place, expect, mark, tries, lambda: tries.call(lambda: store.put(place, data, expect, mark)))


def put_whole(place: str, local_path: str, *, expect: str = ANY, tries: Tries | None = None) -> str:
    """Puts a file as an object, whole or not at all; gives its etag. Big ones go up in parts.

    Raises:
        ConflictError: As ``put_bytes``.
        StorageError: It cannot be put.
    """
    tries = tries or Tries(PATIENT)
    store, mark = store_of(place), uuid.uuid4().hex
    return _put(place, expect, mark, tries, lambda: store.put_file(place, local_path, expect, mark, tries))


def remove(place: str, *, tries: Tries | None = None) -> None:
    """Removes an object; one that is not there is fine.

    Raises:
        StorageError: It cannot be removed.
    """
    (tries or Tries()).call(lambda: store_of(place).remove(place))


def _put(place: str, expect: str, mark: str, tries: Tries, put: Callable[[], str]) -> str:
    try:
        return put()
    except StorageError as error:
        # A try whose answer was lost may have been the one that replaced the object: then the mark is there, and the
        # next try met it as a stranger's.
        if expect == ANY or error.kind in ("denied", "given up"):
            raise
        try:
            found = tries.call(lambda: store_of(place).stat(place))
        except StorageError as now:
            if now.kind == "missing" and error.kind in ("missing", "changed") and error.is_object and expect != ABSENT:
                raise ConflictError(place, "somebody else has removed it meanwhile") from error
            raise error from None
        if found.mark == mark:
            return found.etag
        raise
