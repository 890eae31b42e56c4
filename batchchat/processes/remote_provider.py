"""A provider whose attempts are made by several processes, this one among them."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self
from zlib import crc32

from batchchat.admission import Admission
from batchchat.errors import ConfigError, ServerError
from batchchat.processes.messages import Closed, Opening
from batchchat.processes.notices import Notices
from batchchat.processes.own_place import OwnPlace
from batchchat.processes.places import Places
from batchchat.processes.shared_nonce import NonceDesk
from batchchat.processes.worker_process import WorkerProcess
from batchchat.providers.base import ChatRequest, Provider, StreamEnd, StreamEvent
from batchchat.records import Completion, Prompt

__all__ = ["RemoteProvider"]

# A place whose processes end so often in a row without an answer stays empty.
_MOST_VAIN = 4
_FIRST_DELAY_S = 0.2


class RemoteProvider:
    """The job's provider, in front of processes that make most of its attempts.

    Args:
        provider: The real one, for what needs no request, and for the attempts that this process makes.
        opening: Makes the first message to child ``number``, once the provider's keys are known.
        admission: The run's gate.
        desk: The nonce of all processes.
        notices: What is said to the user, whichever process says it.
        children: How many child processes there are.
        concurrency: Most requests that one process may have.
    """

    def __init__(
        self,
        provider: Provider,
        opening: Callable[[int], Opening],
        *,
        admission: Admission,
        desk: NonceDesk,
        notices: Notices,
        children: int,
        concurrency: int,
    ) -> None:
        self._provider, self._opening, self._admission = provider, opening, admission
        self._notices, self._count, self._concurrency = notices, children, concurrency
        self.kind = provider.kind
        self._conversations = getattr(provider, "keeps_conversations", True)
        self._processes: list[WorkerProcess] = []
        self._desk, self._places = desk, Places()
        self._own = OwnPlace(provider, self._places, children=children, most=concurrency)
        self._replacing: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._why_none = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Provider.identity``."""
        return self._provider.identity(prompt, params)

    async def __aenter__(self) -> Self:
        self._admission.when_closed(self._close_gates)
        self._processes = [self._made(number) for number in range(1, self._count + 1)]
        try:
            async with asyncio.TaskGroup() as group:
                starting = [group.create_task(process.start()) for process in self._processes]
                for task in starting:  # a run that is stopped meanwhile needs none of them
                    self._admission.when_closed(task.cancel)
            await self._own.open()
        except BaseException as error:
            await self._end_all()
            raise (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._replacing:
            task.cancel()
        if self._replacing:
            await asyncio.wait(self._replacing)
        await self._end_all()
        await self._own.close(kind, error, trace)
        for process in self._processes:
            if process.trouble is not None and error is None:
                raise process.trouble

    def complete(self, request: ChatRequest) -> Coroutine[Any, Any, Completion]:
        """One attempt to its end, in the process that should make it; see ``Provider.complete``."""
        process = self._free_process(request)
        if process is self._own:
            return self._complete_here(request)
        return self._complete_later(request) if process is None else process.complete(request)

    async def _complete_later(self, request: ChatRequest) -> Completion:
        process = await self._next_free(request)
        return await (self._complete_here(request) if process is self._own else process.complete(request))

    async def _complete_here(self, request: ChatRequest) -> Completion:
        try:
            return await self._own.complete(request)
        finally:
            self._wake_one()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent]:
        """The answer at its end, as no process tells it piece by piece."""
        yield StreamEnd(await self.complete(request))

    def _made(self, number: int) -> WorkerProcess:
        return WorkerProcess(
            self._opening(number),
            admission=self._admission,
            desk=self._desk,
            notice=self._tell_user,
            died=self._died,
            places=self._places,
            freed=self._wake_one,
            worked=self._worked,
        )

    def _free_process(self, request: ChatRequest) -> WorkerProcess | OwnPlace | None:
        """Who makes a request; for a conversation that the service keeps always the same child, for its cookies."""
        processes = self._processes
        chat = request.chat_id if self._conversations else None
        if chat is not None and processes:
            process = processes[crc32(chat.encode("utf-8", "replace")) % len(processes)]
            if process.ready:
                return process
        best, in_flight = None, self._own.load
        for process in processes:
            in_flight += process.load
            if process.ready and process.load < self._concurrency and (best is None or process.load < best.load):
                best = process
        # Where no child is ready, one of them will be.
        if chat is not None or (best is None and not any(process.ready for process in processes)):
            return best
        return self._own if self._own.may_take(processes, in_flight, None if best is None else best.load) else best

    async def _next_free(self, request: ChatRequest) -> WorkerProcess | OwnPlace:
        """Waits until a process can take the request.

        Raises:
            ServerError: There are none any more.
        """
        while True:
            if not self._processes:
                raise ServerError(f"no worker process is left: {self._why_none}", stops_run=True)
            if (process := self._free_process(request)) is not None:
                return process
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                else:
                    self._wake_one()  # the turn that it got is another's
                raise

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        for _ in range(len(self._waiting)):
            self._wake_one()

    def _died(self, process: WorkerProcess, how: str) -> None:
        self._own.distrust()
        self._notices.tell(f"worker process {process.opening.number} is gone: {how}; another takes its place", 0)
        task = asyncio.get_running_loop().create_task(self._replace(process, how))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self, lost: WorkerProcess, how: str) -> None:
        """Starts another in the place of one that is gone, a few times if need be."""
        await lost.end()
        vain, number = (0 if lost.answered else lost.vain + 1), lost.opening.number
        while vain < _MOST_VAIN:
            if vain:
                await asyncio.sleep(_FIRST_DELAY_S * 2**vain)
            process = self._made(number)
            process.vain = vain
            self._processes[self._processes.index(lost)] = lost = process
            try:
                await process.start()
            except ConfigError as error:
                vain, how = vain + 1, str(error)
                await process.end()
                continue
            self._wake_all()
            return
        self._processes.remove(lost)
        self._why_none = how
        self._notices.tell(f"worker process {number} ended {vain} times without an answer and is left out: {how}", 0)
        self._wake_all()

    def _close_gates(self) -> None:
        for process in self._processes:
            process.tell(Closed())

    def _tell_user(self, process: WorkerProcess, sentence: str, level: int) -> None:
        self._notices.tell_of(process.opening.number, sentence, level)

    def _worked(self, number: int, cpu_s: float) -> None:
        self._own.share.told(number, cpu_s, time.process_time(), time.monotonic())

    async def _end_all(self) -> None:
        await asyncio.gather(*(process.end() for process in self._processes))
