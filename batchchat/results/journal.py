"""The results file as the journal of all runs: opened, locked, read once and mended before anything is appended."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from typing import Literal

import msgspec

from batchchat.compress import compression_of
from batchchat.errors import ResultsFileError, ResultsWriteError
from batchchat.ids import IdTable
from batchchat.records import PromptId
from batchchat.results.codec import Codec, Damage, find_damage, iter_decoded, magic_of, read_at
from batchchat.results.files import RunFiles, sync_folder
from batchchat.results.forks import let_go_in_forks
from batchchat.results.lines import Form
from batchchat.results.lock import open_locked
from batchchat.results.rewrite import Piece, append_torn, rewrite
from batchchat.results.scan import Judged, RawLine, iter_raw_lines, judge, looks_like_ours
from batchchat.results.stored import fingerprint_value

__all__ = ["Journal", "JournalCounts", "Repair", "open_journal"]


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was mended in a results file.

    Attributes:
        line_number: 1-based line that it stood in.
        bytes_moved: Bytes that went to the torn file; 0 where only a line end was missing.
        reason: What was wrong, in a few words.
    """

    line_number: int
    bytes_moved: int
    reason: str

    def sentence(self, files: RunFiles) -> str:
        """One sentence for the user."""
        if not self.bytes_moved:
            return f"{files.results}:{self.line_number}: {self.reason}; added"
        return f"{files.results}:{self.line_number}: {self.reason}; {self.bytes_moved} bytes moved to {files.torn}"


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
        self._last_line = RawLine(0, 0, b"", True)
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
                return _MOVE
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
        damage = find_damage(self.fd, self.codec.kind, end=self.end)
        pieces = self._survey(damage)
        if not pieces and not damage:
            return
        tail = pieces.get(self._last_line.number) if len(pieces) == 1 and self.codec.kind is None else None
        if tail is not None and (tail.keep is None or not tail.moved):
            self._mend_tail(cut=tail.keep is None)
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
        return iter_raw_lines(iter_decoded(self.fd, self.codec.kind, end=self.end, damage=damage))

    def _survey(self, damage: tuple[Damage, ...]) -> dict[int, Piece]:
        """Fills ``completed`` and tells what to do with each line that cannot stay as it is, by its number."""
        pieces: dict[int, Piece] = {}
        first_garbled: bytes | None = None
        seen_text = False
        for line in self._lines(damage):
            if isinstance(line, Damage):
                self._note(self._last_line.number + 1, line.length, _DAMAGE[line.kind])
                continue
            judged = judge(line)
            if judged.kind == "foreign":
                raise self._foreign(line, judged)
            if judged.kind == "garbled" and not seen_text:
                first_garbled = line.data
            seen_text = seen_text or judged.kind != "blank"
            piece = self._piece(line, judged)
            if piece is not None:
                pieces[line.number] = piece
            self._last_line = line
        if not len(self.completed) and first_garbled is not None and not looks_like_ours(first_garbled):
            raise ResultsFileError(
                f"{self.files.results}: expected a results file, found {_show(first_garbled)}; "
                "name another file with -o"
            )
        return pieces

    def _piece(self, line: RawLine, judged: Judged) -> Piece | None:
        """What to do with a line; None: it stays as it is."""
        stored = judged.stored
        if stored is not None and stored.form != self.form:
            raise self._other_form(line.number, stored.form)
        if judged.kind == "answer" and stored is not None:
            if not self.completed.add(stored.id, fingerprint_value(stored.fingerprint)):
                return self._move(line, f"a second line for the id {stored.id!r}")
            if len(judged.core) != len(line.data):
                moved = line.data.replace(judged.core, b"", 1)
                self._note(line.number, len(moved), "zero bytes")
                return Piece(keep=judged.core, moved=moved)
            if line.ended:
                return None
            self._note(line.number, 0, "the last line had no line end")
            return Piece(keep=line.data, moved=b"")
        if judged.kind == "failure":
            return self._move(line, "the line of a failure, which has no place in the results")
        if judged.kind == "blank" and line.ended:
            return None
        if not line.data.strip(b"\0"):
            return self._move(line, "zero bytes")
        return self._move(line, "a garbled line" if line.ended else "a torn last line")

    def _move(self, line: RawLine, reason: str) -> Piece:
        self._note(line.number, len(line.data), reason)
        return _MOVE

    def _note(self, line_number: int, bytes_moved: int, reason: str) -> None:
        self.repairs.append(Repair(line_number=line_number, bytes_moved=bytes_moved, reason=reason))
        self._moved += bytes_moved > 0

    def _mend_tail(self, *, cut: bool) -> None:
        """Cuts the last line off, or gives it its line end; nothing before it is touched."""
        line = self._last_line
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

    def _foreign(self, line: RawLine, judged: Judged) -> ResultsFileError:
        found = _show(line.data) if judged.obj is None else f"an object with the keys {', '.join(judged.obj) or 'none'}"
        return ResultsFileError(
            f"{self.files.results}:{line.number}: expected a result with id and response, found {found[:200]}; "
            "name another file with -o"
        )

    def _other_form(self, number: int, form: Form) -> ResultsFileError:
        if len(self.completed):
            return ResultsFileError(
                f"{self.files.results}:{number}: found a line of the form {form} among lines of the form {self.form}; "
                "'batchchat convert' brings a file to one form"
            )
        return ResultsFileError(
            f"{self.files.results}:{number}: the file holds results of the form {form}, expected {self.form}; "
            f"give --format {form}, or name another file with -o"
        )


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


def _show(data: bytes) -> str:
    text = data[:60].decode("utf-8", "backslashreplace")
    return repr(text + ("…" if len(data) > 60 else ""))


_MOVE = Piece(keep=None, moved=None)
_DAMAGE: dict[Literal["cut", "corrupt"], str] = {
    "cut": "the last compressed member is cut; its whole lines are kept",
    "corrupt": "a compressed member that does not decode",
}
