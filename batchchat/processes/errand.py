"""One attempt that a child makes for a task of the parent's, from the task's side."""

import asyncio
from collections.abc import Callable
from typing import Any

from batchchat.admission import Abandoned, Admission
from batchchat.errors import NetworkError, ProviderError
from batchchat.processes.messages import ABANDONED, GO, NOT_NOW, Cancel, Reply
from batchchat.records import Completion

__all__ = ["Errand"]

# How long a child may take to say what became of an attempt that was to end, at most.
_LAST_WORD_S = 5.0


class Errand:
    """What the task waits for, and what the run's gate knows of it.

    Args:
        tell: Sends a message to the child.

    Attributes:
        begun: Whether the gate takes a request of the task to be on its way.
        withdrawn: Whether the child could not send now if it were let out.
        result: The answer or what is to be raised; None until then.
        place: The endpoint where it failed, where there are several.
        task: Whose attempt it is.
    """

    __slots__ = (
        "_admission", "_given_up", "_loop", "_tell", "_wake", "_wants", "begun", "number", "place",
        "result", "task", "withdrawn",
    )  # fmt: skip

    def __init__(self, number: int, task: asyncio.Task[Any], admission: Admission, tell: Callable[[Any], None]) -> None:
        self.number, self.task, self._admission, self._tell = number, task, admission, tell
        self._loop = task.get_loop()  # asking for the running one costs a system call
        self.begun = self.withdrawn = self._wants = self._given_up = False
        self.place: int | None = None
        self.result: Completion | BaseException | None = None
        self._wake: asyncio.Future[None] | None = None

    async def outcome(self) -> Completion:
        """The answer; meanwhile the task waits at the gate when the child asks for it.

        Where the task is to end, the child is told and has the last word: an answer that came whole is kept.

        Raises:
            ProviderError: The attempt failed.
            Abandoned: The run stopped before it was sent.
        """
        while self.result is None:
            try:
                if self._wants:
                    await self._admit()
                else:
                    self._wake = self._loop.create_future()
                    await self._wake
            except asyncio.CancelledError:
                self._give_up()
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def ended(self, *, abandoned: bool, gone: bool = False) -> None:
        """The child has ended the attempt without a result."""
        if gone:
            self.sent()
        if abandoned:
            self.settle(Abandoned())
        else:
            self.lost(NetworkError("the worker process gave this request up"))

    def lost(self, error: ProviderError) -> None:
        """Nothing more will come of it; the error counts for nothing where the task was to end anyway."""
        self.settle(asyncio.CancelledError() if self._given_up else error)

    def settle(self, result: Completion | BaseException, *, gone: bool = False) -> None:
        """The attempt is over; the first result counts.

        Args:
            gone: Whether a request of it went to the wire without ``sent``.
        """
        if gone:
            self.sent()
        if self.result is None:
            self.result = result
            self._rouse()

    def begin(self) -> None:
        """A request of the task is on its way to the wire, or as good as."""
        self.begun = True
        self._admission.begin(self.task)

    def ask_admission(self) -> None:
        """The child asks whether a request may go out."""
        self.unused()
        self._wants, self.withdrawn = True, False
        self._rouse()

    def unused(self) -> None:
        """What was let out is not sent."""
        if self.begun:
            self.begun = False
            self._admission.take_back(self.task)

    def withdraw(self) -> None:
        """The child could not send now if the request were let out."""
        self.withdrawn = True

    def sent(self) -> None:
        """The request has gone to the wire."""
        self._admission.went(self.task)

    async def may_send(self) -> None:
        """Tells the child when the request, which is ready for the wire, may go there, or that it may not."""
        try:
            if (waiting := self._admission.sent(self.task, elsewhere=True)) is not None:
                await waiting
        except Abandoned:
            word = ABANDONED
        else:
            word = GO if self.result is None else ABANDONED
        self._tell(Reply(self.number, word))

    def written(self) -> None:
        """The request has been written, by now at the latest."""
        self._admission.written(self.task)

    def left(self) -> None:
        """The request is over."""
        if self.begun:
            self.begun = False
            self._admission.left(self.task)

    async def _admit(self) -> None:
        try:
            await self._admission.admit(lambda: not self.withdrawn and self.result is None)
        except Abandoned:
            self._answer(ABANDONED)
            return
        if self.withdrawn or self.result is not None:
            self._answer(NOT_NOW)
            return
        self._answer(GO)
        self.begin()

    def _answer(self, word: int) -> None:
        self._wants = False
        self._tell(Reply(self.number, word))

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _give_up(self) -> None:
        self._wants = False
        if not self._given_up and self.result is None:
            self._given_up = True
            self._tell(Cancel(self.number))
            self._loop.call_later(_LAST_WORD_S, self.settle, asyncio.CancelledError())
