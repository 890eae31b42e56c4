"""The folder beside the results in which workers keep a journal for each shard; see ``results.parts``."""

import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import msgspec

from batchchat.errors import ConfigError, ResultsLockedError, ResultsWriteError
from batchchat.results.files import RunFiles, sync_folder
from batchchat.results.lock import lock_results
from batchchat.results.parts import (
    MARKER,
    PartNames,
    is_marked,
    made_ready,
    mark_parts,
    part_names,
    parts_folder,
    remove_parts,
)
from batchchat.run_output import OutputSettings, RunOutput
from batchchat.shards.work_place import PartFiles

__all__ = ["WorkFolder"]

_WAIT_S, _PAUSE_S = 30.0, 0.1


class _WholeError(Exception):
    """There is a part."""


class WorkFolder(msgspec.Struct, frozen=True, kw_only=True):
    """One run's folder, as all its workers see it; see ``WorkPlace``.

    Attributes:
        path: Absolute.
        token: What the run has written there, so that a worker knows that it sees the same folder.
    """

    path: str
    token: str

    @classmethod
    def make(cls, results_path: str) -> Self:
        """Makes the folder for a run that holds the results; blocks.

        Raises:
            ResultsWriteError: It cannot be made.
        """
        path, token = parts_folder(results_path), secrets.token_hex(16)
        try:
            os.makedirs(path, exist_ok=True)
            if not made_ready(path):
                raise ResultsWriteError(
                    f"{path}: found a folder of something else, expected none; move it away, or name other results"
                )
            mark_parts(path, token)
        except OSError as error:
            raise ResultsWriteError(
                f"{path}: the workers' parts cannot be kept there: {error.strerror}; "
                "name results in a folder that can be written"
            ) from error
        sync_folder(path)
        sync_folder(os.path.dirname(path))
        return cls(path=path, token=token)

    @property
    def told(self) -> str:
        """See ``WorkPlace``."""
        return self.path

    @property
    def desk_memory(self) -> str:
        """See ``WorkPlace``."""
        return os.path.join(self.path, "desk")

    def check(self) -> None:
        """Sees that this process can write in the folder of the run; blocks.

        Raises:
            ConfigError: It sees another folder, or none.
        """
        trial = os.path.join(self.path, f"desk-trial-{secrets.token_hex(8)}")
        try:
            same = is_marked(self.path, self.token)
            if same:
                with open(trial, "xb"):
                    pass
                os.unlink(trial)
        except OSError as error:
            raise ConfigError(
                f"a worker on {socket.gethostname()} cannot write in {self.path} ({error.strerror}), "
                "expected a folder that the whole cluster shares; name results there with -o"
            ) from error
        if not same:
            raise ConfigError(
                f"a worker on {socket.gethostname()} sees another {self.path} than the run does, "
                "expected a folder that the whole cluster shares; name results there with -o"
            )

    def names(self, number: int) -> PartNames:
        """The files of a shard."""
        return part_names(self.path, number)

    def open(self, number: int, settings: OutputSettings) -> RunOutput | None:
        """A shard's journal, opened and mended as any results file is; None where its part is whole; blocks.

        Raises:
            ResultsFileError: It cannot be used; ``ResultsLockedError`` where another worker is at it.
        """
        names = self.names(number)
        if os.path.exists(names.part):
            return None
        files = RunFiles(results=names.journal, errors=names.errors, summary=None, torn=names.torn)
        try:
            return RunOutput.open(files, settings, locked=lambda: self._look_again(names))
        except _WholeError:
            return None

    def _look_again(self, names: PartNames) -> None:
        """Once the journal is locked: until then, another worker may have ended it, or another run begun."""
        if os.path.exists(names.part):
            raise _WholeError
        with contextlib.suppress(OSError):
            if is_marked(self.path, self.token):
                return
        if not os.path.exists(os.path.join(self.path, MARKER)) and not os.path.getsize(names.journal):
            os.unlink(names.journal)  # made too late, in a folder that is about to go
        raise ResultsWriteError(f"{self.path}: another run has taken over what workers wrote there")

    def make_whole(self, number: int) -> None:
        """A shard's closed journal becomes its part: on the disk first, then under the part's name; blocks.

        Raises:
            ResultsWriteError: It cannot.
        """
        names = self.names(number)
        try:
            with _held(names) as is_ours:
                if is_ours:
                    for path in (names.errors, names.journal):
                        with open(path, "rb") as file:
                            os.fsync(file.fileno())
                    os.replace(names.errors, names.part_errors)
                    os.replace(names.journal, names.part)
        except OSError as error:
            raise ResultsWriteError(f"{names.journal}: the part cannot be made whole: {error.strerror}") from error
        sync_folder(names.part)

    def leave(self, number: int) -> None:
        """See ``WorkPlace``."""

    def begin(self, number: int) -> None:
        """See ``WorkPlace``."""

    @contextmanager
    def fetched(self, number: int, *, whole: bool) -> Iterator[PartFiles]:
        """See ``WorkPlace``; the files are used where they are."""
        names = self.names(number)
        parts = (names.part, names.part_errors)
        paths = parts if whole or os.path.exists(names.part) else (names.journal, names.errors)
        yield PartFiles(*(path if os.path.exists(path) else None for path in paths))

    def discard(self, number: int, *, whole: bool) -> None:
        """See ``WorkPlace``."""
        self.names(number).remove()

    def remove(self) -> None:
        """Removes the folder with all that is in it; blocks.

        Raises:
            OSError: It cannot be removed.
        """
        remove_parts(self.path)


@contextmanager
def _held(names: PartNames) -> Iterator[bool]:
    """No other worker has a closed journal open meanwhile; False where one has made it a part."""
    give_up = time.monotonic() + _WAIT_S
    while not os.path.exists(names.part):
        if sys.platform == "win32":  # there, no open file gets another name
            yield True
            return
        try:
            fd = os.open(names.journal, os.O_RDWR)
        except FileNotFoundError:
            if os.path.exists(names.part):
                continue
            raise
        try:
            if lock_results(fd) and not os.path.exists(names.part):
                yield True
                return
        finally:
            os.close(fd)
        if time.monotonic() > give_up:
            raise ResultsLockedError(f"{names.journal}: another worker still writes there")
        time.sleep(_PAUSE_S)
    yield False
