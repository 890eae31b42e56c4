"""Parts of a run that is spread over workers: a folder beside the results, which the next run of any kind takes in."""

import contextlib
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator

from batchchat.errors import ResultsLockedError, ResultsWriteError
from batchchat.results.files import sync_folder
from batchchat.results.journal import Journal
from batchchat.results.lock import lock_results
from batchchat.results.rescue import spills_of, take_in_all

__all__ = [
    "MARKER",
    "PartNames",
    "is_marked",
    "made_ready",
    "mark_parts",
    "part_names",
    "parts_folder",
    "remove_parts",
    "take_in_parts",
]

# A folder without this file is none of ours.
MARKER = "batchchat-parts.json"
_OURS = re.compile(
    r"(shard|part)-\d+\.(jsonl|errors\.jsonl|errors\.jsonl\.part|torn)|" + re.escape(MARKER) + r"|desk.*"
)
# Without the marker, these are left of a run whose desk wrote once more after the folder was removed.
_DESKS = re.compile(r"desk-(figures|leases|trial)[-.\w]*")
# A worker of a run that was killed notices it within this time.
_WAIT_S, _PAUSE_S = 30.0, 0.1


class PartNames:
    """Paths of one shard's files.

    Attributes:
        journal, errors: While a worker is at it.
        part, part_errors: Once it is whole; there is a part only when all of the shard was asked.
        torn: What was taken out of the journal.
    """

    def __init__(self, folder: str, number: int) -> None:
        stem, whole = os.path.join(folder, f"shard-{number:06}"), os.path.join(folder, f"part-{number:06}")
        self.journal, self.errors, self.torn = f"{stem}.jsonl", f"{stem}.errors.jsonl", f"{stem}.torn"
        self.part, self.part_errors = f"{whole}.jsonl", f"{whole}.errors.jsonl"

    def remove(self) -> None:
        """Removes what there is of them."""
        for path in (self.part, self.part_errors, self.journal, self.errors, f"{self.errors}.part", self.torn):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def part_names(folder: str, number: int) -> PartNames:
    """The files of shard ``number``, from 1, in a folder of parts."""
    return PartNames(folder, number)


def parts_folder(results_path: str) -> str:
    """The folder of the parts of a results file."""
    return f"{os.path.realpath(results_path)}.parts"


def take_in_parts(journal: Journal, wait_s: float = _WAIT_S) -> list[str]:
    """Appends the answers that workers of an earlier run left behind, and removes what they are from; blocks.

    Args:
        journal: Open and mended.
        wait_s: How long to wait for a worker that is still at it.

    Returns:
        A sentence, if there were any.

    Raises:
        ResultsLockedError: A worker goes on writing.
        ResultsWriteError: There is no room, or a part cannot be read; what was not taken in stays.
    """
    folder = parts_folder(journal.path)
    if not journal.regular or not os.path.exists(os.path.join(folder, MARKER)):
        return []
    give_up = time.monotonic() + wait_s
    count = looks = 0
    try:
        # From here on, no worker of the run before begins to write; see ``WorkFolder.open``.
        mark_parts(folder, secrets.token_hex(16))
        # Looked for twice: a look may miss a journal that becomes a part at that moment.
        while looks < 2:
            found = list(_answers(folder))
            looks = 0 if found else looks + 1
            for path in found:
                count += _take_in_one(journal, path, give_up)
            if found and found == list(_answers(folder)):
                if time.monotonic() > give_up:
                    raise _still_at_it(found[0])
                time.sleep(_PAUSE_S)
        remove_parts(folder)
    except OSError as error:
        raise ResultsWriteError(f"{folder}: cannot be removed: {error.strerror}") from error
    if not count:
        return []
    return [f"{journal.files.results}: {count} answers that workers of an earlier run left in {folder} were taken in"]


def made_ready(folder: str) -> bool:
    """Removes what a desk of an earlier run left in a folder; False where the folder is none of ours.

    Raises:
        OSError: It cannot be read, or not removed.
    """
    names = os.listdir(folder)
    desks = [name for name in names if _DESKS.fullmatch(name)]
    if MARKER not in names and len(desks) < len(names):
        return False
    for name in desks:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    return True


def _take_in_one(journal: Journal, path: str, give_up: float) -> int:
    """Takes in a journal or part, and removes it while nobody else can open it; the number of answers."""
    try:
        fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:  # a part by now, which the next look finds
        return 0
    try:
        while not lock_results(fd):
            if time.monotonic() > give_up:
                raise _still_at_it(path)
            time.sleep(_PAUSE_S)
        count = take_in_all(journal, path)
        for spilled in spills_of(path, f"{path.removesuffix('.jsonl')}.errors.jsonl"):
            count += take_in_all(journal, spilled)
            with contextlib.suppress(OSError):
                os.unlink(spilled)
        if sys.platform != "win32":
            os.unlink(path)
    except ResultsWriteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return 0
        raise
    except FileNotFoundError:
        return count
    finally:
        os.close(fd)
    if sys.platform == "win32":  # there, no open file can be removed
        os.unlink(path)
    return count


def _still_at_it(path: str) -> ResultsLockedError:
    return ResultsLockedError(
        f"{path}: a worker of an earlier run still writes there; wait for it to end, or name another file with -o"
    )


def mark_parts(folder: str, token: str) -> None:
    """Notes whose a folder of parts is.

    Raises:
        OSError: It cannot be written.
    """
    with open(os.path.join(folder, MARKER), "w", encoding="utf-8") as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())


def is_marked(folder: str, token: str) -> bool:
    """Whether a folder of parts is the one that was marked so.

    Raises:
        OSError: The mark cannot be read.
    """
    with open(os.path.join(folder, MARKER), encoding="utf-8") as file:
        return file.read().strip() == token


def remove_parts(folder: str) -> None:
    """Removes a folder of parts with all that is ours in it; the marker goes last.

    Raises:
        OSError: It cannot be removed.
    """
    names = [name for name in os.listdir(folder) if _OURS.fullmatch(name)]
    for name in sorted(names, key=lambda name: name == MARKER):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    with contextlib.suppress(OSError):  # somebody has put something there
        os.rmdir(folder)
    sync_folder(folder)


def _answers(folder: str) -> Iterator[str]:
    """Paths of journals and parts, in the order of the input."""
    for name in sorted(os.listdir(folder), key=lambda name: name.partition("-")[2]):
        if _OURS.fullmatch(name) and name.endswith(".jsonl") and not name.endswith(".errors.jsonl"):
            yield os.path.join(folder, name)
