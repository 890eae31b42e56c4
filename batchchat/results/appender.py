"""One thread that appends lines to one file: the event loop never waits for a disk, a line never stands alone.

Lines of one turn of the loop, and those that come while others are being written, are handed over together, go out as
one write, and all their writers are told at once.
"""

import asyncio
import atexit
import errno
import os
import select
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from queue import SimpleQueue
from typing import Literal

from batchchat.errors import ResultsWriteError
from batchchat.results.codec import Codec
from batchchat.results.files import free_space_bytes
from batchchat.results.spill import Spill

__all__ = ["Appender", "Fsync", "WriteFailedError"]

Fsync = Literal["interval", "always", "never"]
_Batch = list[tuple[bytes, "asyncio.Future[None]"]]
# A busy loop makes a batch larger that way, and the thread is woken less often; an idle one loses no time by it.
_TURNS = 2
_QUEUE_BYTES = 64 * 1024 * 1024
_AT_EXIT_S = 10.0
_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_NO_THREAD = (
    "the system lets this process start no more threads; raise the limits on processes and memory "
    "(ulimit -u, ulimit -v, pids.max of the container); what was answered is kept"
)


class WriteFailedError(ResultsWriteError):
    """A line could not be written where it belongs.

    Attributes:
        quiet: The reader of a pipe went away: nothing that a user needs to be told.
        spilled: Files that hold the answers instead.
    """

    def __init__(self, message: str, *, quiet: bool = False, spilled: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.quiet, self.spilled = quiet, tuple(spilled)


class Appender:
    """Appends whole lines; after the first failure no line is written any more, each goes to the spill instead.

    Where the system gives no thread, lines are written in place all the same, and each write tells of it.

    Args:
        fd: Descriptor that appends.
        owned: Whether to close it in the end.
        path: As the user knows the file.
        end: Offset of the file's end, of a regular file; None for a stream.
        fsync: ``always``: a line counts as written when it is on disk.
        spill: Where lines go that cannot be written.
        on_failure: Called on the event loop, once, when writing fails.
    """

    def __init__(
        self,
        *,
        fd: int,
        owned: bool,
        path: str,
        end: int | None,
        codec: Codec,
        fsync: Fsync,
        spill: Spill,
        on_failure: Callable[[WriteFailedError], None] | None = None,
    ) -> None:
        self._fd, self._owned, self._path, self._codec, self._spill = fd, owned, path, codec, spill
        self._regular, self._end = end is not None, end or 0
        self._always = fsync == "always" and self._regular
        self._on_failure = on_failure
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._batch: _Batch = []
        self._writing = False
        self._queued_bytes = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._failure: tuple[str, bool] | None = None
        self._no_thread: tuple[str, bool] | None = None
        self._file_lock = threading.Lock()
        self._closed = False

    @property
    def spilled(self) -> tuple[str, ...]:
        """Files that hold the lines that could not be written."""
        return tuple(self._spill.paths)

    @property
    def end(self) -> int:
        """Offset up to which the system has the file."""
        return self._end

    @property
    def failure(self) -> WriteFailedError | None:
        """Why nothing is written any more; None while all is well."""
        found = self._failure or self._no_thread
        if found is None:
            return None
        text, quiet = found
        where = self._spill.sentence()
        return WriteFailedError("; ".join(filter(None, (text, where))), quiet=quiet, spilled=self._spill.paths)

    async def write(self, line: bytes) -> None:
        """Appends one line, which ends with a line feed; returns when the system has it (``always``: the disk).

        A caller that is cancelled meanwhile does not stop its line.

        Raises:
            WriteFailedError: It could not be written, now or before.
        """
        await self.written(line)

    def written(self, line: bytes) -> Awaitable[None]:
        """What ``write`` waits for, so that its caller may wait for it directly."""
        return self._put(line) if self._queued_bytes <= _QUEUE_BYTES else self._put_when_there_is_room(line)

    async def _put_when_there_is_room(self, line: bytes) -> None:
        while self._queued_bytes > _QUEUE_BYTES:
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self.write_soon(line)  # too much at once rather than lost
                raise
        await self._put(line)

    def write_soon(self, line: bytes) -> None:
        """Queues one line and returns; ``close`` waits for it, and raises where it could not be written."""
        self._put(line).add_done_callback(lambda written: written.cancelled() or written.exception())

    def _put(self, line: bytes) -> asyncio.Future[None]:
        if self._closed:
            raise RuntimeError("write after close")
        loop = self._loop or self._start()
        written: asyncio.Future[None] = loop.create_future()
        self._queued_bytes += len(line)
        if not self._batch and not self._writing:
            loop.call_soon(self._hand_over, _TURNS - 1)
        self._batch.append((line, written))
        return written

    def _hand_over(self, turns: int = 0) -> None:
        """Gives what has come to the thread, so many turns of the loop later, unless that is at work."""
        if turns and self._loop is not None:
            self._loop.call_soon(self._hand_over, turns - 1)
        elif self._batch and not self._writing:
            self._writing = True
            batch, self._batch = self._batch, []
            self._give(batch)

    async def close(self) -> None:
        """Writes what is queued, brings it to the disk and closes the file.

        Raises:
            WriteFailedError: A line could not be written, now or before.
        """
        if not self._closed:
            self._closed = True
            loop = self._loop or self._start()
            self._ended = loop.create_future()
            batch, self._batch = self._batch, []
            self._give(batch)
            self._give(None)
        if self._ended is not None:
            await asyncio.shield(self._ended)
        if self._thread is not None:
            self._thread.join()
        atexit.unregister(self._at_exit)
        failure = self.failure
        if failure is not None:
            raise failure

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        # A daemon, so that a process whose loop ended without ``close`` can end; what is queued is written even then.
        thread = threading.Thread(target=self._run, name="batchchat-results", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._closed:  # else there is only an end to come, which may be in place
                self._no_thread = f"{self._path}: results cannot be written beside the run: {_NO_THREAD}", False
                self._loop.call_soon(self._report_failure)
        else:
            self._thread = thread
        atexit.register(self._at_exit)
        return self._loop

    def _at_exit(self) -> None:
        if self._thread is None or self._thread.is_alive():
            self._give(self._batch)
            self._give(None)
            if self._thread is not None:
                self._thread.join(_AT_EXIT_S)

    def _give(self, batch: _Batch | None) -> None:
        """Gives a batch to the thread; None ends it."""
        if self._thread is None:
            self._work(batch)
        else:
            self._queue.put(batch)

    def _run(self) -> None:
        """The thread: one round for each batch."""
        while (batch := self._queue.get()) is not None:
            self._work(batch)
        self._work(None)

    def _work(self, batch: _Batch | None) -> None:
        if batch is None:
            self._end_all()
        elif batch:
            self._call(self._acknowledge, batch, self._write_items([line for line, _ in batch]))

    def _end_all(self) -> None:
        try:
            self._finish()
        except Exception as error:  # a bug here must not pass for a good end
            self._fail(self._describe(error))
            self._announce()
        finally:
            self._spill.close()
            self._call(self._set_ended)

    def _write_items(self, lines: list[bytes]) -> int:
        """Writes lines, spills those that cannot be written; gives the number of those that are in the file."""
        done = 0
        with self._file_lock:
            if self._failure is None:
                try:
                    done = self._append(lines)
                except Exception as error:  # a bug here must not leave its writers waiting for ever
                    self._fail(self._describe(error))
        if done < len(lines) and self._failure is not None and not self._failure[1]:
            self._spill.add(lines[done:])
        self._announce()
        return done

    def _append(self, lines: list[bytes]) -> int:
        data = self._codec.encode(lines[0] if len(lines) == 1 else b"".join(lines))
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                written += self._write_some(view[written:])
            if self._always:
                self._sync()
        except OSError as error:
            done = self._cut_back(lines, written, complete=written == len(data))
            self._fail(self._describe(error), quiet=error.errno == errno.EPIPE)
            return done
        self._end += len(data)
        self._written()
        return len(lines)

    def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self._fd, view)
        except BlockingIOError:
            # Standard output may be a pipe that someone else has made non-blocking.
            select.select([], [self._fd], [])
            return 0

    def _cut_back(self, lines: list[bytes], written: int, *, complete: bool) -> int:
        """Leaves whole lines only; gives their number. What is written but not on disk as asked does not count."""
        if not self._regular or complete:
            return 0
        whole = kept = 0
        if self._codec.kind is None:
            for line in lines:
                if kept + len(line) > written:
                    break
                kept += len(line)
                whole += 1
        try:
            # Not from where this run believes the end to be: somebody else may have appended to the file too.
            end = os.fstat(self._fd).st_size - written + kept
            os.ftruncate(self._fd, end)
            if self._always and whole:
                self._sync()
        except OSError:
            return 0 if self._always else whole
        self._end = end
        return whole

    def _sync(self) -> None:
        os.fsync(self._fd)

    def _written(self) -> None:
        """Called in the thread after every write."""

    def _finish(self) -> None:
        """Called in the thread after the last write."""
        try:
            if self._regular:
                self._sync()
        finally:
            if self._owned:
                os.close(self._fd)

    def _describe(self, error: Exception) -> str:
        if not isinstance(error, OSError):
            return f"{self._path}: results cannot be written: {error!r}"
        space = free_space_bytes(self._path) if error.errno in _SPACE_ERRORS and self._regular else None
        free = f" ({space} bytes free)" if space is not None else ""
        return f"{self._path}: results cannot be written: {error.strerror or error}{free}"

    def _fail(self, text: str, *, quiet: bool = False) -> None:
        """Notes the first failure; from then on nothing is written. ``_announce`` follows, once lines are spilled."""
        if self._failure is None:
            self._failure = (text, quiet)

    def _announce(self) -> None:
        if self._failure is not None:
            self._call(self._report_failure)

    def _report_failure(self) -> None:
        report, self._on_failure = self._on_failure, None
        failure = self.failure
        if report is not None and failure is not None:
            report(failure)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._closed = True

    def _acknowledge(self, items: _Batch, done: int) -> None:
        self._writing = False
        if self._batch:
            self._hand_over(_TURNS - 1)
        # Without a thread, those that are in the file end the run too: it must not go on so slowly, and untold.
        told = 0 if self._no_thread is not None else done
        failed = self.failure if told < len(items) else None
        for number, (line, written) in enumerate(items):
            self._queued_bytes -= len(line)
            if written.done():
                continue
            if number < told or failed is None:
                written.set_result(None)
            else:
                written.set_exception(WriteFailedError(str(failed), quiet=failed.quiet, spilled=failed.spilled))
        while self._room and self._queued_bytes <= _QUEUE_BYTES:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _set_ended(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
