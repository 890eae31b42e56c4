"""Images and files that go with a prompt: read when it is sent, so that their bytes live no longer than the request."""

import os
import stat
from base64 import b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, BinaryIO

from batchchat.errors import AttachmentError
from batchchat.records import Attachment

__all__ = ["attached_at", "attachment_identity", "open_now", "stamp_of", "with_attachments"]

_CHUNK_BYTES = 1 << 20
_MOST_DIGESTS = 1000
# Of contents by device, inode, time of change and size.
_digests: dict[tuple[tuple[int, int, int], int], str] = {}


def with_attachments(
    messages: list[dict[str, Any]], attachments: Sequence[Attachment], at: int
) -> list[dict[str, Any]]:
    """The messages, with the attachments as parts of one of them, behind what it says.

    Images become ``image_url`` parts, files of text ``text`` parts headed by their name, other files ``file`` parts.

    Args:
        at: Index of that message.

    Raises:
        AttachmentError: A file is gone, or is no longer the one that was found.

    Source: https://platform.openai.com/docs/api-reference/chat/create (content parts).
    """
    message = messages[at]
    content = message.get("content")
    parts = list(content) if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    parts += [_part(attachment) for attachment in attachments]
    return [*messages[:at], {**message, "content": parts}, *messages[at + 1 :]]


def attached_at(messages: Sequence[dict[str, Any]], turns: Sequence[str]) -> int:
    """Index of the message that attachments belong to: the first turn, else the last message of the user."""
    if turns:
        return len(messages)
    return max(at for at, message in enumerate(messages) if message.get("role") == "user")


def attachment_identity(attachment: Attachment) -> dict[str, Any]:
    """What the answer depends on: the content, and what the service is told with it; not where the file lies."""
    told = {"kind": attachment.kind, "detail": attachment.detail}
    if attachment.trouble is not None:
        return told | {"digest": None, "given": attachment.given}
    if attachment.path is None:
        return told | {"url": attachment.given}
    name = attachment.name if attachment.kind == "file" else None
    digest = _digest(attachment)
    # Two that cannot be read are not the same for that, and a file may be read again when it is sent.
    unread = {} if digest is not None else {"path": attachment.path, "stamp": attachment.stamp}
    return told | {"name": name, "type": attachment.media_type, "digest": digest} | unread


def open_now(path: str) -> BinaryIO:
    """Opens a file for reading, without waiting for the other end where it is a pipe.

    Raises:
        OSError: It cannot be opened.
    """
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """What tells a file from another, and from itself after a change."""
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _part(attachment: Attachment) -> dict[str, Any]:
    if attachment.trouble is not None:
        raise AttachmentError(f"{attachment.given}: {attachment.trouble}")
    url = attachment.given
    if attachment.path is not None:
        data = _read(attachment)
        if attachment.media_type == "text/plain":
            return {"type": "text", "text": f"{attachment.name}:\n{_decoded(data, attachment)}"}
        url = f"data:{attachment.media_type};base64,{b64encode(data).decode('ascii')}"
    if attachment.kind == "image":
        detail = {"detail": attachment.detail} if attachment.detail else {}
        return {"type": "image_url", "image_url": {"url": url, **detail}}
    return {"type": "file", "file": {"filename": attachment.name, "file_data": url}}


def _read(attachment: Attachment) -> bytes:
    path = attachment.path or ""
    try:
        with open_now(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or stamp_of(status) != attachment.stamp:
                raise _changed(attachment)
            data = file.read(attachment.size + 1)
    except OSError as error:
        raise AttachmentError(f"{attachment.given}: cannot be read any more ({error.strerror or error})") from error
    if len(data) != attachment.size:
        raise _changed(attachment)
    return data


def _decoded(data: bytes, attachment: Attachment) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AttachmentError(
            f"{attachment.given}: found bytes that are not UTF-8, expected a PDF or text in UTF-8"
        ) from error


def _changed(attachment: Attachment) -> AttachmentError:
    return AttachmentError(f"{attachment.given}: changed since the input was read; run again to send it as it is now")


def _digest(attachment: Attachment) -> str | None:
    """Digest of the content; None where it cannot be read."""
    try:
        with open_now(attachment.path or "") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            key = (stamp_of(status), status.st_size)
            # The prompts of one line have the same files, and are asked for their fingerprints one after another.
            known = _digests.get(key)
            if known is None:
                known = _digest_of(file)
                if len(_digests) >= _MOST_DIGESTS:
                    _digests.clear()
                _digests[key] = known
            return known
    except OSError:
        return None


def _digest_of(file: BinaryIO) -> str:
    digest = blake2b(digest_size=16)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
