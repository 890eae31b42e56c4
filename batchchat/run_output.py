"""The files of one run as one thing: answers, failures and the summary, opened, written and closed together."""

import asyncio
import platform
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec

from batchchat.errors import BatchchatError, ResultsWriteError
from batchchat.ids import IdTable
from batchchat.jsonl import dump_line
from batchchat.observer import RunReport
from batchchat.records import Outcome, PromptId
from batchchat.results import (
    Carry,
    ErrorsWriter,
    Form,
    Fsync,
    Journal,
    ResultsWriter,
    RunFiles,
    WriteFailedError,
    open_journal,
    outcome_to_batch_object,
    outcome_to_object,
    process_keys,
    take_in_parts,
    take_in_spills,
    write_summary,
)
from batchchat.version import VERSION

__all__ = ["OutputMirror", "OutputSettings", "RunOutput", "close_output", "open_output", "opened_in_thread"]

Opened = TypeVar("Opened", bound="RunOutput | None")


class OutputSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How results are written; see the job file's ``output``."""

    form: Form = "flat"
    fsync: Fsync = "interval"
    carry: Carry = "all"


class OutputMirror(Protocol):
    """What brings results to where they belong, that are written on this machine first; see ``Mirror``."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of the store."""

    @property
    def shipped(self) -> int:
        """Offset up to which the store has what is written."""

    def open(self) -> None:
        """Brings them down."""

    def take_in(self, journal: Journal) -> list[str]:
        """Adds what runs before have left."""

    def begin(self, end: int, lost: Callable[[Any], None]) -> None:
        """From here on, what is written goes up; ``lost`` is told the error of a hold that was lost."""

    def wrote(self, end: int) -> None:
        """They are whole up to an offset."""

    def publish(self, *, keep_errors: bool, failed: bool) -> list[str]:
        """Brings the whole up, once all is closed; keeps it on this machine where something was not written."""

    def told_all(self, value: Any) -> Any:
        """A value with the names that the user knows."""


