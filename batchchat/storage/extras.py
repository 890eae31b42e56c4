"""Libraries that only those need who name a URL, imported when they do."""

from importlib import import_module
from typing import Any

from batchchat.errors import ConfigError

__all__ = ["import_filesystem"]

_HOMES = {
    "s3": ("s3fs", "S3FileSystem", "pip install 'batchchat[storage]'"),
    "gs": ("gcsfs", "GCSFileSystem", "pip install gcsfs"),
    "memory": ("fsspec.implementations.memory", "MemoryFileSystem", "pip install 'batchchat[storage]'"),
}


def import_filesystem(kind: str) -> Any:
    """The class of a kind of store.

    Raises:
        ConfigError: Its library is not installed.
    """
    module, name, install = _HOMES[kind]
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ConfigError(f"{kind}:// addresses need {library}, which is not installed here: {install}") from error
