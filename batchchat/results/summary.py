"""The summary file of a run: replaced as a whole, so that a reader never meets half of one."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from batchchat.results.files import is_stream

__all__ = ["process_keys", "read_summary", "write_summary"]


def write_summary(path: str, obj: Mapping[str, Any]) -> str | None:
    """Writes a summary (mode 0644 less the umask) in place of the one that is there.

    Returns:
        None, or one sentence on what went wrong: a summary is no reason to stop a run.
    """
    data = _dump(msgspec.to_builtins(obj))
    try:
        if is_stream(path):
            with open(1 if path == "-" else path, "wb", closefd=path != "-") as stream:
                stream.write(data)
        else:
            _replace(path, data)
    except OSError as error:
        return f"{path}: the summary cannot be written: {error.strerror}"
    return None


def read_summary(path: str) -> dict[str, Any] | None:
    """The summary at ``path``; None where there is none that can be read."""
    try:
        with open(path, "rb") as stream:
            found = orjson.loads(stream.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def process_keys() -> dict[str, Any]:
    """``pid`` and ``host`` of this process: what another run or ``status`` tells of the holder of a results file."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _dump(obj: Any) -> bytes:
    try:
        return orjson.dumps(obj, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # integers beyond 64 bit, half an emoji
        return json.dumps(obj, indent=2).encode() + b"\n"


def _replace(path: str, data: bytes) -> None:
    real = os.path.realpath(path)
    temporary = f"{real}.{os.getpid()}.part"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
        with open(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(fd)
        os.replace(temporary, real)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
