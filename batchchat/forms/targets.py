"""The file that a conversion writes: whole under its name, or not there at all."""

import contextlib
import gzip
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from batchchat.compress import Compression, compression_of
from batchchat.errors import ConfigError, ResultsWriteError
from batchchat.results.files import is_stream
from batchchat.storage.urls import is_url

__all__ = ["check_target", "open_target"]

# A few long lines would fill the usual buffer.
_BUFFER_BYTES = 64 << 10
_SPREADSHEETS = (".xlsx", ".xls", ".ods")


def check_target(path: str, source: str, *, force: bool, form: str) -> None:
    """Refuses a target that would overwrite something.

    Raises:
        ConfigError: It is there and ``force`` is not given, it is the source, a folder, or a compressed Parquet file.
    """
    if not path:
        raise ConfigError("the name of the output is empty, expected a path, or - for standard output")
    if path.lower().endswith(_SPREADSHEETS):
        raise ConfigError(
            f"{path}: batchchat writes no spreadsheets, expected a name that ends in .csv, which they open"
        )
    if form == "parquet" and compression_of(path):
        raise ConfigError(f"{path}: Parquet is compressed inside, expected a name that ends in .parquet")
    if is_stream(path):
        return
    if is_url(path):
        _check_object(path, source, force=force)
        return
    if os.path.isdir(path) or path.endswith(("/", os.sep)):
        raise ConfigError(f"{path} is a folder, expected the name of a file")
    if source != "-" and os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise ConfigError(f"{path} is the input itself, expected another name for the output")
    if os.path.lexists(path) and not force:
        raise ConfigError(f"{path} is there already; choose another name, or --force to replace it")


def _check_object(path: str, source: str, *, force: bool) -> None:
    from batchchat.storage.objects import stat_or_none

    if path == source:
        raise ConfigError(f"{path} is the input itself, expected another name for the output")
    if not force and stat_or_none(path) is not None:
        raise ConfigError(f"{path} is there already; choose another name, or --force to replace it")


@contextlib.contextmanager
def open_target(path: str) -> Iterator[BinaryIO]:
    """A file to write to, compressed where the name says so; it gets its name when the block ends without an error.

    Standard output and devices get the whole content at the end.

    Raises:
        ResultsWriteError: It cannot be written.
    """
    try:
        with _open_temporary(path) as (temporary, raw):
            with _packed(raw, None if is_stream(path) else compression_of(path)) as file:
                yield file
            _put_in_place(path, temporary, raw)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResultsWriteError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def _open_temporary(path: str) -> Iterator[tuple[str | None, BinaryIO]]:
    if is_stream(path):
        with tempfile.TemporaryFile(buffering=_BUFFER_BYTES) as raw:
            yield None, cast(BinaryIO, raw)
        return
    folder = tempfile.gettempdir() if is_url(path) else os.path.dirname(os.path.realpath(path))
    os.makedirs(folder, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _signals_held_back():
            prefix = f".{os.path.basename(path)[:100]}."
            descriptor, temporary = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=folder)
            stack.callback(_remove, temporary)
        with open(descriptor, "w+b", buffering=_BUFFER_BYTES) as raw:
            yield temporary, raw


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """No signal ends the program in here: a file that nobody knows of yet would stay for ever."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextlib.contextmanager
def _packed(raw: BinaryIO, compression: Compression | None) -> Iterator[BinaryIO]:
    if compression == "gz":
        # No time and no name inside: the same input gives the same bytes.
        with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
            yield cast(BinaryIO, file)
    elif compression == "zst":
        import zstandard

        packer = zstandard.ZstdCompressor(level=3, write_checksum=True)
        with packer.stream_writer(raw, closefd=False) as file:
            yield cast(BinaryIO, file)
    else:
        yield raw


def _put_in_place(path: str, temporary: str | None, raw: BinaryIO) -> None:
    raw.flush()
    if temporary is None:
        raw.seek(0)
        if path == "-":
            if sys.stdout is None:
                raise ResultsWriteError("standard output is closed, expected one to write to")
            shutil.copyfileobj(raw, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with open(path, "wb") as device:
                shutil.copyfileobj(raw, device)
        return
    os.fsync(raw.fileno())
    raw.close()  # Windows renames no open file
    if is_url(path):
        from batchchat.storage import put_whole

        put_whole(path, temporary)
        return
    target = os.path.realpath(path)
    os.chmod(temporary, _mode(target))
    os.replace(temporary, target)


def _mode(target: str) -> int:
    """The permissions of the file that is replaced, or those of a new one."""
    try:
        return stat.S_IMODE(os.stat(target).st_mode)
    except OSError:
        return 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
