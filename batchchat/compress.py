"""Input files as byte streams, compressed or not, with a sentence for everything that is wrong with one as a whole."""

import gzip
import io
import os
import sys
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from batchchat.errors import PromptFileError
from batchchat.storage.urls import is_url

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from batchchat.storage import StorageError

__all__ = ["Compression", "compression_of", "input_failure", "open_input", "strip_endings"]

Compression = Literal["gz", "zst"]

_NAMES: dict[Compression, str] = {"gz": "gzip", "zst": "Zstandard"}
_BUFFER_BYTES = 256 << 10
# A frame may expand some 30,000-fold; slices this small bound what comes out of one call to about 128 MiB.
_ZSTD_SLICE_BYTES = 4 << 10
_ZSTD_MAX_WINDOW_BYTES = 1 << 31


def compression_of(path: str) -> Compression | None:
    """The compression that a path's ending names: ``.gz``, ``.zst`` or none, whatever its case."""
    ending = os.path.splitext(path)[1].lower()
    return "gz" if ending == ".gz" else "zst" if ending == ".zst" else None


def strip_endings(path: str) -> str:
    """The path without a compression ending and then without ``.jsonl``: ``out/a.jsonl.gz`` gives ``out/a``."""
    if compression_of(path):
        path = os.path.splitext(path)[0]
    root, ending = os.path.splitext(path)
    return root if ending.lower() == ".jsonl" else path


def open_input(path: str, *, is_parquet: bool = False) -> BinaryIO:
    """Opens an input file for reading, decompressing it where its ending says so.

    Reading (``read1``) waits for no more than there is, so that lines of a slow pipe come out as they arrive. What
    goes wrong later in a compressed file (cut short, damaged) is raised by the reading call, as ``PromptFileError``.

    Args:
        path: A file, the URL of an object, or ``-`` for standard input, which is never decompressed and is the
            caller's not to close.
        is_parquet: The file is to be Parquet, whatever its ending.

    Raises:
        PromptFileError: Missing, a folder, not readable, UTF-16 or UTF-32, or its content does not fit its ending.
    """
    if path == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise PromptFileError(path, "standard input is closed; expected prompts on it")
        stream: BinaryIO = sys.stdin.buffer
        _check_head(path, _peek(stream), None)
        return stream
    compression = compression_of(path)
    raw = _open(path)
    try:
        head = _peek(raw)
        if is_parquet and head.startswith(b"PAR1"):
            return raw
        _check_head(path, head, compression)
        if compression is None:
            return raw
        inner = _gzip_stream(raw) if compression == "gz" else _ZstdReader(raw)
        stream = cast(BinaryIO, io.BufferedReader(_Decompressed(path, inner, raw), _BUFFER_BYTES))
        _check_head(path, _peek(stream), None)
    except BaseException:
        raw.close()
        raise
    return stream


def input_failure(error: "StorageError") -> PromptFileError:
    """What a fault of a store means for the input that is there."""
    return PromptFileError(error.place, error.reason)


def _open(path: str) -> BinaryIO:
    if is_url(path):
        from batchchat.storage import open_range

        return open_range(path, failure=input_failure)
    try:
        return open(path, "rb", buffering=_BUFFER_BYTES)
    except FileNotFoundError as error:
        raise PromptFileError(path, "no such file; expected an input file, or - for standard input") from error
    except IsADirectoryError as error:
        raise PromptFileError(path, "this is a folder, expected a file; name the files in it") from error
    except PermissionError as error:
        raise PromptFileError(path, "permission denied, expected a file that may be read") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PromptFileError(path, f"cannot be opened ({reason})") from error


def _peek(stream: Any) -> bytes:
    """The first bytes without taking them; b"" where the stream cannot do that."""
    peek = getattr(stream, "peek", None)
    return b"" if peek is None else bytes(peek(8)[:8])


def _check_head(path: str, head: bytes, compression: Compression | None) -> None:
    """Refuses content that is not what the path says.

    Raises:
        PromptFileError: As ``open_input``.
    """
    found = _content_of(head)
    if compression is not None:
        if found != compression and head:
            what = _NAMES[found] if found else "something else"
            raise PromptFileError(path, f"expected {_NAMES[compression]} data as the ending says, found {what}")
        return
    if head.startswith(b"PAR1") and head[4:5] < b" " and not path.lower().endswith(".parquet"):
        raise PromptFileError(
            path, "found Parquet data, expected UTF-8 text; Parquet is read from a file whose name ends in .parquet"
        )
    if found is not None:
        advice = "decompress it first" if path == "-" else f"let the name end in .{found}"
        raise PromptFileError(path, f"found {_NAMES[found]} data, expected UTF-8 text; {advice}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        raise PromptFileError(path, "found UTF-16 or UTF-32 text, expected UTF-8; save it as UTF-8")


def _content_of(head: bytes) -> Compression | None:
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    # A Zstandard file may begin with a frame that readers skip, as parallel compressors write it.
    is_skippable = len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"
    return "zst" if head.startswith(b"\x28\xb5\x2f\xfd") or is_skippable else None


def _gzip_stream(raw: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=raw, mode="rb")


class _ZstdReader:
    """Frames of a Zstandard file, one after another; unlike the library's own stream it notices a cut file."""

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW_BYTES)
        self._raw = raw
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = memoryview(b"")

    def read1(self, size: int) -> bytes:
        """At most ``size`` bytes, b"" at the end.

        Raises:
            EOFError: The file ends within a frame.
            OSError: It is damaged.
        """
        while not self._ready:
            piece = self._raw.read1(_ZSTD_SLICE_BYTES)  # type: ignore[attr-defined]
            if not piece:
                if self._frame is not None:
                    raise EOFError
                return b""
            self._ready = memoryview(b"".join(self._decompress(piece)))
        taken, self._ready = self._ready[:size], self._ready[size:]
        return bytes(taken)

    def _decompress(self, piece: bytes) -> list[bytes]:
        done = []
        while piece:
            if self._frame is None:
                self._frame = self._context.decompressobj()
            try:
                done.append(self._frame.decompress(piece))
            except self._error as error:
                raise OSError(str(error)) from error
            if not self._frame.eof:
                break
            piece, self._frame = self._frame.unused_data, None
        return done


class _Decompressed(io.RawIOBase):
    """A decompressing stream whose troubles are ``PromptFileError``."""

    def __init__(self, path: str, inner: gzip.GzipFile | _ZstdReader, raw: BinaryIO) -> None:
        self._path, self._inner, self._raw = path, inner, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._inner.read1(len(view))
        except EOFError as error:
            raise PromptFileError(self._path, "the compressed data ends too early; the file is cut short") from error
        except (OSError, zlib.error) as error:
            raise PromptFileError(self._path, f"the compressed data is damaged ({error})") from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
