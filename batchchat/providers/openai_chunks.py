"""The ordinary events of a chat completion's stream, decoded together and no further than is used."""

from typing import Any

import msgspec

from batchchat.jsonl import MAX_INPUT_DEPTH

__all__ = ["ChatChunk", "decoded_chunks"]


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: Any = None
    tool_calls: Any = None


class ChunkChoice(msgspec.Struct, gc=False):
    """A piece of one choice."""

    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    message: Any = None


class ChatChunk(msgspec.Struct, gc=False):
    """One event; what is not named here counts for nothing in an answer."""

    choices: list[ChunkChoice] = []
    model: str | None = None
    usage: Any = None
    error: Any = None
    object: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its choices hold text and reasons to finish only, and it tells no failure."""
        if self.error or self.object == "error":
            return False
        for choice in self.choices:
            delta = choice.delta
            if choice.message is not None:
                return False
            if delta is not None and (delta.refusal is not None or delta.tool_calls is not None):
                return False
        return True


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
