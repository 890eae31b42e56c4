"""Files in object stores, by URL: read in pieces, written whole or not at all; plain paths import nothing of it.

Places are URLs (``s3://bucket/key``, ``gs://bucket/key``, ``memory://name``) or plain paths, which every call takes as
well. All calls block, and are bounded: a thread is the place for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchchat.storage.urls import is_url, join, masked, plain_path

if TYPE_CHECKING:
    from batchchat.storage.faults import StorageError
    from batchchat.storage.objects import get_bytes, put_bytes, put_whole, remove, stat
    from batchchat.storage.reading import open_range, open_seekable
    from batchchat.storage.segments import Segments
    from batchchat.storage.store import ABSENT, ANY, Stat

__all__ = [
    "ABSENT",
    "ANY",
    "Segments",
    "Stat",
    "StorageError",
    "get_bytes",
    "is_url",
    "join",
    "masked",
    "open_range",
    "open_seekable",
    "plain_path",
    "put_bytes",
    "put_whole",
    "remove",
    "stat",
]

_HOME = {
    "ABSENT": "store",
    "ANY": "store",
    "Segments": "segments",
    "Stat": "store",
    "StorageError": "faults",
    "get_bytes": "objects",
    "open_range": "reading",
    "open_seekable": "reading",
    "put_bytes": "objects",
    "put_whole": "objects",
    "remove": "objects",
    "stat": "objects",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: whoever asks whether a path is a URL needs nothing else."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
