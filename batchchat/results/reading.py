"""One reading of a results file: what it holds, and what in it cannot stay as it is."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from batchchat.errors import ResultsFileError
from batchchat.ids import IdTable
from batchchat.results.codec import Damage
from batchchat.results.files import RunFiles
from batchchat.results.lines import Form
from batchchat.results.quick import read_answers
from batchchat.results.rewrite import Piece
from batchchat.results.scan import Judged, LineBlock, RawLine, iter_blocks, judge, looks_like_ours
from batchchat.results.stored import fingerprint_value

__all__ = ["MOVE", "JournalReading", "Repair"]

# No result is shorter; so a table is never made for more ids than there can be.
_SHORTEST_LINE = 64


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


class JournalReading:
    """What one reading of the whole file finds.

    Args:
        size: Bytes of the file.

    Attributes:
        completed: Id -> ``fingerprint_value`` of every stored answer.
        pieces: What to do with each line that cannot stay as it is, by its number.
        repairs: The same for the user.
        moved: Stretches to be moved away.
        last_line: Line 0 of a file without lines.
    """

    def __init__(self, files: RunFiles, form: Form, size: int) -> None:
        self.files, self.form, self._size = files, form, size
        self.completed = IdTable()
        self.pieces: dict[int, Piece] = {}
        self.repairs: list[Repair] = []
        self.moved = 0
        self.last_line = RawLine(0, 0, b"", True)
        self._seen_text = False
        self._first_garbled: bytes | None = None

    def read(self, content: Iterable[bytes | Damage]) -> None:
        """Reads all of it, once.

        Raises:
            ResultsFileError: It is no results file, or one of another form.
        """
        for block in iter_blocks(content):
            if isinstance(block, Damage):
                self._note(self.last_line.number + 1, block.length, _DAMAGE[block.kind])
            else:
                self._read_block(block)
        garbled = self._first_garbled
        if not len(self.completed) and garbled is not None and not looks_like_ours(garbled):
            raise ResultsFileError(
                f"{self.files.results}: expected a results file, found {_show(garbled)}; name another file with -o"
            )

    def _read_block(self, block: LineBlock) -> None:
        """Takes ordinary answers as fast as they come, and looks at every other line for itself."""
        lines = block.lines
        if block.number == 1:
            # For as many lines as there may be, so that the table need not grow; of a compressed file, for fewer.
            self.completed = IdTable(self._size // max(_SHORTEST_LINE, sum(map(len, lines)) // len(lines)))
        odd = _OddLines(block)
        position, rest = 0, iter(lines if block.ended else ())
        while position < len(lines):
            found = read_answers(rest, self.form)
            end, pairs = position + len(found), iter(found)
            while (position := position + self.completed.add_all(pairs)) < end:
                self._read_odd(odd.at(position))
                position += 1
            self._seen_text = self._seen_text or end > 0
            if position < len(lines):
                self._read_odd(odd.at(position))
                position += 1
        self.last_line = odd.at(len(lines) - 1)

    def _read_odd(self, line: RawLine) -> None:
        judged = judge(line)
        if judged.kind == "foreign":
            raise self._foreign(line, judged)
        if judged.kind == "garbled" and not self._seen_text:
            self._first_garbled = line.data
        self._seen_text = self._seen_text or judged.kind != "blank"
        piece = self._piece(line, judged)
        if piece is not None:
            self.pieces[line.number] = piece

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
        return MOVE

    def _note(self, line_number: int, bytes_moved: int, reason: str) -> None:
        self.repairs.append(Repair(line_number=line_number, bytes_moved=bytes_moved, reason=reason))
        self.moved += bytes_moved > 0

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


class _OddLines:
    """Lines of a block that are asked for in their order."""

    def __init__(self, block: LineBlock) -> None:
        self._block = block
        self._position, self._start = 0, block.start

    def at(self, position: int) -> RawLine:
        block = self._block
        self._start += sum(map(len, block.lines[self._position : position]))
        self._position = position
        data = block.lines[position]
        return RawLine(block.number + position, self._start, data[:-1] if block.ended else data, block.ended)


def _show(data: bytes) -> str:
    text = data[:60].decode("utf-8", "backslashreplace")
    return repr(text + ("…" if len(data) > 60 else ""))


MOVE = Piece(keep=None, moved=None)
_DAMAGE: dict[Literal["cut", "corrupt"], str] = {
    "cut": "the last compressed member is cut; its whole lines are kept",
    "corrupt": "a compressed member that does not decode",
}
