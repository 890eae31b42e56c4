"""What workers have written comes into the run's own files: one line for each prompt, by the ordinary writers."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from batchchat.errors import ResultsWriteError
from batchchat.ids import IdTable
from batchchat.records import Outcome, PromptId
from batchchat.results.scan import iter_raw_lines, judge
from batchchat.results.stored import outcome_from_object
from batchchat.run_output import RunOutput
from batchchat.shards.work_place import WorkPlace

__all__ = ["Merger"]

_PIECE_BYTES = 1 << 20


class _Line(NamedTuple):
    data: bytes
    outcome: Outcome


class _Merged(NamedTuple):
    """A part that stays until the results are safe up to an offset."""

    end: int
    number: int
    whole: bool


class Merger:
    """Passes the lines of parts on, once each.

    Args:
        finished: Told of each outcome that is in its file.
        in_order: Whether the lines of a part are put in the order of the input.
    """

    def __init__(
        self, output: RunOutput, place: WorkPlace, finished: Callable[[Outcome], None], *, in_order: bool
    ) -> None:
        self._output, self._place, self._finished, self._in_order = output, place, finished, in_order
        self._merged = IdTable()
        self._done: deque[_Merged] = deque()

    def __contains__(self, id: PromptId, /) -> bool:
        return id in self._merged

    async def merge(self, number: int, *, whole: bool) -> None:
        """Brings a part into the files of the run, or what there is of one whose worker is gone.

        Raises:
            ResultsWriteError: The run's files cannot be written; the part stays.
            OSError: The part cannot be read.
        """
        answers, failures = await asyncio.to_thread(self._read, number, whole)
        await self._pass_on(answers, failed=False)
        await self._pass_on(failures, failed=True)
        self._done.append(_Merged(self._output.end, number, whole))
        while self._done and self._output.is_safe(self._done[0].end):
            done = self._done.popleft()
            with suppress(ResultsWriteError, OSError):  # what stays is removed at the end
                await asyncio.to_thread(self._place.discard, done.number, whole=done.whole)

    def _read(self, number: int, whole: bool) -> tuple[list[_Line], list[_Line]]:
        with self._place.fetched(number, whole=whole) as (answers, failures):
            return (
                [] if answers is None else _read(answers, False, self._in_order),
                [] if failures is None else _read(failures, True, self._in_order),
            )

    async def _pass_on(self, lines: Sequence[_Line], *, failed: bool) -> None:
        for piece in _pieces([line for line in lines if self._merged.add(line.outcome.id)]):
            await self._output.pass_on(b"".join(line.data for line in piece), failed=failed)
            for line in piece:
                self._finished(line.outcome)


def _read(path: str, failed: bool, in_order: bool) -> list[_Line]:
    """The whole lines of a journal that tell of an answer, or of an errors file that tell of a failure."""
    with open(path, "rb") as file:
        raw = list(iter_raw_lines(iter(lambda: file.read(_PIECE_BYTES), b"")))
    found = []
    for line in raw:
        judged = judge(line)  # type: ignore[arg-type]
        if judged.kind == ("failure" if failed else "answer") and judged.obj is not None:
            found.append(_Line(judged.core + b"\n", outcome_from_object(judged.obj)))
    if in_order:
        found.sort(key=lambda line: line.outcome.index)
    return found


def _pieces(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    piece: list[_Line] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line.data)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
