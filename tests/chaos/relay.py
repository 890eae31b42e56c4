"""A line between the runs and a server that cuts connections at their start, delays bytes and makes them few."""

import asyncio
import contextlib

from tests.chaos.raw_server import Ask, RawServer
from tests.chaos.world import World

__all__ = ["Relay"]

_UNCUT = 12  # connections at the start of a run


class Relay(RawServer):
    """Passes bytes on, and makes itself the service of the world.

    Args:
        to: The port of the server.
        cut: The share of connections, after the first dozen, that is cut in a TLS handshake.
        slow: Whether bytes come late and in small pieces, now and then after a long pause, as on a lossy network.
    """

    def __init__(self, world: World, to: int, *, cut: float = 0.0, slow: bool = False) -> None:
        super().__init__(world, _nothing)
        self._to, self._cut, self._slow = to, cut, slow

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        rng = self.world.rng
        try:
            if self.connections > _UNCUT and rng.random() < self._cut:
                await reader.read(100)
                writer.write(rng.choice([b"", b"\x16\x03\x03", b"HTTP/1.1 400 Bad Request\r\n\r\n"]))
                rng.choice([writer.close, writer.transport.abort])()
                return
            near, far = await asyncio.open_connection("127.0.0.1", self._to)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far))
                group.create_task(self._pump(near, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        rng = self.world.rng
        with contextlib.suppress(OSError):
            while data := await source.read(rng.randint(1, 300) if self._slow else 65536):
                if self._slow:
                    await asyncio.sleep(rng.uniform(0.2, 0.6) if rng.random() < 0.03 else rng.uniform(0.0, 0.03))
                sink.write(data)
                await sink.drain()
        sink.close()


async def _nothing(ask: Ask) -> None:
    raise AssertionError("a relay answers nothing itself")
