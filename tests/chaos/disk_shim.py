"""A disk with faults for one child process: the C library's file calls, failing, slow or recorded; see shim/disk.c."""

import functools
import hashlib
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.registry import Unavailable

__all__ = ["Record", "fault", "read_trace", "shim_environ"]

_SOURCE = Path(__file__).parent / "shim" / "disk.c"


@dataclass(frozen=True)
class Record:
    """One change that a process made.

    Attributes:
        call: ``W`` write, ``T`` truncate, ``S`` fsync (of a file or a folder), ``O`` a new name, ``M`` a new folder,
            ``R`` rename, ``U`` unlink.
        data: What was written; the new path of a rename.
        number: Offset of a write, size of a truncation.
        at_s: Monotonic seconds.
    """

    call: str
    path: str
    data: bytes
    number: int
    at_s: float


@functools.cache
def _library() -> Path:
    """The compiled shim, made once for each version of its source."""
    if not sys.platform.startswith("linux") or (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        raise Unavailable("needs Linux and a C compiler")
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    library = Path(tempfile.gettempdir()) / f"batchchat-chaos-disk-{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "disk.so"
            command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(_SOURCE), "-ldl", "-lpthread"]
            subprocess.run(command, check=True, capture_output=True)
            shutil.move(made, library.with_suffix(".part"))
            library.with_suffix(".part").replace(library)
    return library


def shim_environ(prefix: Path, *, trace: Path | None = None, faults: list[str] | None = None) -> dict[str, str]:
    """What makes a child process see the faulty disk below ``prefix``.

    Raises:
        Unavailable: It cannot be made here.
    """
    environ = {"LD_PRELOAD": str(_library()), "CHAOS_PREFIX": str(prefix), "CHAOS_FAULTS": " ".join(faults or ())}
    if trace is not None:
        environ["CHAOS_TRACE"] = str(trace)
    return environ


def fault(call: str, part: str, *, first: int = 1, times: int = 0, error: int = 0, wait_ms: int = 0) -> str:
    """From the ``first`` call on a path that holds ``part`` on, ``times`` times (0: for ever): wait, then fail.

    Args:
        call: write, fsync, rename, unlink, open, ftruncate or close.
        error: An errno; 0 for none, -1 for a write that takes one byte less.
    """
    return f"{call}:{part}:{first}:{times}:{error}:{wait_ms}"


def read_trace(path: Path) -> Iterator[Record]:
    """The records of a trace, in the order in which the process made the changes."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        call = chr(data[at])
        length = struct.unpack_from("=I", data, at + 1)[0]
        name = data[at + 5 : at + 5 + length].decode()
        at += 5 + length
        length = struct.unpack_from("=I", data, at)[0]
        content = data[at + 4 : at + 4 + length]
        number, ns = struct.unpack_from("=qq", data, at + 4 + length)
        at += 4 + length + 16
        yield Record(call, name, content, number, ns / 1e9)
