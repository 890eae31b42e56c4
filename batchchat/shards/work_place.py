"""Where the workers of a run keep a journal for each shard, and the run finds what became of it: the seam."""

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from batchchat.run_output import OutputSettings, RunOutput

__all__ = ["PartFiles", "WorkPlace"]


class PartFiles(NamedTuple):
    """Paths of a shard's answers and failures on this machine; None for what there is none of."""

    answers: str | None
    failures: str | None


class WorkPlace(Protocol):
    """One run's, as all its workers see it; it travels to them. Every call blocks.

    A worker calls ``check``, and for each shard ``open``, then ``make_whole`` or ``leave``; the run calls ``begin``,
    and once a worker is done ``fetched`` and ``discard``.
    """

    @property
    def told(self) -> str:
        """What it is called in messages."""

    @property
    def desk_memory(self) -> str:
        """The beginning of the paths of what the desk remembers, on its machine."""

    def check(self) -> None:
        """Sees that this process can write there.

        Raises:
            ConfigError: It sees another place, or none.
        """

    def open(self, number: int, settings: OutputSettings) -> RunOutput | None:
        """A shard's journal with what earlier workers have written; None where its part is whole.

        Raises:
            ResultsFileError: It cannot be used; ``ResultsLockedError`` where another worker is at it.
        """

    def make_whole(self, number: int) -> None:
        """A shard's closed journal becomes its part, whole or not at all.

        Raises:
            ResultsWriteError: It cannot.
        """

    def leave(self, number: int) -> None:
        """A shard's closed journal stays what it is, as not all of it was asked."""

    def begin(self, number: int) -> None:
        """A worker is about to get a shard.

        Raises:
            ResultsWriteError: That cannot be noted.
        """

    def fetched(self, number: int, *, whole: bool) -> AbstractContextManager[PartFiles]:
        """A part, or what there is of one whose worker is gone; the files are there inside the context.

        Raises:
            ResultsWriteError: They cannot be brought here.
        """

    def discard(self, number: int, *, whole: bool) -> None:
        """Removes what there is of a shard, as the results have it.

        Raises:
            ResultsWriteError: It cannot be removed.
            OSError: So.
        """

    def remove(self) -> None:
        """Removes all, or has it removed once the results are where they belong.

        Raises:
            ResultsWriteError: It cannot be removed.
            OSError: So.
        """
