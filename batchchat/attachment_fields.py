"""Finds the images and files that an input line's fields name, by their first bytes; nothing is read whole here."""

import codecs
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from batchchat.attachments import open_now, stamp_of
from batchchat.jsonl import json_type
from batchchat.records import Attachment
from batchchat.storage.urls import is_url

__all__ = ["AttachmentFields"]

_SNIFFED_BYTES = 8192
_PDF_WITHIN = 1024  # readers of PDF take what stands in front of its mark
_MOST_PARTS = 500
_MOST_TOTAL_BYTES = 50 << 20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(data):", re.ASCII | re.IGNORECASE)
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.-]+=[^;,]*)*;base64,([A-Za-z0-9+/]+={0,2})", re.ASCII)
_NO_URL = re.compile(r"[\x00-\x20\x7f]")
Kind = Literal["image", "file"]


class AttachmentFields:
    """The fields of a line that name images and files.

    Args:
        images, files: Names of fields.
        detail: How closely a service is to look at images.
        root: Folder that paths must not lead out of; None for the input file's own.
        max_bytes: Largest file.
    """

    def __init__(
        self, images: Sequence[str], files: Sequence[str], *, detail: str | None, root: str | None, max_bytes: int
    ) -> None:
        self._fields: list[tuple[str, Kind]] = [(name, "image") for name in images]
        self._fields += [(name, "file") for name in files]
        self._detail, self._root, self._max_bytes = detail, root, max_bytes
        self._most_total = max(_MOST_TOTAL_BYTES, max_bytes)

    def find(self, fields: dict[str, Any], input_path: str, *, checked: bool = False) -> tuple[Attachment, ...]:
        """What the fields of a line name; null, empty text and an empty list are none.

        Args:
            checked: The line was found to be right before: what is wrong with a file now is its prompt's trouble.
            input_path: The line's file, whose folder paths start from; for ``-`` and a URL, the working folder.

        Raises:
            ValueError: A field is missing or holds something else, or a file cannot be sent; field and value are named.
        """
        folder = "." if input_path == "-" or is_url(input_path) else os.path.dirname(input_path) or "."
        found = []
        total = 0
        for name, kind in self._fields:
            if name not in fields:
                there = ", ".join(map(repr, fields))[:500]
                raise ValueError(f"expected {_words(kind)} or null in {name!r}, found only {there or 'no fields'}")
            for given in _givens(name, fields[name]):
                try:
                    attachment = self._attachment(kind, given, folder)
                except ValueError as error:
                    if not checked:
                        raise ValueError(f"{name!r}: {_short(given)}: {error}") from None
                    attachment = Attachment(kind=kind, given=given, trouble=str(error))
                total += attachment.size
                found.append(attachment)
                if len(found) > _MOST_PARTS:  # no more of them are looked at
                    raise ValueError(f"found more than {_MOST_PARTS} images and files for one prompt, expected fewer")
        if total > self._most_total:
            raise ValueError(
                f"found images and files of {total:,} bytes for one prompt, expected at most {self._most_total:,}"
            )
        return tuple(found)

    def _attachment(self, kind: Kind, given: str, folder: str) -> Attachment:
        match = _SCHEME.match(given)
        if match is None:
            return self._file(kind, given, folder)
        scheme = (match[1] or match[2]).lower()
        if scheme == "data":
            return self._data(kind, given)
        if scheme not in ("http", "https"):
            raise ValueError(f"found an address with {scheme}:, expected a path, or http:, https: or data:")
        if kind == "file":
            raise ValueError("found the address of a file, which chat completions do not take; expected a path")
        try:
            host = urlsplit(given).hostname
        except ValueError:
            host = None
        if not host or _NO_URL.search(given):
            raise ValueError("found an address that is none, expected one such as https://example.org/a.png")
        return Attachment(kind=kind, given=given, detail=self._detail)

    def _data(self, kind: Kind, given: str) -> Attachment:
        match = _DATA.fullmatch(given)
        media_type = match[1].lower() if match else ""
        if match is None or (kind == "image" and not media_type.startswith("image/")):
            expected = "image/png" if kind == "image" else "application/pdf"
            raise ValueError(f"expected data such as data:{expected};base64,…")
        size = len(match[2]) * 3 // 4
        self._check_size(size)
        name = f"file.{media_type.rpartition('/')[2]}" if kind == "file" else ""
        return Attachment(
            kind=kind, given=given, size=size, name=name, detail=self._detail if kind == "image" else None
        )

    def _file(self, kind: Kind, given: str, folder: str) -> Attachment:
        path = self._resolved(given, folder)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ValueError("expected a file, found something else")
            with open_now(path) as file:
                status = os.fstat(file.fileno())
                head = file.read(_SNIFFED_BYTES)
        except OSError as error:
            raise ValueError(f"the file cannot be read ({error.strerror or error})") from error
        if not head:
            raise ValueError("the file is empty")
        if len(head) != min(status.st_size, _SNIFFED_BYTES):
            raise ValueError("expected a file of the size that is told, found one that is made as it is read")
        self._check_size(status.st_size)
        media_type = _image_type(head) if kind == "image" else _file_type(head, whole=len(head) == status.st_size)
        if media_type is None:
            expected = "a PNG, JPEG, GIF or WebP image" if kind == "image" else "a PDF or text in UTF-8"
            raise ValueError(f"expected {expected}, found another kind of file")
        return Attachment(
            kind=kind,
            given=given,
            path=path,
            media_type=media_type,
            size=status.st_size,
            name=os.path.basename(given),
            detail=self._detail if kind == "image" else None,
            stamp=stamp_of(status),
        )

    def _resolved(self, given: str, folder: str) -> str:
        """Where a path leads, which must lie within the root; one that the input's folder lacks may lie in the root."""
        if "\0" in given:
            raise ValueError("found a path with a zero byte in it")
        root = os.path.realpath(folder if self._root is None else self._root)
        if self._root is not None and not os.path.isdir(root):
            raise ValueError(f"cannot be looked up, as there is no folder {self._root!r} (prompt.file_root)")
        path = os.path.realpath(os.path.join(folder, given))
        if self._root is not None and not os.path.exists(path):
            path = os.path.realpath(os.path.join(root, given))
        if os.path.commonpath((root, path)) != root:
            outside = "the input file's folder" if self._root is None else self._root
            raise ValueError(f"leads out of {outside}; name a folder that holds it with --file-root")
        return path

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ValueError(f"holds {size:,} bytes, expected at most {self._max_bytes:,} (prompt.max_file_bytes)")


def _givens(field: str, value: Any) -> Iterator[str]:
    """The paths and addresses that a field holds."""
    for item in value if isinstance(value, list) else (value,):
        if item is None or item == "":
            continue
        if not isinstance(item, str):
            raise ValueError(
                f"expected a path or an address, a list of them, or null in {field!r}, found {json_type(item)}"
            )
        yield item


def _image_type(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def _file_type(head: bytes, *, whole: bool) -> str | None:
    if b"%PDF-" in head[:_PDF_WITHIN]:
        return "application/pdf"
    if b"\0" in head:
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
    except UnicodeDecodeError:
        return None
    return "text/plain"


def _words(kind: Kind) -> str:
    return "the path or address of an image" if kind == "image" else "the path of a file"


def _short(given: str) -> str:
    return repr(given if len(given) <= 200 else f"{given[:200]}…")
