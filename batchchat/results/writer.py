"""The writers of a run: answers to the results file, failures to the errors file."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence

from batchchat.compress import compression_of, strip_endings
from batchchat.errors import ResultsWriteError
from batchchat.results.appender import Appender, Fsync, WriteFailedError
from batchchat.results.codec import Codec, iter_decoded, read_at
from batchchat.results.files import PART_ENDING, is_stream, sync_folder
from batchchat.results.journal import Journal
from batchchat.results.spill import Spill, spill_folders, spill_prefix

if sys.platform == "darwin":
    import fcntl

__all__ = ["ErrorsWriter", "ResultsWriter"]

_COPY_BYTES = 1024 * 1024


class ResultsWriter(Appender):
    """Appends answers to an open journal, which it closes in the end.

    Lines reach the disk by the policy; with ``interval`` a second thread sees to it once a second while there is
    something new, so that a slow disk holds no answer back. At every sync the file is looked up by its name: lines
    that go to a file that no one can find any more are no results.

    Args:
        journal: Opened by ``open_journal``.
        fsync: When lines are brought to the disk: once in ``interval_s``, before each counts as written, or never.
        on_failure: Called on the event loop, once, when writing fails; ``write`` raises the same.
        rescue_folders: Where answers go that cannot be written, in the order to try; ``spill_folders`` by default.
        synced: Called in a thread of the writer's after every sync, with the offset up to which the file is whole.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        fsync: Fsync = "interval",
        interval_s: float = 1.0,
        on_failure: Callable[[WriteFailedError], None] | None = None,
        rescue_folders: Sequence[str] | None = None,
        synced: Callable[[int], None] | None = None,
    ) -> None:
        self._told_synced = synced
        self._folders = spill_folders(journal.files.errors) if rescue_folders is None else tuple(rescue_folders)
        super().__init__(
            fd=journal.fd,
            owned=False,
            path=journal.files.results,
            end=journal.end if journal.regular else None,
            codec=journal.codec,
            fsync=fsync,
            spill=Spill(self._folders, spill_prefix(journal.path), again=True)
            if journal.regular
            else Spill(self._folders),
            on_failure=on_failure,
        )
        self._journal, self._policy, self._interval_s = journal, fsync, interval_s
        self._synced_end = self._end
        self._dirty, self._stopped = threading.Event(), threading.Event()
        self._syncer: threading.Thread | None = None

    @property
    def synced_end(self) -> int:
        """Offset up to which the file was whole at the last sync."""
        return self._synced_end

    def _written(self) -> None:
        if self._always:
            self._note_synced(self._end)
            self._look_up()
        elif self._regular:
            if self._syncer is None and not self._start_syncer():
                self._sync()
            self._dirty.set()

    def _start_syncer(self) -> bool:
        """False where the system gives no thread; then each write is followed by its own sync."""
        syncer = threading.Thread(target=self._sync_in_intervals, name="batchchat-sync", daemon=True)
        try:
            syncer.start()
        except RuntimeError:
            return False
        self._syncer = syncer
        return True

    def _sync_in_intervals(self) -> None:
        # Looked at once more after ``clear``, which may have taken back what ``_finish`` woke this thread with.
        while not self._stopped.is_set():
            self._dirty.wait()
            if self._stopped.wait(self._interval_s):
                return
            self._dirty.clear()
            self._sync_now()

    def _sync_now(self) -> None:
        """Brings to the disk what is written so far, unless the policy is never to, and looks the file up."""
        end = self._end
        try:
            if self._policy != "never":
                self._sync()
        except OSError as error:
            with self._file_lock:
                self._fail(self._describe(error))
                self._spill.add(self._lines_since(self._synced_end))
        else:
            self._note_synced(end)
            with self._file_lock:
                self._look_up()
        self._announce()

    def _note_synced(self, end: int) -> None:
        self._synced_end = end
        if self._told_synced is not None:
            self._told_synced(end)

    def _sync(self) -> None:
        if sys.platform == "darwin":
            # There, fsync leaves the data in the drive's own cache.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
                return
        os.fsync(self._fd)

    def _finish(self) -> None:
        if self._syncer is not None:
            self._stopped.set()
            self._dirty.set()
            self._syncer.join()
        try:
            if self._regular and self._failure is None:
                self._sync_now()
        finally:
            self._journal.close()

    def _lines_since(self, start: int) -> list[bytes]:
        """Lines that were written after the last good sync, as far as the system still has them."""
        with contextlib.suppress(OSError):
            pieces = iter_decoded(self._fd, self._codec.kind, start=start, end=self._end)
            return b"".join(piece for piece in pieces if isinstance(piece, bytes)).splitlines(keepends=True)
        return []

    def _look_up(self) -> None:
        """Fails if the file that is written to is not the one that stands under its name, or has been cut."""
        if self._failure is not None:
            return
        found = os.fstat(self._fd)
        if found.st_size < self._end:
            self._fail(
                f"{self._path}: another program cut the results file from {self._end} to {found.st_size} bytes "
                "during the run; what it held can only come from a copy"
            )
            return
        try:
            if os.path.samestat(found, os.stat(self._journal.path)):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return
        if found.st_nlink:
            self._fail(f"{self._path}: the results file was moved away during the run; the answers are in it")
            return
        where = self._recover()
        kept = f"all answers are in {where}" if where else "its answers could be copied nowhere"
        self._fail(f"{self._path}: the results file was removed or replaced during the run; {kept}")

    def _recover(self) -> str | None:
        """Copies the file that has no name any more to a new one beside it, or else where answers are spilled."""
        real = self._journal.path
        ending = os.path.basename(real)[len(os.path.basename(strip_endings(real))) :] or ".jsonl"
        elsewhere = (os.path.join(folder, f"batchchat-{os.getpid()}") for folder in self._folders)
        for stem in (strip_endings(real), *elsewhere):
            for number in range(1, 100):
                path = f"{stem}.recovered{f'-{number}' if number > 1 else ''}{ending}"
                try:
                    self._copy_to(path)
                except FileExistsError:
                    continue
                except OSError:
                    break
                return path
        return None

    def _copy_to(self, path: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with open(fd, "wb") as copy:
                copy.writelines(
                    read_at(self._fd, min(_COPY_BYTES, self._end - offset), offset)
                    for offset in range(0, self._end, _COPY_BYTES)
                )
                copy.flush()
                os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise


class ErrorsWriter(Appender):
    """Writes the errors file of a run: to ``<path>.part``, which takes its place at the end.

    So the errors file of the run before may be the input of this one. There is always a file in the end, empty where
    nothing failed. With no path, lines go nowhere.

    Attributes:
        keep_old: Set before closing, it leaves the file that there is as it was; it may be the only place of prompts
            that are still to be asked.

    Raises:
        ResultsWriteError: The file cannot be made.
    """

    def __init__(self, path: str | None, *, on_failure: Callable[[WriteFailedError], None] | None = None) -> None:
        self.keep_old = False
        self._stream = path is None or is_stream(path)
        self._final = os.devnull if path is None else path if self._stream else os.path.realpath(path)
        self._target = self._final if self._stream else f"{self._final}{PART_ENDING}"
        super().__init__(
            fd=self._open(path),
            owned=path != "-",
            path=self._final if path is None else path,
            end=None if self._stream else 0,
            codec=Codec(compression_of(self._final)),
            fsync="never",
            spill=Spill(() if path is None else spill_folders(path)),
            on_failure=on_failure,
        )

    def _open(self, path: str | None) -> int:
        if path == "-":
            return 1
        flags = os.O_WRONLY | getattr(os, "O_BINARY", 0)
        if not self._stream:
            flags |= os.O_CREAT | os.O_TRUNC | os.O_APPEND
        try:
            return os.open(self._target, flags, 0o666)
        except OSError as error:
            raise ResultsWriteError(f"{path}: errors cannot be written: {error.strerror}") from error

    def _finish(self) -> None:
        try:
            super()._finish()
        finally:
            if not self._stream:
                if self.keep_old:
                    os.unlink(self._target)
                else:
                    os.replace(self._target, self._final)
                    sync_folder(self._final)
