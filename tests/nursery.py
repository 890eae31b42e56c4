"""Servers without their start: a process that has read their modules forks one whenever a test wants one.

A server costs 0.3 s of CPU before it listens, and tests want hundreds. What is forked is a process of its own all the
same, with the surroundings of who asked for it. Where there is no fork, or no descriptor of a process, it is started
as any other.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from typing import IO, Any

from tests.priority import put_first

__all__ = ["ServerProcess", "start_server"]

_FORKS = sys.platform == "linux" and hasattr(os, "pidfd_open")
_MOST_BYTES = 1 << 20


class ServerProcess:
    """A server that was forked, with what is used of ``subprocess.Popen``."""

    def __init__(self, pid: int, stdout: IO[str]) -> None:
        self.pid, self.stdout = pid, stdout
        self._fd = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it is there to get one."""
        if self._fd >= 0:
            try:
                signal.pidfd_send_signal(self._fd, number)
            except ProcessLookupError:
                return

    def terminate(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> None:
        """Returns when it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        if self._fd < 0:
            return
        ready, _, _ = select.select([self._fd], [], [], timeout)
        if not ready:
            raise subprocess.TimeoutExpired("batchchat serve", timeout or 0)
        os.close(self._fd)
        self._fd = -1


def start_server(arguments: list[str]) -> "ServerProcess | subprocess.Popen[str]":
    """``batchchat`` with these arguments, ahead of other processes; its standard output is a pipe."""
    process = _forked(arguments) if _FORKS else _started(arguments)
    put_first(process.pid)
    return process


def _started(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "batchchat", *arguments], stdout=subprocess.PIPE, text=True)


def _forked(arguments: list[str]) -> ServerProcess:
    nursery = _Nursery.of_this_process()
    reading, writing = os.pipe()
    try:
        pid = nursery.fork({"arguments": arguments, "folder": os.getcwd(), "environ": dict(os.environ)}, writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return ServerProcess(pid, open(reading, encoding="utf-8"))


class _Nursery:
    """The process that forks; one for each process of tests."""

    _ours: "_Nursery | None" = None

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-m", "tests.nursery"], stdin=theirs.fileno())
        atexit.register(self.close)

    @classmethod
    def of_this_process(cls) -> "_Nursery":
        if cls._ours is None:
            cls._ours = cls()
        return cls._ours

    def fork(self, wish: dict[str, Any], stdout: int) -> int:
        data = json.dumps(wish).encode()
        socket.send_fds(self._socket, [len(data).to_bytes(4, "big")], [stdout])
        self._socket.sendall(data)
        return int.from_bytes(self._socket.recv(4, socket.MSG_WAITALL), "big")

    def close(self) -> None:
        self._socket.close()
        self._process.wait(10)


def main() -> None:
    """Forks for whoever has the other end of standard input, until that is closed."""
    import aiohttp.web
    import uvloop

    import batchchat.cli.serve
    import batchchat.devserver
    from batchchat.garbage import put_off_collecting

    put_off_collecting()
    del aiohttp, uvloop, batchchat
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what has ended leaves nothing behind
    link = socket.socket(fileno=0)
    while True:
        head, stdouts, _, _ = socket.recv_fds(link, 4, 1)
        if not head:
            os._exit(0)
        data = link.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        pid = os.fork()
        if not pid:
            _serve(json.loads(data), stdouts[0])
        os.close(stdouts[0])
        link.sendall(pid.to_bytes(4, "big"))


def _serve(wish: dict[str, Any], stdout: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(stdout, 1)
    os.close(stdout)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(wish["environ"])
    os.chdir(wish["folder"])
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for life; the one before knows another file
    sys.argv = ["batchchat", *wish["arguments"]]
    code = 1
    try:
        from batchchat.__main__ import main as run_command_line

        run_command_line()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
