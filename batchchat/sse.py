"""Server-Sent Events from bytes to events, no input or output.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". Lines end at LF, CR or CRLF and nowhere else.
"""

import msgspec

__all__ = ["SSEDecoder", "ServerSentEvent"]

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event: its ``data`` lines joined by LF, as bytes, and its ``event`` name ("" where none was sent)."""

    data: bytes
    event: str = ""


class SSEDecoder:
    """Turns network chunks, cut anywhere, into whole events.

    The cost of a chunk is linear in its length: an unfinished event is kept in pieces and joined once.
    Two departures from the letter, both for real servers: an event that the end of the stream leaves
    without its blank line is still told (``finish``), and anything that is no field is passed over silently,
    so that a warning printed into the stream does no harm.
    """

    __slots__ = ("_cr_held", "_parts", "_started")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._cr_held = False
        self._started = False

    @property
    def pending(self) -> bool:
        """Whether bytes of an unfinished event are held."""
        return any(part.strip() for part in self._parts)

    def plain_lines(self, chunk: bytes) -> bytes | None:
        """The data of all events in ``chunk``, one line for each, where it is an ordinary piece of a stream.

        That is one of whole events with a single data line each and nothing besides, as most servers send them; for
        any other this is None, and ``chunk`` is to be fed.
        """
        if self._parts or self._cr_held or not chunk.startswith(b"data: ") or not chunk.endswith(b"\n\n"):
            return None
        if b"\r" in chunk:
            return None
        lines = chunk[6:-2].replace(b"\n\ndata: ", b"\n")
        if chunk.count(b"\n") != 2 * lines.count(b"\n") + 2:
            return None
        self._started = True
        return lines

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Events that ``chunk`` completes, in order; a chunk may complete none or many."""
        if not self._started:
            chunk = self._begin(chunk)
        if self._cr_held or b"\r" in chunk:
            chunk = self._normalise(chunk)
        parts = self._parts
        if b"\n" not in chunk:
            if chunk:
                parts.append(chunk)
            return []
        ended = bool(parts) and chunk.startswith(b"\n") and parts[-1].endswith(b"\n")
        if not ended and b"\n\n" not in chunk:
            parts.append(chunk)
            return []
        # What is held has no blank line in it, so only the new bytes are looked through.
        blocks = chunk.split(b"\n\n") if not ended else [b"", *chunk[1:].split(b"\n\n")]
        if parts:
            blocks[0] = b"".join((*parts, blocks[0]))
            parts.clear()
        if last := blocks.pop():
            parts.append(last)
        return [event for block in blocks if (event := _parse_block(block)) is not None]

    def finish(self) -> list[ServerSentEvent]:
        """The event that the end of the stream cut off from its blank line, if its lines hold one."""
        block = b"".join(self._parts) + (b"\n" if self._cr_held else b"")
        self._parts.clear()
        self._cr_held = False
        if not self._started:
            block = block.removeprefix(_BOM)
        event = _parse_block(block)
        return [] if event is None else [event]

    def _begin(self, chunk: bytes) -> bytes:
        """Takes a byte order mark off the front, which may itself come in pieces."""
        head = b"".join(self._parts) + chunk
        self._parts.clear()
        if len(head) < len(_BOM) and _BOM.startswith(head):
            if head:
                self._parts.append(head)
            return b""
        self._started = True
        return head.removeprefix(_BOM)

    def _normalise(self, chunk: bytes) -> bytes:
        """Makes LF of CR and CRLF; a CR at the chunk's end waits, as its LF may be still to come."""
        if self._cr_held:
            chunk = b"\r" + chunk
        self._cr_held = chunk.endswith(b"\r")
        if self._cr_held:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _parse_block(block: bytes) -> ServerSentEvent | None:
    """The event of one block of LF-ended lines, or None where it holds no data (comments, junk)."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return ServerSentEvent(block[6:])
    data: list[bytes] = []
    event = ""
    for line in block.split(b"\n"):
        if not line.startswith((b"data", b"event")):
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ").decode("utf-8", "replace")
    return ServerSentEvent(b"\n".join(data), event) if data else None
