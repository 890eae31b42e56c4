"""Objects of any store that fsspec has a file system for, by what all of these have in common."""

import contextlib
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from batchchat.one_line import one_line
from batchchat.storage.extras import import_filesystem
from batchchat.storage.faults import ConflictError, StorageError, TransientError
from batchchat.storage.store import ABSENT, ANY, Stat

if TYPE_CHECKING:
    from batchchat.storage.tries import Tries

__all__ = ["FsspecStore"]

_T = TypeVar("_T")
_MARK_KEY = "batchchat-put"


class FsspecStore:
    """See ``Store``. What is expected of a new object is the store's to judge; what is replaced is looked at before."""

    def __init__(self, kind: str) -> None:
        self._fs = import_filesystem(kind)(use_listings_cache=False)
        self._marks = kind == "gs"

    def stat(self, place: str) -> Stat:
        """See ``Store``."""

        def stat() -> Stat:
            self._fs.invalidate_cache()
            found = self._fs.info(place)
            if found.get("type") == "directory":
                raise FileNotFoundError(place)
            return Stat(
                size_bytes=int(found["size"]),
                etag=_etag(found),
                modified_at=found.get("mtime") or found.get("created"),
                mark=(found.get("metadata") or {}).get(_MARK_KEY),
            )

        return _told(place, stat)

    def read(self, place: str, start: int, stop: int, etag: str | None, into: bytearray) -> str:
        """See ``Store``."""
        found = self.stat(place)
        if etag is not None and found.etag != etag:
            raise ConflictError(place)
        stop = min(stop, found.size_bytes)
        if start < stop:
            into += _told(place, lambda: self._fs.cat_file(place, start=start, end=stop))
        return found.etag

    def put(self, place: str, data: bytes, expect: str, mark: str) -> str:
        """See ``Store``."""
        self._check(place, expect)
        _told(place, lambda: self._fs.pipe_file(place, data, **self._how(expect, mark)))
        return self.stat(place).etag

    def put_file(self, place: str, local_path: str, expect: str, mark: str, tries: "Tries") -> str:
        """See ``Store``."""
        self._check(place, expect)
        tries.call(lambda: _told(place, lambda: self._fs.put_file(local_path, place, **self._how(expect, mark))))
        return self.stat(place).etag

    def remove(self, place: str) -> None:
        """See ``Store``."""

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(place)

        _told(place, remove)

    def _how(self, expect: str, mark: str) -> dict[str, Any]:
        how: dict[str, Any] = {"mode": "create"} if expect == ABSENT else {}
        return how | ({"metadata": {_MARK_KEY: mark}} if self._marks else {})

    def _check(self, place: str, expect: str) -> None:
        if expect == ANY:
            return
        try:
            found = self.stat(place).etag
        except StorageError as error:
            if error.kind != "missing":
                raise
            found = ABSENT
        if found != expect:
            raise ConflictError(place)


def _etag(info: dict[str, Any]) -> str:
    told = info.get("etag") or info.get("ETag") or info.get("generation") or info.get("md5Hash")
    if told:
        return str(told)
    return hashlib.blake2b(repr((info.get("size"), info.get("created"))).encode(), digest_size=12).hexdigest()


def _told(place: str, request: Callable[[], _T]) -> _T:
    try:
        return request()
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(place, "no such object", "missing") from error
    except FileExistsError as error:
        raise ConflictError(place, "somebody else has made it meanwhile") from error
    except PermissionError as error:
        raise StorageError(
            place, "the store allows no access; expected credentials that may read and write", "denied"
        ) from error
    except Exception as error:  # whatever the file system's library raises
        reason = one_line(str(error)).partition("?")[0][:160] or type(error).__name__
        raise TransientError(place, f"the store cannot be asked ({reason})") from error
