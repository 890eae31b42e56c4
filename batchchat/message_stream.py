"""Text for people, on a stream that may be full, closed, stopped or read by nobody: it never makes a run wait."""

import contextlib
import json
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, TextIO
from weakref import WeakValueDictionary

__all__ = ["MessageStream", "end_messages", "message_stream"]

# A pipe or a terminal that says it is ready takes so much without making its writer wait.
_PIECE_BYTES = 4096
_MOST_HELD_BYTES = 1 << 20
_END_S = 10.0
_STANDARD_ERROR = 2
_streams: WeakValueDictionary[int, "MessageStream"] = WeakValueDictionary()


def message_stream(stream: TextIO) -> "MessageStream":
    """The stream as one that makes nobody wait; the same for everyone who asks, so that lines keep their order."""
    found = _streams.get(id(stream))
    if found is None or found.stream is not stream:
        found = _streams[id(stream)] = MessageStream(stream, _blocking_fd(stream))
    return found


def end_messages(within_s: float = _END_S) -> None:
    """Waits for readers that lag behind; for one that reads nothing at all no longer than ``within_s`` seconds."""
    for stream in list(_streams.values()):
        stream.end(within_s)


class MessageStream:
    """A text stream whose trouble is ignored, and whose reader is not waited for.

    A pipe that nobody reads, or a terminal that was stopped with Ctrl-S, blocks its writer; on the event loop that
    would stop every prompt. What such a stream does not take at once is held, up to 1 MiB, and written by a thread
    when it can be; what is beyond is left out, and that is told.

    Args:
        fd: The stream's descriptor if it can make its writer wait and is open to the end of the process; else None,
            and the stream's own methods write.
    """

    def __init__(self, stream: TextIO, fd: int | None = None) -> None:
        self.stream, self._fd = stream, fd
        # A terminal is ready as soon as it takes one byte, which says nothing of the next.
        self._by_thread = self._fd is not None and os.isatty(self._fd)
        self._held: deque[bytes] = deque()
        self._held_bytes = self._left_out = 0
        self._broken = self._as_json = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Writes the text, now or when there is room; never raises for the stream's sake."""
        if self._fd is None:
            with contextlib.suppress(OSError, ValueError):
                return self.stream.write(text)
        elif not self._broken:
            self._take(self._fd, text)
        return len(text)

    def flush(self) -> None:
        """Hands what the stream itself holds to the system."""
        if self._fd is None:
            with contextlib.suppress(OSError, ValueError):
                self.stream.flush()

    def end(self, within_s: float) -> None:
        """Waits until all is written, or nothing was for ``within_s`` seconds."""
        with self._changed:
            left, since = self._held_bytes, time.monotonic()
            while self._held and time.monotonic() - since < within_s:
                self._changed.wait(within_s)
                if self._held_bytes < left:
                    left, since = self._held_bytes, time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _take(self, fd: int, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()  # what others have written there comes first
        self._as_json = text.startswith('{"')
        data = text.encode(getattr(self.stream, "encoding", None) or "utf-8", "backslashreplace")
        with self._changed:
            if not self._held and not self._by_thread:
                data = self._write_now(fd, data)
            if data:
                self._hold(fd, data)

    def _write_now(self, fd: int, data: bytes) -> bytes:
        """Writes as much as the stream takes without waiting; gives the rest."""
        try:
            while data and _poll(fd).poll(0):
                data = data[os.write(fd, data[:_PIECE_BYTES]) :]
        except BlockingIOError:
            pass
        except OSError:
            self._give_up()
            return b""
        return data

    def _hold(self, fd: int, data: bytes) -> None:
        if self._held_bytes + len(data) > _MOST_HELD_BYTES:
            self._left_out += 1
            return
        self._tell_left_out()
        self._add(data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_held, args=(fd,), name="messages", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system gives no thread: words are not worth a wait
                self._give_up()
        self._changed.notify_all()

    def _add(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)

    def _tell_left_out(self) -> None:
        if self._left_out:
            told = f"{self._left_out} messages are left out here, as nobody read them"
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = {"time": now, "event": "notice", "message": told}
            self._add(f"{json.dumps(line) if self._as_json else f'batchchat: {told}'}\n".encode())
            self._left_out = 0

    def _give_up(self) -> None:
        self._broken, self._held_bytes = True, 0
        self._held.clear()

    def _write_held(self, fd: int) -> None:
        """The thread: it waits for the reader as long as that takes."""
        while not self._broken:
            with self._changed:
                while not self._held:
                    self._changed.wait()
                data = self._held[0]
            try:
                _poll(fd).poll()
                written = os.write(fd, data[:_PIECE_BYTES])
            except BlockingIOError:
                continue
            except OSError:
                written = -1
            with self._changed:
                if written < 0:
                    self._give_up()
                else:
                    self._held_bytes -= written
                    self._held.popleft()
                    if written < len(data):
                        self._held.appendleft(data[written:])
                    if not self._held:
                        self._tell_left_out()
                self._changed.notify_all()


def _blocking_fd(stream: TextIO) -> int | None:
    """Standard error's descriptor where that is a terminal, a pipe or a socket.

    Another stream may be closed at any time, and its number be given to a file of ours.
    """
    if sys.platform == "win32":
        return None
    try:
        fd = stream.fileno()
        mode = os.fstat(fd).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
    return fd if fd == _STANDARD_ERROR and waits else None


def _poll(fd: int) -> "select.poll":
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return poll
