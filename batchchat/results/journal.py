"""The results file as the journal of all runs: opened, locked, read once and mended before anything is appended."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator

import msgspec

from batchchat.compress import compression_of
from batchchat.errors import ResultsFileError, ResultsWriteError
from batchchat.ids import IdTable
from batchchat.records import PromptId
from batchchat.results.codec import (
    Codec,
    Damage,
    DamagedError,
    find_damage,
    iter_decoded,
    iter_whole,
    magic_of,
    read_at,
)
from batchchat.results.files import RunFiles, sync_folder
from batchchat.results.forks import let_go_in_forks
from batchchat.results.lines import Form
from batchchat.results.lock import open_locked
from batchchat.results.reading import MOVE, JournalReading, Repair
from batchchat.results.rewrite import Piece, append_torn, rewrite
from batchchat.results.scan import RawLine, iter_raw_lines, judge
from batchchat.results.stored import fingerprint_value

__all__ = ["Journal", "JournalCounts", "open_journal"]


class JournalCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the file held when it was opened: answers, stretches moved away, bytes after mending."""

    answered: int
    moved: int
    bytes: int


class Journal:
    """An open, locked results file whose end is whole; made by ``open_journal``.

    Attributes:
        completed: Id -> ``fingerprint_value`` of every stored answer.
        repairs: What was mended on opening.
        fd: Descriptor that appends; 1 for standard output.
        end: Offset of the file's end.
        regular: False for a stream, which is only written to.
    """

    def __init__(self, files: RunFiles, form: Form, fd: int, *, regular: bool) -> None:
        self.files, self.form, self.fd, self.regular = files, form, fd, regular
        self.path = os.path.realpath(files.results) if regular else files.results
        self.codec = Codec(compression_of(files.results))
        self.completed = IdTable()
        self.repairs: list[Repair] = []
        self.end = 0
        self._moved = 0
        if regular:
            let_go_in_forks(self)

    @property
    def counts(self) -> JournalCounts:
        """What the file holds, as of the last opening or ``drop``."""
        return JournalCounts(answered=len(self.completed), moved=self._moved, bytes=self.end)

    def drop(self, which: Callable[[PromptId], bool] | Collection[PromptId]) -> int:
        """Takes answers out of the results, so that their prompts are asked again; they are kept in the torn file.

        Args:
            which: Ids, or what tells of an id whether to take it out.

        Returns:
            Answers taken out.

        Raises:
            ResultsWriteError: The file cannot be written anew; it is as it was.
        """
        if not callable(which) and not which:
            return 0
        wanted = which if callable(which) else frozenset(which).__contains__
        kept, dropped = IdTable(), 0

        def decide(line: RawLine) -> Piece | None:
            nonlocal dropped
            stored = judge(line).stored
            if stored is None:
                return None
            if wanted(stored.id):
                dropped += 1
                return MOVE
            kept.add(stored.id, fingerprint_value(stored.fingerprint))
            return None

        self._rewrite(decide, ())
        self.completed = kept
        self._moved += dropped
        return dropped

    def append(self, lines: bytes) -> None:
        """Appends whole lines and brings them to the disk, before a writer has the file.

        Raises:
            ResultsWriteError: They cannot be written; the file ends as it did.
        """
        data = memoryview(self.codec.encode(lines))
        try:
            while data:
                data = data[os.write(self.fd, data) :]
            os.fsync(self.fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, self.end)
            raise ResultsWriteError(f"{self.files.results}: results cannot be written: {error.strerror}") from error
        self.end = os.fstat(self.fd).st_size

    def close(self) -> None:
        """Closes the file, which releases its lock; standard output stays open."""
        fd, self.fd = self.fd, -1
        if fd >= 0 and self.files.results != "-":
            os.close(fd)

    def load(self) -> None:
        """Reads the file once and mends it.

        Raises:
            ResultsFileError: It is no results file, or one of another form; it is not touched.
            ResultsWriteError: It cannot be mended.
        """
        self.end = os.fstat(self.fd).st_size
        self._check_beginning()
        damage: tuple[Damage, ...] = ()
        kind = self.codec.kind
        reading = JournalReading(self.files, self.form, self.end)
        try:
            reading.read(iter_whole(self.fd, kind, end=self.end))
        except (DamagedError, ResultsFileError):
            if kind is None:
                raise
            # A member's checksum comes after its content: nothing that was read can be trusted.
            damage = find_damage(self.fd, kind, end=self.end)
            reading = JournalReading(self.files, self.form, self.end)
            reading.read(self._content(damage))
        self.completed, self.repairs, self._moved = reading.completed, reading.repairs, reading.moved
        pieces = reading.pieces
        if not pieces and not damage:
            return
        line = reading.last_line
        tail = pieces.get(line.number) if len(pieces) == 1 and kind is None else None
        if tail is not None and (tail.keep is None or not tail.moved):
            self._mend_tail(line, cut=tail.keep is None)
        else:
            self._rewrite(lambda line: pieces.get(line.number), damage)

    def _check_beginning(self) -> None:
        """Refuses a file whose first bytes are those of another kind of file than its name tells."""
        begin = read_at(self.fd, 4, 0)
        kind = self.codec.kind
        for other in ("gz", "zst"):
            if other != kind and begin.startswith(magic_of(other)):
                raise ResultsFileError(
                    f"{self.files.results}: the content is compressed ({other}), which the name does not tell; "
                    f"name it so that it ends in .{other}, or name another file with -o"
                )
        if kind is not None and begin.strip(b"\0") and not begin.startswith(magic_of(kind)[: len(begin)]):
            raise ResultsFileError(
                f"{self.files.results}: expected {kind} content as the name tells, found something else; "
                "name another file with -o"
            )

    def _lines(self, damage: tuple[Damage, ...]) -> Iterator[RawLine | Damage]:
        return iter_raw_lines(self._content(damage))

    def _content(self, damage: tuple[Damage, ...]) -> Iterator[bytes | Damage]:
        return iter_decoded(self.fd, self.codec.kind, end=self.end, damage=damage)

    def _mend_tail(self, line: RawLine, *, cut: bool) -> None:
        """Cuts the last line off, or gives it its line end; nothing before it is touched."""
        try:
            if cut:
                append_torn(self.files.torn, [line.data, b"\n"])
                os.ftruncate(self.fd, line.start)
            else:
                os.write(self.fd, b"\n")
            os.fsync(self.fd)
            self.end = os.fstat(self.fd).st_size
        except OSError as error:
            raise self._cannot_mend(error) from error

    def _rewrite(self, decide: Callable[[RawLine], Piece | None], damage: tuple[Damage, ...]) -> None:
        try:
            self.fd = rewrite(self.fd, self.path, self.codec, self._lines(damage), decide, torn=self.files.torn)
            self.end = os.fstat(self.fd).st_size
        except OSError as error:
            raise self._cannot_mend(error) from error

    def _cannot_mend(self, error: OSError) -> ResultsWriteError:
        return ResultsWriteError(f"{self.files.results}: the file cannot be mended: {error.strerror}")


def open_journal(files: RunFiles, *, form: Form = "flat") -> Journal:
    """Opens the results for a run; the caller closes the journal, or hands it to a ``ResultsWriter`` that does.

    Answers stay byte for byte as they are. Torn, garbled, repeated lines and lines of failures are appended to the
    torn file, which reaches the disk first, and then taken out of the results.

    Raises:
        ResultsLockedError: Another run holds them.
        ResultsFileError: The file is something else than results of this form; it is not touched.
        ResultsWriteError: It cannot be opened or mended.
    """
    if files.stream:
        return Journal(files, form, _open_stream(files.results), regular=False)
    fd, new = open_locked(files.results, files.summary)
    journal = Journal(files, form, fd, regular=True)
    try:
        if new:
            sync_folder(journal.path)
        journal.load()
    except BaseException:
        journal.close()
        raise
    return journal


def _open_stream(path: str) -> int:
    if path == "-":
        return 1
    try:
        return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ResultsWriteError(f"{path}: results cannot be written: {error.strerror}") from error
