"""The page from its start to Ctrl-C: prints its address, opens the browser, waits."""

import asyncio
import contextlib
import signal
import webbrowser
from collections.abc import Iterator, Sequence

from batchchat.view.book import Book
from batchchat.view.server import ViewServer

__all__ = ["serve_books"]


def serve_books(books: Sequence[Book], host: str, port: int, *, opens: bool) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        opens: Whether to open the page in the browser.

    Raises:
        ConfigError: As ``ViewServer``.
    """
    asyncio.run(_serve(books, host, port, opens))


async def _serve(books: Sequence[Book], host: str, port: int, opens: bool) -> None:
    stop = asyncio.Event()
    with _until_signal(stop):
        async with ViewServer(books, host, port) as server:
            print(server.address, flush=True)  # noqa: T201 - what the command is asked for
            if opens:
                await asyncio.to_thread(_open_browser, server.address)
            await stop.wait()


def _open_browser(address: str) -> None:
    with contextlib.suppress(Exception):  # whatever a browser's start raises, the address stands above
        webbrowser.open(address)


@contextlib.contextmanager
def _until_signal(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        with contextlib.suppress(NotImplementedError):  # on Windows, Ctrl-C ends the loop itself
            loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
