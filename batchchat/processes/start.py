"""Starting a child, and what is to be said of its end."""

import os
import signal
import socket
import subprocess
import sys
import threading

from batchchat.child_environment import module_path

__all__ = ["how_ended", "start_child"]

_WAIT_S = 2.0


def start_child(link: socket.socket) -> "subprocess.Popen[bytes]":
    """Starts a child with the socket as its standard input; it takes a millisecond or two.

    The system ends the child with the thread that started it, so that is to be the run's own. The child finds its
    modules where this process does, whatever the working folder holds, and is born deaf to the signals that a terminal
    sends to all: until it ignores them, they are blocked.

    Raises:
        OSError: It cannot be started.
    """
    if not sys.executable:
        raise OSError("this Python does not know its own program")
    environ = {**os.environ, "PYTHONPATH": module_path()}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "batchchat.processes.child"],
            stdin=link.fileno(),
            stdout=subprocess.DEVNULL,
            env=environ,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_ended(process: "subprocess.Popen[bytes]") -> str:
    """Waits for the end of a process that has closed its socket, makes it end where it does not; what it was."""
    killer = threading.Timer(_WAIT_S, process.kill)
    killer.daemon = True
    killer.start()
    try:
        code = process.wait()
    finally:
        killer.cancel()
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"
