"""The end of a web server of ours."""

import asyncio
import contextlib

from aiohttp import web

__all__ = ["end_runner"]


async def end_runner(runner: web.AppRunner) -> None:
    """Ends a server at once: who is still connected is cut off, as nobody waits for an answer that stalls."""
    if runner.server is not None:
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
    with contextlib.suppress(asyncio.TimeoutError):
        await runner.cleanup()
