"""One nonce for all processes of a run: the parent keeps it and says which of them gets the next one.

It is kept in memory only; where nonces are kept on disk as well, the process that fetches one does that.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Container
from typing import Any

from batchchat.processes.messages import NonceFailed, NonceGiven, NonceKept, NonceWanted

__all__ = ["NonceDesk", "NonceProxy", "own_nonce"]


class NonceProxy:
    """The child's side; see ``SharedNonce``.

    Args:
        tell: Sends a message to the parent.
    """

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self._tell = tell
        self._waiting: asyncio.Future[NonceGiven] | None = None

    async def take(self, refused: Container[str], max_age_s: float) -> tuple[str, float] | None:
        """See ``SharedNonce.take``."""
        told = None
        while True:
            self._waiting = asyncio.get_running_loop().create_future()
            self._tell(NonceWanted(told))
            try:
                given = await self._waiting
            except BaseException:
                self._tell(NonceFailed())
                raise
            finally:
                self._waiting = None
            if given.value is None:
                return None
            if given.value not in refused and given.age_s < max_age_s:
                return given.value, given.age_s
            told = given.value

    def keep(self, value: str, age_s: float) -> None:
        """See ``SharedNonce.keep``."""
        self._tell(NonceKept(value, age_s))

    def fail(self) -> None:
        """See ``SharedNonce.fail``."""
        self._tell(NonceFailed())

    def given(self, message: NonceGiven) -> None:
        """The parent's answer."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(message)


def own_nonce(desk: "NonceDesk") -> NonceProxy:
    """What the run's own process, which asks too, has in the place of a child's side."""

    def tell(message: Any) -> None:
        match message:
            case NonceWanted():
                desk.wanted(proxy.given, message.refused)
            case NonceKept():
                desk.kept(proxy.given, message.value, message.age_s)
            case NonceFailed():
                desk.failed(proxy.given)

    proxy = NonceProxy(tell)
    return proxy


class NonceDesk:
    """The parent's side: the newest nonce, and whose turn it is to get one.

    Who asks is told by a function of its own, by which it is known.
    """

    def __init__(self) -> None:
        self._value: str | None = None
        self._born = 0.0
        self._getting: Callable[[Any], None] | None = None
        self._waiting: deque[Callable[[Any], None]] = deque()

    def wanted(self, tell: Callable[[Any], None], refused: str | None) -> None:
        """A child needs a nonce; ``refused`` is one that it was given and that is worth nothing."""
        if refused is not None and refused == self._value:
            self._value = None
        self._waiting.append(tell)
        self._serve()

    def kept(self, tell: Callable[[Any], None], value: str, age_s: float) -> None:
        """A child has a new one."""
        self._value, self._born = value, time.monotonic() - age_s
        if self._getting == tell:
            self._getting = None
        self._serve()

    def failed(self, tell: Callable[[Any], None]) -> None:
        """A child got none, or does not need one any more, or is gone."""
        if self._getting == tell:
            self._getting = None
        elif tell in self._waiting:
            self._waiting.remove(tell)
        self._serve()

    def _serve(self) -> None:
        while self._waiting and (self._value is not None or self._getting is None):
            tell = self._waiting.popleft()
            if self._value is None:
                self._getting = tell
                tell(NonceGiven(None))
            else:
                tell(NonceGiven(self._value, time.monotonic() - self._born))
