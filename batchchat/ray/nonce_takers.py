"""The workers of a run at the one nonce of all."""

import asyncio
from typing import Any

from batchchat.processes.messages import NonceGiven
from batchchat.processes.shared_nonce import NonceDesk

__all__ = ["NonceTakers"]


class NonceTakers:
    """See ``NonceDesk``; each life of a worker is known by its name."""

    def __init__(self) -> None:
        self._nonces = NonceDesk()
        self._takers: dict[str, _Taker] = {}

    async def take(self, life: str, refused: str | None) -> tuple[str, float] | None:
        """The nonce that all use, with its age in seconds; None where the worker is to get one."""
        given = await self._taker(life).take(self._nonces, refused)
        return None if given.value is None else (given.value, given.age_s)

    def keep(self, life: str, value: str, age_s: float) -> None:
        """A worker has a new nonce for all."""
        self._nonces.kept(self._taker(life).tell, value, age_s)

    def fail(self, life: str) -> None:
        """A worker got none."""
        self._nonces.failed(self._taker(life).tell)

    def lost(self, life: str) -> None:
        """A worker is gone; another one is to get what it was to get."""
        if (taker := self._takers.pop(life, None)) is not None:
            self._nonces.failed(taker.tell)

    def _taker(self, life: str) -> "_Taker":
        return self._takers.setdefault(life, _Taker())


class _Taker:
    def __init__(self) -> None:
        self._waiting: asyncio.Future[NonceGiven] | None = None

    async def take(self, desk: NonceDesk, refused: str | None) -> NonceGiven:
        """Waits for the worker's turn."""
        self._waiting = asyncio.get_running_loop().create_future()
        desk.wanted(self.tell, refused)
        return await self._waiting

    def tell(self, message: Any) -> None:
        """What the nonces' desk says."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(message)
