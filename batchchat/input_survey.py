"""What is known of a run's input before its first request."""

import asyncio
from collections.abc import Callable, Iterator

from batchchat.config import JobConfig
from batchchat.fingerprints import Fingerprints
from batchchat.job_setup import is_input
from batchchat.look_ahead import first_lines, may_look_ahead
from batchchat.prompts import Answered, PromptReader, Stored
from batchchat.records import InputFault, Prompt
from batchchat.results import RunFiles
from batchchat.run_output import RunOutput
from batchchat.survey import Survey, mismatch, survey_input

__all__ = ["InputSurvey"]


class InputSurvey:
    """One reading of the input, or of its first lines where the rest is checked beside the run.

    Args:
        fingerprints: Of the run's prompts.
        check: Raises ``ConfigError`` for a prompt that the run cannot send.
        notice: Told what the user should know of it.
        stopped: Whether the run is to end meanwhile.

    Attributes:
        errors_are_input: Whether the run asks its own errors file again.
        looks_ahead: Whether only the first lines were read; known after ``read``.
    """

    def __init__(
        self,
        job: JobConfig,
        files: RunFiles,
        reader: PromptReader,
        *,
        fingerprints: Fingerprints,
        check: Callable[[Prompt], None],
        notice: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._job, self._files, self._reader = job, files, reader
        self._fingerprints, self._check, self._notice, self._stopped = fingerprints, check, notice, stopped
        self.errors_are_input = is_input(files.errors, job)
        self.looks_ahead = False

    async def read(self, output: RunOutput) -> Survey | None:
        """What is to do; None for a stream, which is checked as it comes, for a big input, and where the run ends.

        Stored answers that no longer fit are taken out, where the job says so.

        Raises:
            PromptFileError: The input is faulty, unless ``lenient``.
            ConfigError: A stored answer no longer fits its prompt, and the job does not say what to do.
        """
        if not self._reader.reiterable:
            return None
        self.looks_ahead = not len(output.completed) and may_look_ahead(self._job)
        found = await asyncio.to_thread(
            survey_input,
            first_lines(self._reader) if self.looks_ahead else self.items(output),
            output.completed,
            self._fingerprints.of,
            on_change=self._job.on_change,
            cancelled=self._stopped,
            check=self._check,
        )
        if self._stopped():
            return None
        if found.faults and not self._job.lenient:
            raise found.fault_error()
        if self.looks_ahead:
            return None
        if not found.faults:
            self._reader.trust()
        self._tell_unknown(len(output.completed) - found.completed - len(found.changed))
        if found.changed:
            await self._redo(output, found)
        return found

    def items(self, output: RunOutput) -> Iterator[Prompt | InputFault | Answered]:
        """The input from its beginning, compared with the stored answers."""
        stored = None
        if len(output.completed):
            plain = None if self._job.on_change == "keep" else self._fingerprints.plain(self._check)
            stored = Stored(output.completed, plain)
        return self._reader.against(stored)

    def _tell_unknown(self, count: int) -> None:
        job = self._job
        if count > 0 and not self.errors_are_input and job.limit is None and job.sample is None:
            self._notice(f"{count} stored answers belong to no prompt of this input; they stay as they are")

    async def _redo(self, output: RunOutput, found: Survey) -> None:
        if self._job.on_change == "error":
            raise mismatch(found.changed[0], len(found.changed))
        await asyncio.to_thread(output.redo, found.changed)
        self._notice(
            f"{len(found.changed)} stored answers no longer fit and are asked for again; "
            f"the old ones are in {self._files.torn}"
        )
