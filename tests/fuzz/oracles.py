"""Slow and simple readers that the product's fast ones are compared with."""

import gzip
import json
import re
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import zstandard


def sse_events(data: bytes) -> list[tuple[str, bytes]]:
    """Events of a whole stream, by the letter of the standard.

    The two departures are those that ``SSEDecoder`` tells of: an event without its blank line counts at the end of the
    stream, and an event whose only data is an empty line counts as well.

    Source: WHATWG HTML, section 9.2.6.
    """
    events: list[tuple[str, bytes]] = []
    name, lines = "", list[bytes]()
    for line in [*re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            if lines:
                events.append((name, b"\n".join(lines)))
            name, lines = "", []
            continue
        field, colon, value = line.partition(b":")
        value = value[1:] if colon and value[:1] == b" " else value
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return events


def json_lines(data: bytes) -> list[tuple[int, Any]]:
    """Line number and object of each line that is not blank; None for one that is no strict JSON object."""
    found: list[tuple[int, Any]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if line.strip():
            found.append((number, _object(line)))
    return found


def _object(line: bytes) -> Any:
    try:
        value = json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(digits)
    return number


def unpacked(data: bytes, kind: str) -> bytes | None:
    """The whole content of a gzip or Zstandard file; None where anything is wrong with it."""
    if kind == "zst":
        return members(data, kind)
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error):
        return None


def members(data: bytes, kind: str) -> bytes | None:
    """The same, with nothing but members one after another."""
    content = bytearray()
    while data:
        decoder: Any = zlib.decompressobj(31) if kind == "gz" else zstandard.ZstdDecompressor().decompressobj()
        try:
            content += decoder.decompress(data)
        except (zlib.error, zstandard.ZstdError):
            return None
        if not decoder.eof:
            return None
        data = decoder.unused_data
    return bytes(content)


def http_date(text: str) -> datetime | None:
    """The moment that an HTTP date names."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
