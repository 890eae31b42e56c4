"""A run's work spread over the workers of a cluster: shards out, parts in."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from batchchat.asking import Asks
from batchchat.errors import BatchchatError, ResultsWriteError
from batchchat.job_setup import fault_outcome
from batchchat.pool import InputOrder, PromptSource
from batchchat.prompts import PromptReader
from batchchat.ray.actor import Actor, WorkerLostError
from batchchat.ray.minding import Minder
from batchchat.ray.sharing import Sharing
from batchchat.records import Failure, InputFault, Outcome, Prompt, PromptId
from batchchat.run_output import RunOutput
from batchchat.shards.cutting import Piece, cut
from batchchat.shards.merge import Merger
from batchchat.shards.reading import shard_prompts
from batchchat.shards.shard import Shard, ShardReport, Trouble
from batchchat.shards.work_place import WorkPlace
from batchchat.stopping import StopReason
from batchchat.survey import ToDo

__all__ = ["Desks", "SpreadWork"]

# Shards that a worker has at a time, so that the slow prompts at the end of one hold nothing up.
_LANES = 3
# A shard should take about so long: long enough to be worth its files, short enough to be seen and to be lost.
_SHARD_S = 5.0
_MOST = 1000
# After the last word to the workers, so long until they are not waited for any more.
_ABORT_S = 15.0
_NONE_LEFT = StopReason(
    kind="service",
    message="no worker of the cluster is left that can ask; see that every node has the batchchat that is here, and "
    "run again to ask the rest",
)
_GIVEN_BACK = StopReason(
    kind="service",
    message="a worker gave back prompts that it was to ask, and nothing tells why; run again to ask the rest",
)


class Desks(Protocol):
    """What a work tells all workers, and Ray."""

    def say(self, *, abort: bool, all_cut: bool) -> None:
        """How far the run is."""

    async def judge(self, prompt_id: PromptId) -> None:
        """Told of each failure for good that no worker has met, one after another.

        Returns once it is counted with those of the workers, and the run is ended where that is one too many.
        """

    async def look(self) -> None:
        """Takes in what is known by now, also why the run is to end."""

    async def give_up(self, worker: Actor) -> None:
        """Ends a worker for good."""


class SpreadWork:
    """See ``Work``.

    Args:
        workers: Those that are ready.
        share: Prompts that each may have in flight.
        left: Prompts that are to do, as far as that is known.
        sharing: Takes out what need not be asked; None where each prompt is asked.
        fingerprint_of: See ``Fingerprints.of``.
    """

    def __init__(
        self,
        asks: Asks,
        items: Iterable[ToDo],
        output: RunOutput,
        *,
        reader: PromptReader,
        order: InputOrder | None,
        workers: Sequence[Actor],
        share: int,
        left: int | None,
        place: WorkPlace,
        desks: Desks,
        fingerprint_of: Callable[[Prompt], str],
        sharing: Sharing | None = None,
    ) -> None:
        self._asks, self._output, self._reader, self._order = asks, output, reader, order
        self._workers, self._share, self._left = workers, share, left
        self._place, self._desks, self._fingerprint_of = place, desks, fingerprint_of
        self._sharing = sharing
        self._size = self._best_size()
        self._last = 0
        self._source = self._cut(items, reader)
        self._merger = Merger(output, place, self._finished, in_order=order is not None)
        self._draining = False
        self._suspects: list[tuple[Shard, Actor]] = []
        self._lanes: list[asyncio.Task[None]] = []
        self._open: set[int] = set()
        self._chats, self._judging = asyncio.Lock(), asyncio.Lock()
        self._talker: Actor | None = None
        self._spilled = False
        self._minder = Minder(workers, desks.give_up, lambda sentence: asks.observer.notice(sentence, 0))

    @property
    def unmerged(self) -> bool:
        """Whether answers may be in the folder that are not in the results."""
        return bool(self._open) or self._spilled

    @property
    def exhausted(self) -> bool:
        """See ``Work``."""
        return self._source.exhausted

    async def run(self) -> None:
        """See ``Work``."""
        sharing = self._sharing
        try:
            await self._ask_all()
            while sharing is not None and not self._draining and (aside := sharing.put_aside()) is not None:
                self._source = self._cut(aside, None)
                await self._ask_all()
        finally:
            if sharing is not None:
                sharing.close()

    async def _ask_all(self) -> None:
        minding = [asyncio.create_task(self._minder.mind(worker)) for worker in self._workers]
        try:
            await self._in_lanes([self._lane(worker) for _ in range(_LANES) for worker in self._workers])
            await self._in_lanes([self._ask_suspects()])
            if not self._draining and not self.exhausted and self._source.failed is None:
                self._asks.stop(_NONE_LEFT)  # each lane ended before it had anything to ask
        finally:
            self._source.close()
            for each in minding:
                each.cancel()
            await asyncio.wait(minding)
        for each in minding:
            if not each.cancelled():
                each.result()
        if self._source.failed is not None:
            raise self._source.failed

    async def _in_lanes(self, works: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Does them beside each other, to their end or to that of an abort."""
        try:
            async with asyncio.TaskGroup() as group:
                self._lanes = [group.create_task(work) for work in works]
        except* BatchchatError as errors:
            raise errors.exceptions[0] from None

    def _cut(self, items: Iterable[ToDo], reader: PromptReader | None) -> PromptSource[Piece]:
        left: Iterable[ToDo | Outcome] = items if self._sharing is None else self._sharing.left(items)
        return PromptSource(cut(left, reader, lambda: self._size, self._last + 1), ahead=2)

    def drain(self) -> None:
        """See ``Work``."""
        self._draining = True
        self._minder.expect_none()
        self._desks.say(abort=False, all_cut=True)

    def abort(self) -> None:
        """See ``Work``."""
        self._draining = True
        self._desks.say(abort=True, all_cut=True)
        asyncio.get_running_loop().call_later(_ABORT_S, self._give_up)

    def _give_up(self) -> None:
        for lane in self._lanes:
            lane.cancel()

    async def _lane(self, worker: Actor) -> None:
        """Gives a worker one shard after another, once it is there."""
        if not await self._minder.arrives(worker):
            return
        while not self._draining:
            item = await self._source.next()
            if item is None:
                self._desks.say(abort=False, all_cut=True)
                self._minder.expect_none()
                return
            ticket = None if self._order is None else self._order.ticket()
            try:
                await self._handle(item, worker, ticket)
            finally:
                if self._order is not None and ticket is not None:
                    self._order.leave(ticket)

    async def _handle(self, item: Piece, worker: Actor, ticket: int | None) -> None:
        if isinstance(item, BatchchatError):
            self._asks.stop(StopReason(kind="input", message=str(item)), exit_code=item.exit_code)
        elif isinstance(item, InputFault | Outcome):
            outcome = item if isinstance(item, Outcome) else fault_outcome(item)
            if outcome.error is not None and not await self._judged(item.id):
                return
            await self._in_turn(ticket)
            await self._record(outcome)
        else:
            self._last = max(self._last, item.number)  # numbers are given once in a run, as parts stay for a while
            if not await self._begun(item.number):
                return
            if item.chats:  # one after another, so by one worker, which knows whose turn it is
                async with self._chats:
                    await self._ask(item, self._talking(worker), ticket)
            else:
                await self._ask(item, worker, ticket)

    def _talking(self, worker: Actor) -> Actor:
        """Who asks what belongs to conversations: always the same, as long as it can; the first that is there."""
        talker = worker if self._talker is None else self._minder.in_place_of(self._talker)
        self._talker = worker if talker is None else talker
        return self._talker

    async def _begun(self, number: int) -> bool:
        try:
            await asyncio.to_thread(self._place.begin, number)
        except ResultsWriteError as error:
            self._asks.stop_for_results(str(error))
            return False
        self._open.add(number)
        return True

    async def _ask(self, shard: Shard, worker: Actor, ticket: int | None) -> None:
        try:
            report = await self._asked(shard, worker)
        except WorkerLostError:
            self._suspects.append((shard, worker))
            return
        await self._done(report, ticket)

    async def _asked(self, shard: Shard, worker: Actor) -> ShardReport:
        """What became of a shard, with this worker or, where that is lost, another.

        Raises:
            WorkerLostError: The worker died of it, as far as anybody can tell, or of what was beside it.
        """
        while (left := self._minder.in_place_of(worker)) is not None:
            worker = left
            try:
                report: ShardReport = await worker.ask(shard)
                return report
            except WorkerLostError:
                if not await self._minder.is_gone(worker):
                    raise
        self._asks.stop(_NONE_LEFT)
        return ShardReport(number=shard.number, whole=False)

    async def _done(self, report: ShardReport, ticket: int | None) -> None:
        if report.trouble is not None:
            self._stop_for(report.trouble)
        elif not report.whole and not self._draining:
            await self._find_out(report)
        await self._in_turn(ticket)
        await self._merge(report.number, whole=report.whole)

    async def _find_out(self, report: ShardReport) -> None:
        """Ends the run as a worker did that gave its shard back: it would do so with all that come."""
        if report.stop is not None:
            self._asks.stop(report.stop)
            return
        await self._desks.look()
        if not self._draining:
            self._asks.stop(_GIVEN_BACK)

    async def _in_turn(self, ticket: int | None) -> None:
        if self._order is not None and ticket is not None:
            await self._order.wait(ticket)

    async def _merge(self, number: int, *, whole: bool) -> None:
        try:
            await self._merger.merge(number, whole=whole)
            self._open.discard(number)
            self._size = self._best_size()
        except ResultsWriteError as error:
            self._asks.stop_for_results("" if getattr(error, "quiet", False) else str(error))
        except OSError as error:
            told = f"{self._place.told}: part {number} cannot be read: {error.strerror or error}"
            self._asks.stop_for_results(told)

    async def _ask_suspects(self) -> None:
        suspects, self._suspects = self._suspects, []
        for shard, worker in suspects:
            await self._alone(shard, worker)

    async def _alone(self, shard: Shard, worker: Actor) -> None:
        """Asks a shard once more that killed its worker, or was beside one that did, with nothing beside it."""
        if self._draining:
            return
        with suppress(WorkerLostError):
            await self._done(await self._asked(shard, self._minder.another(worker)), None)
            return
        await self._merge(shard.number, whole=False)
        prompts = shard_prompts(shard, self._reader, self._fingerprint_of, self._merger)
        for prompt, fingerprint in await asyncio.to_thread(list, prompts):
            if not await self._judged(prompt.id):
                return
            await self._record(_lost(prompt, fingerprint))

    async def _judged(self, prompt_id: PromptId) -> bool:
        """Has a failure counted that no worker has met; False where the run ends, so that the prompt stays to be asked.

        One after another, as none is to follow the one that is too many.
        """
        async with self._judging:
            if self._draining:
                return False
            await self._desks.judge(prompt_id)
        return True

    def _finished(self, outcome: Outcome) -> None:
        if self._sharing is not None:
            self._sharing.add(outcome)
        self._asks.tally.add(outcome)
        self._asks.observer.prompt_finished(outcome)

    async def _record(self, outcome: Outcome) -> None:
        try:
            await self._output.write(outcome)
        except ResultsWriteError as error:
            self._asks.stop_for_results("" if getattr(error, "quiet", False) else str(error))
            return
        self._finished(outcome)

    def _stop_for(self, trouble: Trouble) -> None:
        if trouble.exit_code == ResultsWriteError.exit_code:
            self._spilled = True  # what a worker could not write belongs to its journal
            self._asks.stop_for_results(trouble.sentence)
        else:
            self._asks.stop(StopReason(kind="input", message=trouble.sentence), exit_code=trouble.exit_code)

    def _best_size(self) -> int:
        """How many prompts a shard should have now; for the event loop, as whoever cuts is a thread."""
        lanes = len(self._workers) * _LANES
        per_s = self._asks.tally.pace.per_s / max(1, len(self._workers))
        most = min(_MOST, max(self._share, round(per_s * _SHARD_S)))
        return most if self._left is None else max(1, min(most, -(-self._left // lanes)))


def _lost(prompt: Prompt, fingerprint: str) -> Outcome:
    """The line of a prompt whose worker died each time."""
    message = (
        "the worker that asked this prompt, or one beside it, died each time, so that it was given up; "
        "ask again with --engine local to see why"
    )
    return Outcome(
        id=prompt.id,
        index=prompt.index,
        error=Failure(type="cancelled", message=message),
        line=prompt.line,
        fingerprint=fingerprint,
        variant=prompt.variant,
    )
