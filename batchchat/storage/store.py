"""The seam to stores: what each kind can do with one object."""

import os
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from batchchat.storage.urls import is_url, parse

if TYPE_CHECKING:
    from batchchat.storage.tries import Tries

__all__ = ["ABSENT", "ANY", "Stat", "Store", "store_of"]

# What may be there when an object is put: nothing, anything, or the one with this etag.
ABSENT: Final = "*absent*"
ANY: Final = "*any*"


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it is now.

    Attributes:
        etag: Changes with the content; as the store gives it.
        modified_at: UTC, None where the store does not tell.
        now: The store's own clock at the time of the answer, None where it does not tell.
        mark: What ``put`` was given as ``mark``.
    """

    size_bytes: int
    etag: str
    modified_at: datetime | None = None
    now: datetime | None = None
    mark: str | None = None


class Store(Protocol):
    """One request each, without another try; all raise ``StorageError``, ``TransientError`` where one more may help."""

    def stat(self, place: str) -> Stat:
        """What is there."""

    def read(self, place: str, start: int, stop: int, etag: str | None, into: bytearray) -> str:
        """Adds the bytes from ``start`` to before ``stop``, or to the end, as they come; gives the etag.

        What came before a fault stays in ``into``. With an etag, another object is a ``ConflictError``.
        """

    def put(self, place: str, data: bytes, expect: str, mark: str) -> str:
        """Puts the whole object, if what is there is what is expected; gives its etag."""

    def put_file(self, place: str, local_path: str, expect: str, mark: str, tries: "Tries") -> str:
        """As ``put`` for a file of any size, in parts; ``tries`` is the ``Tries`` of each part."""

    def remove(self, place: str) -> None:
        """Removes it; nothing there is fine."""


def store_of(place: str) -> Store:
    """What speaks to the store of a URL or path.

    Raises:
        ConfigError: No such store is known, or what it needs is not installed.
    """
    return _made(parse(place).kind if is_url(place) else "path", os.getpid())


@lru_cache
def _made(kind: str, pid: int) -> Store:
    """One for each kind; a forked child needs its own, as the thread behind it stayed with the parent."""
    if kind == "path":
        from batchchat.storage.path_store import PathStore

        return PathStore()
    if kind == "s3":
        from batchchat.storage.s3_store import S3Store

        return S3Store()
    from batchchat.storage.fsspec_store import FsspecStore

    return FsspecStore(kind)
