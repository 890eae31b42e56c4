"""Answers of runs that did not come to their end: in the mirror that they left, and in segments in the store."""

import contextlib
import os
from collections.abc import Iterator

from batchchat.compress import open_input
from batchchat.errors import BatchchatError, ResultsWriteError
from batchchat.jsonl import iter_lines
from batchchat.results import Journal
from batchchat.results.rescue import take_in
from batchchat.results.scan import RawLine, judge
from batchchat.results.stored import fingerprint_value

__all__ = ["left_files", "set_aside", "take_in_data", "take_in_file"]

_LEFT = "left-"
# In the names of copies that ``ResultsWriter`` makes.
_COPY = ".recovered"


def set_aside(folder: str, results: str) -> None:
    """Gives the results that a run left in a mirror another name: they are newer than the object, or were in it.

    So the copies that it made of results whose name was taken from them while it went on.
    """
    copies = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _COPY in name]
    for path in [*copies, results]:
        if os.path.exists(path):
            number = max(map(_number, left_files(folder)), default=0) + 1
            os.replace(path, os.path.join(folder, f"{_LEFT}{number}-{os.path.basename(path).replace(_COPY, '')}"))


def left_files(folder: str) -> list[str]:
    """What was set aside and is not taken in yet, the oldest first."""
    names = [name for name in os.listdir(folder) if name.startswith(_LEFT)]
    return [os.path.join(folder, name) for name in sorted(names, key=_number)]


def _number(left: str) -> int:
    return int(os.path.basename(left).split("-")[1])


def take_in_data(journal: Journal, folder: str, data: bytes) -> None:
    """As ``take_in_file``, for the content of a part of such a file."""
    path = os.path.join(folder, f"part{'.' + journal.codec.kind if journal.codec.kind else ''}")
    with open(path, "wb") as file:
        file.write(data)
    take_in_file(journal, folder, path)
    os.unlink(path)


def take_in_file(journal: Journal, folder: str, path: str) -> None:
    """Appends the answers of a results file; newer ones take the place of those whose prompt was another then.

    Raises:
        ResultsFileError: They cannot be read or added.
    """
    plain = os.path.join(folder, "plain")
    try:
        changed = set()
        with open(plain, "wb") as file:
            for line in _whole_lines(path):
                stored = judge(RawLine(2, 0, line, True)).stored
                if stored is not None:
                    known = journal.completed.get(stored.id)
                    if known is not None and known != fingerprint_value(stored.fingerprint):
                        changed.add(stored.id)
                file.write(line + b"\n")
        journal.drop(changed)
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
