"""Commands on a terminal of a given width, and what stood on its screen from moment to moment."""

import fcntl
import os
import pty
import selectors
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyte

__all__ = ["Terminal", "run_on_terminals"]

_ROWS = 40


class Terminal:
    """A child process whose standard streams are a terminal of its own.

    Attributes:
        screens: What stood there after each piece of output, lines without the space behind them.
        code: Exit code, once it has ended.
    """

    def __init__(self, command: Sequence[str], columns: int, **environ: str) -> None:
        self.columns = columns
        self._screen = pyte.Screen(columns, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.screens: list[list[str]] = []
        self.code: int | None = None
        self.fd, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
        dropped = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            env=inherited | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environ,
        )
        os.close(child)

    def read(self) -> bool:
        """Takes in what is there; False where nothing more comes."""
        try:
            data = os.read(self.fd, 2048)
        except OSError:  # Linux tells the end of a terminal in this way
            data = b""
        if data:
            self._stream.feed(data)
            screen = self.lines
            if not self.screens or self.screens[-1] != screen:
                self.screens.append(screen)
            return True
        os.close(self.fd)
        self.code = self.process.wait(20)
        return False

    @property
    def lines(self) -> list[str]:
        """What stands there now."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def interrupt(self) -> None:
        """Ctrl-C, as the terminal makes it one."""
        os.killpg(self.process.pid, signal.SIGINT)


def run_on_terminals(
    terminals: Sequence[Terminal], at: Callable[[Terminal], Any] = lambda terminal: None, *, limit_s: float = 50.0
) -> None:
    """Reads all of them until their processes have ended; ``at`` is called after each change of a screen."""
    with selectors.DefaultSelector() as waiting:
        for terminal in terminals:
            waiting.register(terminal.fd, selectors.EVENT_READ, terminal)
        give_up = time.monotonic() + limit_s
        while waiting.get_map():
            assert time.monotonic() < give_up, [terminal.lines for terminal in terminals]
            for key, _ in waiting.select(1.0):
                if key.data.read():
                    at(key.data)
                else:
                    waiting.unregister(key.fd)
