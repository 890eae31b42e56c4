"""The ordinary events of a chat completion's stream, decoded together and no further than is used."""

from typing import Any, Literal

import msgspec

from batchchat.jsonl import MAX_INPUT_DEPTH

__all__ = ["ChatChunk", "decoded_chunks"]


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: None = None
    tool_calls: None = None


class ChunkChoice(msgspec.Struct, gc=False):
    """A piece of one choice: text, and why it ended."""

    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    message: None = None


class ChatChunk(msgspec.Struct, gc=False):
    """One event. Where one of these holds anything else, it is not ordinary; what is not named counts for nothing."""

    choices: list[ChunkChoice] = []
    model: str | None = None
    usage: Any = None
    error: None = None
    object: Literal["chat.completion.chunk"] | None = None


_DECODER = msgspec.json.Decoder(ChatChunk)


def decoded_chunks(lines: bytes) -> list[ChatChunk] | None:
    """The events that stand on ``lines``, one on each; None where one is none of the usual form."""
    after_first = lines.count(b"\n")
    # With this, an object more on one line and one less on another cannot be.
    if lines.count(b"}\n{") != after_first or not lines.startswith(b"{") or not lines.endswith(b"}"):
        return None
    if _brackets(lines) > MAX_INPUT_DEPTH and max(map(_brackets, lines.split(b"\n"))) > MAX_INPUT_DEPTH:
        return None
    try:
        chunks = _DECODER.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return chunks if len(chunks) == after_first + 1 else None


def _brackets(line: bytes) -> int:
    return line.count(b"{") + line.count(b"[")
