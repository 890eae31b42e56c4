"""Another process's end of a run's socket: asks once, waits a bounded time."""

import os
import socket
import time

import msgspec

from batchchat.control.messages import Live, Reply, Request
from batchchat.control.place import available, folders, is_own_folder, socket_name
from batchchat.errors import ConfigError
from batchchat.results.files import is_stream, name_files
from batchchat.results.lock import is_locked, read_holder

__all__ = ["ask", "ask_live", "ask_or_fail"]

_WAIT_S = 2.0
# A run has its lock a moment before its socket.
_AGAIN_S = 0.3
_MOST_REPLY_BYTES = 1 << 20


def ask(results: str, request: Request, *, wait_s: float = _WAIT_S) -> Reply | None:
    """Asks the run of a results file; None where none answers within ``wait_s`` seconds."""
    if not available():
        return None
    name, give_up = socket_name(results), time.monotonic() + wait_s
    for folder in folders():
        if is_own_folder(folder) and (reply := _ask_at(os.path.join(folder, name), request, give_up)) is not None:
            return reply
    return None


def ask_live(results: str, *, wait_s: float = _WAIT_S) -> Live | None:
    """What the run tells that holds the results file; None where it does not answer within ``wait_s`` seconds."""
    reply = ask(results, Request(command="status"), wait_s=wait_s)
    return None if reply is None else reply.live


def ask_or_fail(results: str, request: Request) -> Reply:
    """Asks the run of a results file to do something.

    Raises:
        ConfigError: No run is going on there, it does not answer, or it says that it cannot.
    """
    if is_stream(results):
        raise ConfigError(f"{results} is no file; expected the results file of a run that is going on")
    if not available():
        raise ConfigError("live control is not available on Windows; end the run with Ctrl-C and start it again")
    reply = ask(results, request)
    if reply is None and is_locked(results):
        time.sleep(_AGAIN_S)
        reply = ask(results, request)
    if reply is None:
        raise ConfigError(_nobody(results))
    if not reply.done:
        raise ConfigError(f"{results}: {reply.message}")
    return reply


def _nobody(results: str) -> str:
    if not os.path.exists(results):
        return f"{results}: there is no such results file; expected that of a run that is going on"
    if not is_locked(results):
        return f"{results}: no run is going on there; start one with 'batchchat run'"
    holder = str(read_holder(name_files(results).summary) or "")
    who = f" ({holder})" if holder else ""
    return f"{results}: the run that holds it{who} does not answer; with -v a run says why it cannot be asked"


def _ask_at(path: str, request: Request, give_up: float) -> Reply | None:
    received = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(max(0.01, give_up - time.monotonic()))
            connection.connect(path)
            connection.sendall(msgspec.json.encode(request) + b"\n")
            while not received.endswith(b"\n") and len(received) < _MOST_REPLY_BYTES:
                if (left_s := give_up - time.monotonic()) <= 0:
                    return None
                connection.settimeout(left_s)
                if not (chunk := connection.recv(65536)):
                    break
                received += chunk
            return msgspec.json.decode(bytes(received), type=Reply)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