class RunOutput:
    """Made by ``open``; ``begin`` before the first outcome, ``close`` at the end whatever happened."""

    def __init__(
        self,
        files: RunFiles,
        settings: OutputSettings,
        journal: Journal,
        taken_in: Sequence[str] = (),
        mirror: OutputMirror | None = None,
    ) -> None:
        self._mirror = mirror
        self._taken_in = taken_in
        self.files, self._settings, self._journal = files, settings, journal
        self._results: ResultsWriter | None = None
        self._errors: ErrorsWriter | None = None
        self._to_object = outcome_to_batch_object if settings.form == "openai-batch" else outcome_to_object

    @classmethod
    def open(
        cls,
        files: RunFiles,
        settings: OutputSettings,
        mirror: OutputMirror | None = None,
        *,
        locked: Callable[[], None] = lambda: None,
    ) -> "RunOutput":
        """Opens, locks and mends the results file; blocks for one read of it.

        Args:
            mirror: What the files are the mirror of; it is brought down before.
            locked: Called once the file is locked, and before anything is added to it; what it raises, this does too.

        Raises:
            ResultsFileError: It cannot be used.
        """
        if mirror is not None:
            mirror.open()
        journal = open_journal(files, form=settings.form)
        try:
            locked()
            taken_in = take_in_spills(journal) if mirror is None else [*mirror.notes, *mirror.take_in(journal)]
            taken_in = [*taken_in, *take_in_parts(journal)]
        except BaseException:
            journal.close()
            raise
        return cls(files, settings, journal, taken_in, mirror)

    @property
    def completed(self) -> IdTable:
        """Ids of the stored answers, each with its fingerprint as a number."""
        return self._journal.completed

    @property
    def repairs(self) -> Sequence[str]:
        """What was mended in the results file or taken in, a sentence each."""
        return [*(repair.sentence(self.files) for repair in self._journal.repairs), *self._taken_in]

    def redo(self, ids: Collection[PromptId]) -> None:
        """Moves stored answers to the torn file, so that their prompts are asked again; blocks."""
        self._journal.drop(ids)

    def begin(self, settings: Mapping[str, Any], on_failure: Callable[[WriteFailedError], None]) -> str | None:
        """Opens the errors file and says in the summary that a run is at work.

        Args:
            settings: The job without secrets.
            on_failure: Called once on the event loop when writing fails.

        Returns:
            A sentence where the summary could not be written, which is no reason to stop.
        """
        mirror = self._mirror
        if mirror is not None:
            mirror.begin(self._journal.end, lambda error: on_failure(WriteFailedError(str(error))))
        self._results = ResultsWriter(
            self._journal,
            fsync=self._settings.fsync,
            on_failure=on_failure,
            synced=None if mirror is None else mirror.wrote,
        )
        self._errors = ErrorsWriter(self.files.errors, on_failure=on_failure)
        running = {"state": "running", "started_at": datetime.now(UTC), "finished_at": None}
        return self._write_summary(running, settings)

    def write(self, outcome: Outcome) -> Awaitable[None]:
        """Writes one line; to be awaited until the system has it (or the disk, with ``fsync always``).

        Raises:
            ResultsWriteError: It could not be written.
        """
        return self._writer(outcome).written(self._line(outcome))

    def write_soon(self, outcome: Outcome) -> None:
        """Queues one line without waiting for it; ``close`` brings it to its file."""
        self._writer(outcome).write_soon(self._line(outcome))

    def pass_on(self, lines: bytes, *, failed: bool) -> Awaitable[None]:
        """Writes whole lines that a worker made of outcomes; see ``write``.

        Args:
            failed: Whether they are for the errors file.

        Raises:
            ResultsWriteError: They could not be written.
        """
        writer = self._errors if failed else self._results
        if writer is None:
            raise RuntimeError("an outcome before 'begin'")
        return writer.written(lines)

    @property
    def end(self) -> int:
        """Bytes of the results that the system has."""
        return 0 if self._results is None else self._results.end

    def is_safe(self, end: int) -> bool:
        """Whether the results are safe up to an offset: synced, and in the store that they are a mirror of."""
        if self._results is None:
            return False
        return self._results.synced_end >= end and (self._mirror is None or self._mirror.shipped >= end)

    def _writer(self, outcome: Outcome) -> ResultsWriter | ErrorsWriter:
        writer = self._results if outcome.error is None else self._errors
        if writer is None:
            raise RuntimeError("an outcome before 'begin'")
        return writer

    def _line(self, outcome: Outcome) -> bytes:
        return dump_line(self._to_object(outcome, carry=self._settings.carry))

    async def close(self, *, keep_errors: bool = False) -> list[str]:
        """Brings everything to its place and releases the lock; a sentence for each thing that went wrong.

        Args:
            keep_errors: Whether the errors file stays as it was before the run.
        """
        troubles = []
        if self._errors is not None:
            self._errors.keep_old = keep_errors
        for writer in (self._errors, self._results):
            if writer is None:
                continue
            try:
                await writer.close()
            except WriteFailedError as error:
                troubles.append("" if error.quiet else str(error))
            except (ResultsWriteError, OSError) as error:
                troubles.append(str(error))
            except Exception as error:  # the other one is closed all the same
                troubles.append(f"{self.files.results}: results cannot be brought to their end: {error!r}")
        if self._results is None:
            self._journal.close()
        elif self._mirror is not None:
            troubles += await asyncio.to_thread(self._mirror.publish, keep_errors=keep_errors, failed=any(troubles))
        return troubles

    def write_report(self, report: RunReport, settings: Mapping[str, Any]) -> str | None:
        """Writes the summary of the ended run; a sentence where it could not be written."""
        counts = msgspec.to_builtins(report)
        del counts["first_answers"]
        finished = report.answered + report.failed
        per_s = round(finished / report.duration_s, 3) if report.duration_s else None
        keys = {"state": "finished", **counts, "per_s": per_s, "versions": _versions()}
        return self._write_summary(keys, settings)

    def _write_summary(self, keys: dict[str, Any], settings: Mapping[str, Any]) -> str | None:
        if self.files.summary is None:
            return None
        content = {**process_keys(), **keys, "version": VERSION, "results": self.files.results, "settings": settings}
        if self._mirror is not None:
            content = self._mirror.told_all(msgspec.to_builtins(content))
        return write_summary(self.files.summary, content)


async def open_output(files: RunFiles, settings: OutputSettings, mirror: OutputMirror | None = None) -> RunOutput:
    """Opens the files, see ``opened_in_thread``.

    Raises:
        ResultsFileError: The results file cannot be used.
    """
    return await opened_in_thread(lambda: RunOutput.open(files, settings, mirror))


async def opened_in_thread(open_output: Callable[[], Opened]) -> Opened:
    """Has it opened in a thread; a cancellation meanwhile must not leave a locked file that nobody closes."""
    opening = asyncio.ensure_future(asyncio.to_thread(open_output))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(BatchchatError):
            if (output := await opening) is not None:
                await output.close()
        raise


async def close_output(output: RunOutput, *, keep_errors: bool) -> list[str]:
    """Closes the files to the end, however often the run is cancelled meanwhile; it is cancelled afterwards."""
    closing = asyncio.ensure_future(output.close(keep_errors=keep_errors))
    cancelled = False
    while not closing.done():
        try:
            await asyncio.wait([closing])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return closing.result()


def _versions() -> dict[str, str]:
    """Versions that a fault may depend on."""
    loaded = {name: sys.modules.get(name) for name in ("aiohttp", "msgspec", "orjson")}
    return {"python": platform.python_version()} | {
        name: str(getattr(module, "__version__", "")) for name, module in loaded.items() if module
    }
