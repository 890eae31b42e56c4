"""One child from its start to its end, as the parent sees it."""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Coroutine
from typing import Any

from batchchat.admission import Abandoned, Admission
from batchchat.errors import AttemptTimeoutError, ConfigError, NetworkError, ProviderError
from batchchat.processes.channel import Channel
from batchchat.processes.errand import Errand
from batchchat.processes.messages import (
    Admit,
    Ask,
    Begun,
    Broken,
    Done,
    Ended,
    Failed,
    FromChild,
    Left,
    NonceFailed,
    NonceKept,
    NonceWanted,
    Notice,
    NotReady,
    Observed,
    Opening,
    Ping,
    Pong,
    Ready,
    Sent,
    Unused,
    Withdraw,
    Worked,
    Written,
)
from batchchat.processes.places import Places
from batchchat.processes.shared_nonce import NonceDesk
from batchchat.processes.silence import SilenceWatch
from batchchat.processes.start import how_ended, start_child
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion

__all__ = ["WorkerProcess"]

_START_S = 120.0
_END_S = 5.0
# So many further attempts are as good as any number; with a bound of its own, a failure says nothing of the service.
_ANY = 1 << 30


class WorkerProcess:
    """A child process and the requests that it has.

    Args:
        opening: What it is told first.
        desk: The nonce of all processes.
        notice: Told what its provider says to the user.
        died: Told when it has ended by itself after it was ready, and how.
        places: Where attempts failed; shared by all processes.
        freed: Called when it has one request less.
        worked: Called now and then, while it has requests, with its number and the CPU time that it has used.

    Attributes:
        load: Attempts that it has.
        answered: Whether it has brought any answer.
        ready: Whether it takes requests.
        tell: Sends it a message.
        trouble: A bug that its provider met at its end.
        vain: How many processes before it, in a row, ended without an answer.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        admission: Admission,
        desk: NonceDesk,
        notice: Callable[["WorkerProcess", str, int], None],
        died: Callable[["WorkerProcess", str], None],
        places: Places,
        freed: Callable[[], None],
        worked: Callable[[int, float], None],
    ) -> None:
        self.opening, self._admission, self._desk = opening, admission, desk
        self._notice, self._died, self._places, self._freed = notice, died, places, freed
        self._worked = worked
        self._loop = asyncio.get_running_loop()
        self._errands: dict[int, Errand] = {}
        self._count = self.load = 0
        self.ready = self.answered = self._ending = self._stuck = False
        self.trouble: Exception | None = None
        self.vain = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._over = asyncio.Event()
        self._channel: Channel[Any] = Channel(FromChild, self._received, self._lost)
        self.tell = self._channel.tell
        self._tasks: set[asyncio.Task[Any]] = set()
        self._silence = SilenceWatch(
            opening.attempt_s,
            at_work=lambda: bool(self._errands),
            ask=lambda: self.tell(Ping()),
            stuck=self._give_up,
        )
        self._acts = self._made_acts()

    def _made_acts(self) -> dict[type, Callable[[Any], None]]:
        desk, tell = self._desk, self.tell
        return {
            Done: self._done,
            Sent: self._sent,
            Written: lambda told: self._on(told.number, Errand.written),
            Left: lambda told: self._on(told.number, Errand.left),
            Failed: self._failed,
            Ended: lambda told: self._on(
                told.number, lambda errand: errand.ended(abandoned=told.abandoned, gone=told.gone)
            ),
            Admit: self._admit,
            Withdraw: lambda told: self._on(told.number, Errand.withdraw),
            Unused: lambda told: self._on(told.number, Errand.unused),
            Begun: lambda told: self._on(told.number, Errand.begin),
            Observed: self._observed,
            Notice: lambda told: self._notice(self, told.sentence, told.level),
            Ready: lambda told: self._settle_start(None),
            NotReady: lambda told: self._settle_start(ConfigError(told.sentence)),
            Broken: self._broken,
            NonceWanted: lambda told: desk.wanted(tell, told.refused),
            NonceKept: lambda told: desk.kept(tell, told.value, told.age_s),
            NonceFailed: lambda told: desk.failed(tell),
            Pong: lambda told: None,
            Worked: lambda told: self._worked(self.opening.number, told.cpu_s),
        }

    async def start(self) -> None:
        """Starts the process and waits until it takes requests.

        Raises:
            ConfigError: It does not start, or its provider's settings do not work.
        """
        ours, theirs = socket.socketpair()
        try:
            self._process = start_child(theirs)
        except OSError as error:
            ours.close()
            raise ConfigError(
                f"a worker process cannot be started ({error.strerror or error}); lower --processes"
            ) from error
        finally:
            theirs.close()
        self._begin_task(self._outlive(self._process))
        try:
            await self._loop.create_unix_connection(lambda: self._channel, sock=ours)
        except BaseException:
            ours.close()
            self._channel.give_up()
            raise
        self.tell(self.opening)
        try:
            async with asyncio.timeout(_START_S):
                await self._started
        except TimeoutError:
            raise ConfigError(f"a worker process was not ready within {_START_S:g} s; lower --processes") from None

    async def complete(self, request: ChatRequest) -> Completion:
        """Has the child make one attempt for the running task; see ``Provider.complete``."""
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a request outside a task")
        self._count = number = self._count + 1
        errand = self._errands[number] = Errand(number, task, self._admission, self.tell)
        self.load += 1
        try:
            if let_out := self._admission.free:  # then the child need not ask
                await self._admission.admit()
                errand.begin()
            self.tell(Ask(number, request, let_out, self._places.take(task, request)))
            self._silence.begin()
            return await errand.outcome()
        except ProviderError:
            self._places.keep(task, request, errand.place)
            raise
        finally:
            self.load -= 1
            self._forget(errand)
            self._freed()

    async def end(self) -> None:
        """Lets the process end, makes it where it does not, and leaves no task and no zombie behind."""
        self._ending, self.ready = True, False
        self._channel.end()
        try:
            async with asyncio.timeout(_END_S):
                await self._over.wait()
        except BaseException as error:
            self._kill()
            if not isinstance(error, TimeoutError):
                raise
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _forget(self, errand: Errand) -> None:
        del self._errands[errand.number]
        errand.left()

    def _begin_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _received(self, messages: list[Any]) -> None:
        self._silence.heard_at = self._loop.time()
        acts = self._acts
        for message in messages:
            acts[type(message)](message)

    def _on(self, number: int, act: Callable[[Errand], None]) -> None:
        if (errand := self._errands.get(number)) is not None:  # else its task has gone
            act(errand)

    def _done(self, told: Done) -> None:
        self.answered = True
        if (errand := self._errands.get(told.number)) is not None:
            errand.settle(told.completion, gone=told.gone)

    def _failed(self, told: Failed) -> None:
        if (errand := self._errands.get(told.number)) is not None:
            errand.place = told.place
            errand.settle(told.error.error(), gone=told.gone)

    def _sent(self, told: Sent) -> None:
        if (errand := self._errands.get(told.number)) is not None:
            if self.opening.ask_before_sending:
                self._begin_task(errand.may_send())
            else:
                errand.sent()

    def _admit(self, told: Admit) -> None:
        if told.number < 0 and told.number not in self._errands:
            task = self._begin_task(self._own_request(told.number))
            self._errands[told.number] = Errand(told.number, task, self._admission, self.tell)
        self._on(told.number, Errand.ask_admission)

    async def _own_request(self, number: int) -> None:
        """A request of the child's provider's own, as for a nonce; it goes through the gate as any other."""
        errand = self._errands[number]
        try:
            await errand.outcome()
        except (Abandoned, NetworkError, asyncio.CancelledError):
            return
        finally:
            self._forget(errand)

    def _observed(self, told: Observed) -> None:
        errand = self._errands.get(told.number)
        sentence = None if errand is None else self._admission.observed_by(errand.task, told.told)
        if sentence is not None:
            self._notice(self, sentence, 1)

    def _broken(self, told: Broken) -> None:
        error = RuntimeError(f"in worker process {self.opening.number}:\n{told.trace}")
        if told.number:
            self._on(told.number, lambda errand: errand.settle(error))
        elif not self._started.done():
            self._settle_start(error)
        else:
            self.trouble = error

    def _settle_start(self, error: Exception | None) -> None:
        if self._started.done():
            return
        if error is not None:
            self._started.set_exception(error)
            return
        self.ready = True
        self._started.set_result(None)

    def _lost(self) -> None:
        self.ready = False
        self._over.set()

    def _give_up(self) -> None:
        self._stuck = True
        self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def _outlive(self, process: "subprocess.Popen[bytes]") -> None:
        """Waits for the end of the process, and tells those that wait for it."""
        await self._over.wait()
        how = await asyncio.to_thread(how_ended, process)
        self._channel.close()
        self._silence.end()
        self._desk.failed(self.tell)
        for errand in list(self._errands.values()):
            self._places.deadly.add(errand.task)
            if errand.begun and not self.opening.ask_before_sending:
                errand.sent()  # whether it had gone to the wire, nobody can tell any more
            errand.lost(self._loss(how))
        if not self._started.done():
            self._settle_start(ConfigError(f"a worker process ended at its start: {how}; lower --processes"))
        elif not self._ending:
            self._died(self, how)

    def _loss(self, how: str) -> ProviderError:
        if self._stuck:
            return AttemptTimeoutError(
                f"no answer within {self.opening.attempt_s:.3g} s (--timeout), as the worker process did not run",
                retry_limit=_ANY,
            )
        return NetworkError(f"the worker process that had this request is gone: {how}", retry_limit=_ANY)
