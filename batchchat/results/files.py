"""Names of a run's files, from the results path."""

import contextlib
import os
import stat

import msgspec

from batchchat.compress import compression_of, strip_endings
from batchchat.errors import ConfigError, ResultsWriteError

__all__ = ["PART_ENDING", "RunFiles", "free_space_bytes", "is_stream", "name_files", "run_files", "sync_folder"]

# Of an errors file that is not at its end yet.
PART_ENDING = ".part"
_STREAM_NAMES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")
_TABLE_ENDINGS = (".csv", ".tsv", ".parquet")


class RunFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of a run's files; None where there is none (results that go to a stream have no siblings unless named).

    Attributes:
        results: As the user wrote it; ``-`` for standard output.
        errors: One line for each prompt that failed in the latest run.
        summary: Summary of the latest run.
        torn: What was taken out of the results because it is no answer of ours.
    """

    results: str
    errors: str | None
    summary: str | None
    torn: str | None

    @property
    def stream(self) -> bool:
        """Whether results go to standard output, a pipe or a device: nothing to lock, to read or to resume."""
        return is_stream(self.results)

    @property
    def latest_errors(self) -> str | None:
        """The errors file of the latest run: while it goes on, and after a crash, the part file."""
        if self.errors is None:
            return None
        part = f"{self.errors}{PART_ENDING}"
        return part if os.path.exists(part) else self.errors

    def need_file(self) -> None:
        """Sees that results can be read.

        Raises:
            ConfigError: They went to a stream, which leaves nothing to read.
        """
        if self.stream:
            raise ConfigError(f"{self.results} is no file; expected the path of a results file")


def name_files(results_path: str, errors: str | None = None, summary: str | None = None) -> RunFiles:
    """The files that go with a results path; touches nothing."""
    stem = strip_endings(results_path)
    own = not is_stream(results_path)
    return RunFiles(
        results=results_path,
        errors=errors or (f"{stem}.errors.jsonl" if own else None),
        summary=summary or (f"{stem}.run.json" if own else None),
        torn=f"{stem}.torn" if own else None,
    )


def run_files(results_path: str, errors: str | None = None, summary: str | None = None) -> RunFiles:
    """The files that go with a results path, for a run; makes their folders.

    Raises:
        ConfigError: A folder is given where a file is expected, or one file is to serve for two purposes.
        ResultsWriteError: A folder cannot be made.
    """
    files = name_files(results_path, errors, summary)
    named = [(option, path) for option, path in _named(files) if not is_stream(path)]
    seen: dict[str, str] = {}
    for option, path in named:
        if option != "--summary":
            _check_ending(option, path)
        if os.path.isdir(path) or path.endswith(("/", os.sep)):
            raise ConfigError(
                f"{option} {path} is a folder, expected the name of a file; add one, such as results.jsonl"
            )
        other = seen.setdefault(os.path.realpath(path), option)
        if other != option:
            raise ConfigError(f"{other} and {option} both name {path}; give each a file of its own")
    for _, path in named:
        _make_folder(os.path.dirname(path) or ".", path)
    return files


def is_stream(path: str) -> bool:
    """Whether ``path`` is standard output, a pipe, a socket or a device."""
    if path == "-" or path.startswith(_STREAM_NAMES):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def free_space_bytes(path: str) -> int | None:
    """Bytes that may still be written beside ``path``; None where the system does not tell."""
    if not hasattr(os, "statvfs"):
        return None
    try:
        found = os.statvfs(os.path.dirname(os.path.realpath(path)))
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _named(files: RunFiles) -> list[tuple[str, str]]:
    pairs = (("-o", files.results), ("--errors", files.errors), ("--summary", files.summary))
    return [(option, path) for option, path in pairs if path is not None]


def _check_ending(option: str, path: str) -> None:
    name = os.path.splitext(path)[0] if compression_of(path) else path
    ending = os.path.splitext(name)[1].lower()
    if ending in _TABLE_ENDINGS:
        made = f"{os.path.splitext(name)[0]}.jsonl"
        raise ConfigError(
            f"{option} {path}: a run writes JSON Lines, expected a name such as {made}; "
            f"make the table of it afterwards: batchchat convert {made} {name}"
        )


def sync_folder(path: str) -> None:
    """Makes the name of a file or folder that was made or replaced last, where the system allows."""
    with contextlib.suppress(OSError):
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _make_folder(folder: str, path: str) -> None:
    """Makes a folder and those above it, so that a power loss leaves none of them without what is in it."""
    made = []
    missing = os.path.abspath(folder)
    while not os.path.exists(missing):
        made.append(missing)
        missing = os.path.dirname(missing)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ResultsWriteError(f"{path}: the folder {folder} cannot be made: {error.strerror}") from error
    for each in made:
        sync_folder(each)
