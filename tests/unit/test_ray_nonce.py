"""The nonce of all workers of a cluster, as one of them takes it."""

import asyncio

from batchchat.ray.desk import Desk
from batchchat.ray.desk_line import DeskNonce
from batchchat.ray.words import DeskOpening


class FarDesk:
    """The desk as an actor is: a call goes on there where its caller is cancelled."""

    def __init__(self, memory: str) -> None:
        self._desk = Desk(
            DeskOpening(rates=(), burst=1, tokens_per_minute=None, budget_usd=None, rules={}, memory=memory)
        )
        self.calls: list[asyncio.Future] = []

    def __getattr__(self, name: str):
        async def call(*arguments):
            self.calls.append(asyncio.ensure_future(getattr(self._desk, name)(*arguments)))
            return await asyncio.shield(self.calls[-1])

        return call

    async def end(self) -> None:
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)


async def rest() -> None:
    """Lets everything go as far as it gets."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_is_cancelled_gives_its_turn_back(tmp_path) -> None:
    """The next one gets the nonce, whether the one that ended was to get it or waited for it."""
    desk = FarDesk(str(tmp_path / "desk"))
    first, second, third = (DeskNonce(desk, lambda life=life: life) for life in "abc")
    assert await first.take((), 100) is None
    waiting, last = (asyncio.create_task(each.take((), 100)) for each in (second, third))
    await rest()
    waiting.cancel()
    await rest()
    first.fail()
    async with asyncio.timeout(10):
        assert await last is None
    await desk.end()


async def test_a_turn_that_comes_to_nobody_is_given_back(tmp_path) -> None:
    """The word that it is a worker's turn is on its way, and that worker does not wait for it any more."""
    desk = FarDesk(str(tmp_path / "desk"))
    first, second = (DeskNonce(desk, lambda life=life: life) for life in "ab")
    taking = asyncio.create_task(first.take((), 100))
    await asyncio.sleep(0)
    assert desk.calls
    taking.cancel()
    await rest()
    async with asyncio.timeout(10):
        assert await second.take((), 100) is None
    await desk.end()
