"""A stream for messages whose trouble must never stop a run, nor hold it up."""

import contextlib
import os
import select
import stat
from typing import Any, TextIO

__all__ = ["CarelessStream"]

# As long as a pipe takes anything, it takes 4096 bytes; no character becomes more than ten (``\U0001f389`` in ASCII).
_BYTES_AT_ONCE = 4096
_BYTES_A_CHAR = 10
_PATIENCE_MS = 1000


class CarelessStream:
    """A text stream whose trouble is ignored: full or closed, or a pipe that nobody reads.

    A reader that does not read for a second loses what comes until it reads again.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._poll = _poll_of(stream)
        self._stuck = self._cut = False

    def write(self, text: str) -> int:
        """Writes the text, or as much of it as is taken."""
        with contextlib.suppress(OSError, ValueError):
            if self._poll is None:
                return self._stream.write(text)
            self._write_to_pipe(text, self._poll)
        return len(text)

    def flush(self) -> None:
        """Flushes."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def _write_to_pipe(self, text: str, poll: "select.poll") -> None:
        if self._cut:  # the rest of a line was lost; this one begins anew
            text = "\n" + text
        at_once = _BYTES_AT_ONCE if text.isascii() else _BYTES_AT_ONCE // _BYTES_A_CHAR
        for start in range(0, len(text), at_once):
            if not poll.poll(0 if self._stuck else _PATIENCE_MS):
                self._stuck = True
                self._cut = self._cut or start > 0
                return
            self._stuck = self._cut = False
            self._stream.write(text[start : start + at_once])
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _poll_of(stream: TextIO) -> "select.poll | None":
    """What tells whether the stream takes more; None for one that never has to be asked."""
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    if not hasattr(select, "poll") or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return None
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll
