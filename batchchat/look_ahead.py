"""Big inputs: a run begins after their first lines, and the rest is checked beside it, in a process of its own."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Self

import msgspec

from batchchat.child_environment import bare_environment, module_path
from batchchat.input_settings import InputSettings
from batchchat.job_config import JobConfig
from batchchat.look_ahead_child import Asked, Found
from batchchat.prompts import PromptReader
from batchchat.records import InputFault, Prompt

__all__ = ["BIG_INPUT_BYTES", "FIRST_LINES", "Found", "LookAhead", "first_lines", "may_look_ahead"]

# Up to this size the whole input is checked before the first request.
BIG_INPUT_BYTES = 32 << 20
# Of a bigger one, so many lines, and no more than stand in its first MiB: they show a wrong file or a wrong setting,
# and take some milliseconds.
FIRST_LINES = 1000
_MOST_BYTES = 1 << 20


def may_look_ahead(job: JobConfig) -> bool:
    """Whether a run without stored answers may begin before its whole input is checked.

    The files must be big together, as they lie on the disk, and no promise may hang on all that is in them: a budget
    refuses prompts without a price before it spends anything, and a share of failures is one of the total.
    """
    stop = job.stop
    if not (job.limit is None and job.sample is None and stop.budget_usd is None and stop.max_failures_share is None):
        return False
    size = 0
    for path in job.input:
        with contextlib.suppress(OSError, ValueError):
            size += os.stat(path).st_size
    return size > BIG_INPUT_BYTES


def first_lines(reader: PromptReader) -> Iterator[Prompt | InputFault]:
    """What is checked of a big input before the first request."""
    lines = 0
    with contextlib.suppress(OSError, ValueError), open(reader.settings.paths[0], "rb") as file:
        lines = file.read(_MOST_BYTES).count(b"\n")
    return islice(reader, min(FIRST_LINES, max(1, lines)) * reader.variants)


class LookAhead:
    """A child that reads the whole input while it is open; what is found is told once, on the event loop.

    A child that cannot be started or dies tells nothing: the run checks each line as it comes to it.
    """

    def __init__(self, settings: InputSettings, *, lenient: bool, found: Callable[[Found], None]) -> None:
        self._asked, self._found = Asked(settings=settings, lenient=lenient), found
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look(self) -> None:
        # In a session of its own: what a terminal sends to all is the run's affair, and ends the child by that way.
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "batchchat.look_ahead_child"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**bare_environment(), "PYTHONPATH": module_path()},
                limit=_MOST_BYTES,
                start_new_session=True,
            )
        except (OSError, ValueError):
            return
        try:
            found = await self._ask(child)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await _ended(child)
        if found is not None:
            self._found(found)

    async def _ask(self, child: asyncio.subprocess.Process) -> Found | None:
        if child.stdin is None or child.stdout is None:
            return None
        child.stdin.write(json.dumps(msgspec.to_builtins(self._asked)).encode() + b"\n")
        with contextlib.suppress(OSError, ValueError):
            await child.stdin.drain()
            return msgspec.convert(json.loads(await child.stdout.readline()), Found)
        return None


async def _ended(child: asyncio.subprocess.Process) -> None:
    """Waits for the end of a child that was killed, however often the task is cancelled meanwhile."""
    ending = asyncio.ensure_future(child.wait())
    while not ending.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([ending])
