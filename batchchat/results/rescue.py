"""Answers that an earlier run had to spill come home when the next run opens the results."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from batchchat.errors import ResultsWriteError
from batchchat.results.codec import Damage
from batchchat.results.journal import Journal
from batchchat.results.scan import RawLine, iter_raw_lines, judge
from batchchat.results.spill import spill_folders, spill_prefix
from batchchat.results.stored import fingerprint_value

__all__ = ["spills_of", "take_in", "take_in_spills"]

_PIECE_BYTES = 1024 * 1024


def take_in_spills(journal: Journal, folders: Sequence[str] | None = None) -> list[str]:
    """Appends the answers of spill files that belong to these results, brings them to the disk, removes the files.

    An answer whose prompt has one already is not taken in twice. A spill file counts only where this user alone can
    have written it.

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
        count = take_in(journal, path)
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
    try:
        with open(path, "rb") as spill:
            pieces = iter(lambda: spill.read(_PIECE_BYTES), b"")
            found = [line.data for line in iter_raw_lines(pieces) if _is_new_answer(line, journal)]
    except OSError as error:
        raise ResultsWriteError(f"{path}: the answers kept there cannot be read: {error.strerror}") from error
    if found:
        journal.append(b"".join(data + b"\n" for data in found))
    return len(found)


def _is_new_answer(line: RawLine | Damage, journal: Journal) -> TypeGuard[RawLine]:
    if isinstance(line, Damage):
        return False
    judged = judge(line)
    stored = judged.stored
    if judged.kind != "answer" or stored is None or stored.form != journal.form:
        return False
    return journal.completed.add(stored.id, fingerprint_value(stored.fingerprint))
