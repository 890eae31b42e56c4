"""Answers that an earlier run had to spill come home when the next run opens the results."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from batchchat.errors import ResultsWriteError
from batchchat.results.codec import Damage
from batchchat.results.journal import Journal
from batchchat.results.scan import RawLine, iter_raw_lines, judge
from batchchat.results.spill import spill_folders, spill_prefix
from batchchat.results.stored import StoredLine, fingerprint_value

__all__ = ["spills_of", "take_in", "take_in_all", "take_in_spills"]

_PIECE_BYTES = 1024 * 1024


def take_in_spills(journal: Journal, folders: Sequence[str] | None = None) -> list[str]:
    """Appends the answers of spill files that belong to these results, brings them to the disk, removes the files.

    An answer whose prompt has one already is not taken in twice. A spill file counts only where this user alone can
    have written it; one with answers of another form stays, too.

    Args:
        journal: Open and mended.
        folders: Where to look; ``spill_folders`` by default.

    Returns:
        A sentence for each file.

    Raises:
        ResultsWriteError: There is still no room; the spill file stays, and the results end as they did.
    """
    if not journal.regular:
        return []
    told = []
    for path in spills_of(journal.path, journal.files.errors, folders):
        count, left = _take_in(journal, path)
        if left:
            told.append(
                f"{journal.files.results}: {left} answers that an earlier run kept in {path} are not of the form "
                f"{journal.form} and stay there; {count} were taken in"
            )
            continue
        with contextlib.suppress(OSError):
            os.unlink(path)
        told.append(f"{journal.files.results}: {count} answers that an earlier run kept in {path} were taken in")
    return told


def spills_of(results_path: str, errors: str | None, folders: Sequence[str] | None = None) -> Iterator[str]:
    """Paths of the spill files that belong to a results file.

    Args:
        results_path: Its real path.
        errors: The errors file beside it.
        folders: Where to look; ``spill_folders`` by default.
    """
    return _spills(spill_folders(errors) if folders is None else folders, spill_prefix(results_path))


def _spills(folders: Sequence[str], prefix: str) -> Iterator[str]:
    seen: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            for name in sorted(name for name in os.listdir(folder) if name.startswith(prefix)):
                path = os.path.realpath(os.path.join(folder, name))
                if path not in seen and _is_ours(os.path.join(folder, name)):
                    seen.add(path)
                    yield path


def _is_ours(path: str) -> bool:
    """Whether nobody else can have put the file there: temporary folders are shared."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return stat.S_ISREG(found.st_mode) and mine and (os.name == "nt" or not found.st_mode & 0o022)


def take_in(journal: Journal, path: str) -> int:
    """Appends the answers in a file of result lines whose prompts have none yet; how many these were.

    Raises:
        ResultsWriteError: The file cannot be read, or there is no room.
    """
    return _take_in(journal, path)[0]


def take_in_all(journal: Journal, path: str) -> int:
    """As ``take_in``, where nothing may stay behind.

    Raises:
        ResultsWriteError: As ``take_in``, and where there are answers of another form.
    """
    count, left = _take_in(journal, path)
    if left:
        raise ResultsWriteError(
            f"{path}: {left} answers that an earlier run left there are not of the form {journal.form}; "
            "give --format as for that run, or name another file with -o"
        )
    return count


def _take_in(journal: Journal, path: str) -> tuple[int, int]:
    """How many were appended, and how many have another form and no answer in the results."""
    found: list[bytes] = []
    left = 0
    try:
        with open(path, "rb") as spill:
            for line in iter_raw_lines(iter(lambda: spill.read(_PIECE_BYTES), b"")):
                if isinstance(line, Damage) or (stored := _answer(line)) is None:
                    continue
                if stored.form != journal.form:
                    left += stored.id not in journal.completed
                elif journal.completed.add(stored.id, fingerprint_value(stored.fingerprint)):
                    found.append(line.data)
    except OSError as error:
        raise ResultsWriteError(f"{path}: the answers kept there cannot be read: {error.strerror}") from error
    if found:
        journal.append(b"".join(data + b"\n" for data in found))
    return len(found), left


def _answer(line: RawLine) -> StoredLine | None:
    judged = judge(line)
    return judged.stored if judged.kind == "answer" else None
