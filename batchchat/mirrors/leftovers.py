"""Answers of runs that did not come to their end: in the mirror that they left, and in segments in the store."""

import contextlib
import os
from collections.abc import Iterator

from batchchat.compress import open_input
from batchchat.errors import BatchchatError, ResultsWriteError
from batchchat.jsonl import iter_lines
from batchchat.results import Journal
from batchchat.results.rescue import take_in
from batchchat.results.rewrite import append_torn
from batchchat.results.scan import RawLine, judge
from batchchat.results.stored import fingerprint_value

__all__ = ["left_files", "outdate", "set_aside", "take_in_data", "take_in_file", "take_in_left"]

_LEFT, _OLDER = "left-", "older-"
# In the names of copies that ``ResultsWriter`` makes.
_COPY = ".recovered"


def set_aside(folder: str, results: str) -> None:
    """Gives the results that a run left in a mirror another name: they are newer than the object, or were in it.

    So the copies that it made of results whose name was taken from them while it went on. A run that ended before it
    had taken in what was there already has nothing newer than that.
    """
    prefix = _OLDER if left_files(folder) else _LEFT
    copies = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _COPY in name]
    for path in [*copies, results]:
        if os.path.exists(path):
            number = max(map(_number, left_files(folder)), default=0) + 1
            os.replace(path, os.path.join(folder, f"{prefix}{number}-{os.path.basename(path).replace(_COPY, '')}"))


def left_files(folder: str) -> list[str]:
    """What was set aside and is not taken in yet, the oldest first."""
    names = [name for name in os.listdir(folder) if name.startswith((_LEFT, _OLDER))]
    return [os.path.join(folder, name) for name in sorted(names, key=_number)]


def _number(left: str) -> int:
    return int(os.path.basename(left).split("-")[1])


def outdate(folder: str) -> None:
    """Has it known of all that was set aside that the store has newer answers."""
    for path in left_files(folder):
        name = os.path.basename(path)
        if name.startswith(_LEFT):
            os.replace(path, os.path.join(folder, _OLDER + name.removeprefix(_LEFT)))


def take_in_left(journal: Journal, folder: str) -> None:
    """Appends the answers of all that was set aside, see ``take_in_file``."""
    for path in left_files(folder):
        take_in_file(journal, folder, path, newer=not os.path.basename(path).startswith(_OLDER))


def take_in_data(journal: Journal, folder: str, data: bytes) -> None:
    """As ``take_in_file``, for the content of a part of such a file."""
    path = os.path.join(folder, f"part{'.' + journal.codec.kind if journal.codec.kind else ''}")
    with open(path, "wb") as file:
        file.write(data)
    take_in_file(journal, folder, path)
    os.unlink(path)


def take_in_file(journal: Journal, folder: str, path: str, *, newer: bool = True) -> None:
    """Appends the answers of a results file, also where there is one whose prompt was another then.

    Args:
        folder: For what is needed meanwhile.
        newer: Whether those in the file take the place of such; else they are kept in the torn file.

    Raises:
        ResultsFileError: They cannot be read or added.
    """
    plain = os.path.join(folder, "plain")
    try:
        changed, older = set(), list[bytes]()
        with open(plain, "wb") as file:
            for line in _whole_lines(path):
                stored = judge(RawLine(2, 0, line, True)).stored
                if stored is not None:
                    known = journal.completed.get(stored.id)
                    if known is not None and known != fingerprint_value(stored.fingerprint):
                        changed.add(stored.id)
                        older.append(line + b"\n")
                file.write(line + b"\n")
        if newer:
            journal.drop(changed)
        else:
            append_torn(journal.files.torn, older)
        take_in(journal, plain)
    except OSError as error:
        raise ResultsWriteError(f"{path}: the answers kept there cannot be read: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(plain)


def _whole_lines(path: str) -> Iterator[bytes]:
    """Lines of a file, as far as it can be read: the last one may be torn."""
    with contextlib.suppress(BatchchatError), open_input(path) as stream:
        for _, line in iter_lines(stream):
            yield line
