"""The thread that keeps a metrics file: the event loop never waits for the disk, however slow that is."""

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from batchchat.results.files import is_stream

if TYPE_CHECKING:
    from batchchat.metrics_text import MetricsState

__all__ = ["MetricsWriter"]

_STALE_S = 60.0


class MetricsWriter:
    """Replaces a file by the latest state that it was given; states that came too fast for the disk are left out."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._next: MetricsState | None = None
        self._moved = threading.Condition()
        self._ended = self._told = False
        self._thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop, tell: Callable[[str], None]) -> None:
        """Begins, unless it has begun; ``tell`` is called once, on the loop, when the file cannot be written."""
        if self._thread is not None:
            return
        self._loop, self._tell = loop, tell
        self._done = loop.create_future()
        # A disk that never answers must not keep the process: it is left behind at the end.
        self._thread = threading.Thread(target=self._work, name="batchchat-metrics", daemon=True)
        self._thread.start()

    def write(self, state: "MetricsState") -> None:
        """Hands over what the file is to tell; returns at once."""
        with self._moved:
            self._next = state
            self._moved.notify()

    async def finish(self) -> None:
        """Ends the thread after the last state; to be bounded by the caller."""
        with self._moved:
            self._ended = True
            self._moved.notify()
        await asyncio.shield(self._done)

    def _work(self) -> None:
        from batchchat.metrics_text import read_last_run

        try:
            last_run = None
            with contextlib.suppress(OSError, ValueError):
                if not is_stream(self._path):
                    with open(self._path, encoding="utf-8") as stream:
                        last_run = read_last_run(stream.read(1 << 20))
                    _sweep(os.path.realpath(self._path))
            while (state := self._wait()) is not None:
                self._write_one(state, last_run)
        finally:
            self._on_loop(lambda: None if self._done.done() else self._done.set_result(None))

    def _wait(self) -> "MetricsState | None":
        with self._moved:
            self._moved.wait_for(lambda: self._next is not None or self._ended)
            state, self._next = self._next, None
            return state

    def _write_one(self, state: "MetricsState", last_run: object) -> None:
        import msgspec

        from batchchat.metrics_text import render_metrics

        if state.last_run is None:
            state = msgspec.structs.replace(state, last_run=last_run)
        try:
            _replace(self._path, render_metrics(state))
        except OSError as error:
            if not self._told:
                self._told = True
                sentence = f"{self._path}: the metrics cannot be written: {error.strerror}; the run goes on without"
                self._on_loop(lambda: self._tell(sentence))

    def _on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call)


def _replace(path: str, text: bytes) -> None:
    """Puts the text in the place of the file as a whole; a device or a pipe is written to."""
    if is_stream(path):
        with open(path, "wb") as stream:
            stream.write(text)
        return
    real = os.path.realpath(path)
    os.makedirs(os.path.dirname(real), exist_ok=True)
    temporary = f"{real}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as stream:
            stream.write(text)
        os.replace(temporary, real)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sweep(real: str) -> None:
    """Removes what a run that was killed in the middle of a write left behind."""
    folder, name = os.path.split(real)
    mine = re.compile(re.escape(name) + r"\.[0-9]+\.part")
    for entry in os.scandir(folder):
        if mine.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE_S:
            os.unlink(entry.path)
