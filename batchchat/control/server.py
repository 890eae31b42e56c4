"""The running job's end of its socket: one short request a connection, and nobody there can hold the run up."""

import asyncio
import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from batchchat.control.messages import MOST_REQUEST_BYTES, Reply, Request
from batchchat.control.place import available, folders, own_folder, socket_name

__all__ = ["ControlServer"]

_REQUEST_S, _REPLY_S = 2.0, 2.0
_MOST_CLIENTS = 8
_PEER = struct.Struct("3i")  # struct ucred of Linux: process, user, group


class ControlServer:
    """Listens for requests about the run of one results file, while entered.

    Args:
        results: Path of the results file, which exists and is locked by this run.
        answer: Does what is asked, on the event loop, and returns at once.
        trouble: Told in a sentence why nobody can ask anything; the run goes on all the same.
        where: Folders to try, the best one first; those of the user by default.
        request_s: Seconds within which a request must have come.
    """

    def __init__(
        self,
        results: str,
        answer: Callable[[Request], Reply],
        trouble: Callable[[str], None],
        *,
        where: Sequence[str] | None = None,
        request_s: float = _REQUEST_S,
    ) -> None:
        self._results, self._answer, self._trouble = results, answer, trouble
        self._where, self._request_s = where, request_s
        self._clients: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._path: str | None = None
        self._inode: os.stat_result | None = None

    async def __aenter__(self) -> "ControlServer":
        if not available():
            self._trouble("live control is not available on this system: the run can be neither asked nor paused")
            return self
        bound = await asyncio.to_thread(self._bind)
        if isinstance(bound, str):
            self._trouble(f"live control is not available: {bound}")
            return self
        self._server = await asyncio.start_unix_server(self._serve, sock=bound, limit=MOST_REQUEST_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        try:
            await asyncio.gather(*self._clients, return_exceptions=True)
        finally:
            self._unlink()

    def _bind(self) -> socket.socket | str:
        """A listening socket in the best folder; why there is none."""
        name = socket_name(self._results)
        troubles = []
        for folder in folders() if self._where is None else self._where:
            trouble = own_folder(folder, name)
            if trouble is None:
                bound = self._bind_at(os.path.join(folder, name))
                if not isinstance(bound, str):
                    return bound
                trouble = bound
            troubles.append(trouble)
        return "; ".join(troubles)

    def _bind_at(self, path: str) -> socket.socket | str:
        if _is_answered(path):
            return f"{path}: another run listens there"
        fresh = f"{path[: -len('.sock')]}.{os.getpid() % 100_000}"  # not longer than the path that has been measured
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            listening.bind(fresh)
            os.chmod(fresh, 0o600)
            listening.listen(_MOST_CLIENTS)
            listening.setblocking(False)
            self._inode, self._path = os.stat(fresh), path
            os.replace(fresh, path)  # what a killed run left behind goes at the same moment
        except OSError as error:
            listening.close()
            return f"{path}: {error.strerror or error}"
        return listening

    def _unlink(self) -> None:
        """Takes the socket away, unless another run's is there by now."""
        with contextlib.suppress(OSError):
            path, inode = self._path, self._inode
            if path is not None and inode is not None and os.path.samestat(os.lstat(path), inode):
                os.unlink(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, bounded in bytes, in time and in number."""
        task = asyncio.current_task()
        if task is None or len(self._clients) >= _MOST_CLIENTS or not _is_same_user(writer):
            writer.transport.abort()
            return
        self._clients.add(task)
        try:
            async with asyncio.timeout(self._request_s):
                line = await reader.readuntil(b"\n")
            if _is_gone(writer):
                return
            writer.write(msgspec.json.encode(self._reply(line)) + b"\n")
            async with asyncio.timeout(_REPLY_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # the run is over; nobody but this server ends this task
        finally:
            writer.transport.abort()
            self._clients.discard(task)

    def _reply(self, line: bytes) -> Reply:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Reply(done=False, message=f"the request cannot be read: {error}")
        return self._answer(request)


def _is_answered(path: str) -> bool:
    """Whether somebody listens there: a socket that a killed run left refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(path)
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


def _is_gone(writer: asyncio.StreamWriter) -> bool:
    """Whether nobody waits for the answer any more, who has been told that nothing came of it.

    The request of such a client may come late, as to a run that the system had stopped.
    """
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLHUP)
    return bool(poll.poll(0))


def _is_same_user(writer: asyncio.StreamWriter) -> bool:
    """Whether this user asks, or root, where the system tells; the folder keeps others out everywhere."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    try:
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, option, _PEER.size)
    except OSError:
        return False
    return _PEER.unpack(peer)[1] in (os.geteuid(), 0)
