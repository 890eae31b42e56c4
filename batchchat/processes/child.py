"""The child: a provider, entered once, and a socket to the parent that says what it is to ask."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from typing import Any

import msgspec

from batchchat.admission import Abandoned
from batchchat.descriptors import fit_concurrency
from batchchat.errors import BatchchatError, ProviderError
from batchchat.fast_loop import run_on_fast_loop
from batchchat.garbage import settle_for_a_run
from batchchat.processes.channel import Channel
from batchchat.processes.gate_proxy import GateProxy, Pending
from batchchat.processes.messages import (
    Ask,
    Broken,
    Cancel,
    CarriedError,
    Closed,
    Done,
    Ended,
    Failed,
    NonceGiven,
    Notice,
    NotReady,
    Opening,
    Ping,
    Pong,
    Ready,
    Reply,
    ToChild,
    Worked,
)
from batchchat.processes.shared_nonce import NonceProxy
from batchchat.providers import load_provider
from batchchat.providers.base import Provider, ProviderContext
from batchchat.providers.tls import load_trust

__all__ = ["main"]

# Once the parent has gone or has said that nothing more comes, what is left to do may not take long.
_END_S = 3.0
_PR_SET_PDEATHSIG = 1
_WORKED_S = 0.1


class Child:
    """Makes the parent's attempts, each in a task of its own.

    Args:
        link: This end of the socket.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Opening] = self._loop.create_future()
        self._channel: Channel[Any] = Channel(ToChild, self._received, self._over.set)
        self._gate = GateProxy(self._channel.tell, ask_before_sending=False)
        self._nonces = NonceProxy(self._channel.tell)
        self._provider: Provider | None = None
        self._telling: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """From the opening to the end of the socket."""
        await self._loop.create_unix_connection(lambda: self._channel, sock=self._link)
        over = asyncio.ensure_future(self._over.wait())
        ends: list[asyncio.Future[Any]] = [self._opened, over]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._opened.done():
            await self._serve(self._opened.result(), over)
        over.cancel()
        if self._telling is not None:
            self._telling.cancel()
        self._channel.end()

    async def _serve(self, opening: Opening, over: "asyncio.Future[Any]") -> None:
        try:
            self._provider = provider = self._made_provider(opening)
            async with provider:
                settle_for_a_run()
                self._channel.tell(Ready())
                await over
                async with asyncio.timeout(_END_S):
                    await self._end_tasks()
        except BatchchatError as error:
            self._channel.tell(NotReady(str(error)))
        except Exception:
            self._channel.tell(Broken(0, traceback.format_exc()))

    def _made_provider(self, opening: Opening) -> Provider:
        self._gate = GateProxy(
            self._channel.tell, ask_before_sending=opening.ask_before_sending, tell_at_once=opening.tell_at_once
        )
        self._gate.closed = opening.closed
        fit_concurrency(opening.concurrency)
        provider_class = load_provider(opening.kind)
        context = ProviderContext(
            gate=self._gate,
            notice=lambda sentence, level: self._channel.tell(Notice(sentence, level)),
            connect_s=opening.connect_s,
            idle_s=opening.idle_s,
            attempt_s=opening.attempt_s,
            max_response_bytes=opening.max_response_bytes,
            proxy=opening.proxy,
            tls=load_trust(opening.ca_file),
            nonce_folder=opening.nonce_folder,
            shared_nonce=self._nonces,
            concurrency=opening.concurrency,
            environ=opening.environ,
        )
        provider = provider_class(msgspec.convert(opening.settings, provider_class.Config), context)
        if opening.keys is not None:
            provider.take_keys(opening.keys)  # type: ignore[attr-defined]
        return provider

    def _received(self, messages: list[Any]) -> None:
        begun: list[Pending] = []
        for message in messages:
            match message:
                case Ask():
                    begun.append(self._begin(message))
                case Reply():
                    self._gate.replied(message.number, message.word)
                case Cancel():
                    self._cancel(message.number)
                case NonceGiven():
                    self._nonces.given(message)
                case Ping():
                    self._channel.tell(Pong())
                case Closed():
                    self._gate.closed = True
                case Opening():
                    self._opened.set_result(message)
        if begun:
            self._loop.call_soon(self._gate.check_used, begun)
            if self._telling is None:
                self._tell_worked()

    def _tell_worked(self) -> None:
        self._channel.tell(Worked(time.process_time()))
        self._telling = self._loop.call_later(_WORKED_S, self._tell_worked) if self._gate.attempts_left else None

    def _begin(self, ask: Ask) -> Pending:
        pending = Pending(ask.number, let_out=ask.let_out)
        self._gate.enter(self._loop.create_task(self._attempt(ask, pending)), pending)
        return pending

    def _cancel(self, number: int) -> None:
        if (pending := self._gate.attempt(number)) is not None:
            pending.task.cancel()
            if not pending.started:  # it ends before it begins, and says nothing itself
                self._gate.leave(pending)
                self._channel.tell(Ended(number))

    async def _attempt(self, ask: Ask, pending: Pending) -> None:
        number, provider = ask.number, self._provider
        assert provider is not None  # nothing is asked before the opening
        pending.started = True
        if ask.place is not None:
            provider.avoid(ask.request, ask.place)  # type: ignore[attr-defined]
        try:
            told: Any = Done(number, await provider.complete(ask.request), pending.gone)
        except ProviderError as error:
            place = getattr(provider, "failed_place", None)
            told = Failed(number, CarriedError.of(error), place() if place is not None else None, pending.gone)
        except Abandoned:
            told = Ended(number, abandoned=True, gone=pending.gone)
        except asyncio.CancelledError:
            told = Ended(number, gone=pending.gone)
        except Exception:
            told = Broken(number, traceback.format_exc())
        self._gate.leave(pending)
        self._channel.tell(told)

    async def _end_tasks(self) -> None:
        tasks = self._gate.attempts
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _run(link: socket.socket) -> None:
    await Child(link).run()


def _end_with_parent() -> None:
    """Has the system end this process with its parent, also where it is stopped and cannot see the socket's end."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # a libc without it
            # What counts is the thread that started this process, the run's own.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Runs the child; its standard input is the socket."""
    # A terminal sends its signals to the whole group, a service manager to all it knows: the parent decides.
    ignored = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)  # they were blocked so that none came before this
    _end_with_parent()
    link = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    with contextlib.suppress(KeyboardInterrupt):
        run_on_fast_loop(_run(link))
    sys.stderr.flush()
    os._exit(0)  # nothing is left that another 20 ms would tidy up


if __name__ == "__main__":
    main()
