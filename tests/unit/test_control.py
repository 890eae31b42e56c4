"""A run's socket: whose it is, where it is, and that nobody who talks to it can hold the run up."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchchat.control.client import ask
from batchchat.control.messages import Reply, Request
from batchchat.control.place import folders, is_own_folder, own_folder, socket_name
from batchchat.control.server import ControlServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")
STATUS = Request(command="status")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runtime folder of this test's own, with a path short enough for a socket."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder) / "batchchat"


def served(results: str, **options) -> tuple[ControlServer, list[Request], list[str]]:
    asked: list[Request] = []
    troubles: list[str] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return Reply(done=True, message="as asked")

    return ControlServer(results, answer, troubles.append, **options), asked, troubles


async def test_request_is_answered_by_the_run_of_that_file_only(runtime: Path, tmp_path: Path) -> None:
    results = str(tmp_path / "r.jsonl")
    server, asked, troubles = served(results)
    async with server:
        reply = await asyncio.to_thread(ask, results, Request(command="set-rate", rates=("5/s", "60/min")))
        assert await asyncio.to_thread(ask, str(tmp_path / "other.jsonl"), STATUS) is None
    assert reply == Reply(done=True, message="as asked")
    assert asked == [Request(command="set-rate", rates=("5/s", "60/min"))]
    assert troubles == []
    assert list(runtime.iterdir()) == []
    assert ask(results, STATUS) is None


async def test_any_way_to_the_file_leads_to_its_run(runtime: Path, tmp_path: Path, monkeypatch) -> None:
    results = tmp_path / "out" / "r.jsonl"
    results.parent.mkdir()
    results.touch()
    (tmp_path / "link.jsonl").symlink_to(results)
    (tmp_path / "folder").symlink_to(results.parent)
    monkeypatch.chdir(tmp_path)
    server, _, _ = served("out/r.jsonl")
    async with server:
        for way in (str(results), "./out/../link.jsonl", "folder/r.jsonl"):
            assert await asyncio.to_thread(ask, way, STATUS) is not None


async def test_socket_and_its_folder_are_the_users_alone(runtime: Path, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        server, _, _ = served(str(tmp_path / "r.jsonl"))
        async with server:
            (path,) = runtime.iterdir()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    finally:
        os.umask(previous)


async def test_socket_of_a_killed_run_is_replaced(runtime: Path, tmp_path: Path) -> None:
    results = str(tmp_path / "r.jsonl")
    runtime.mkdir(mode=0o700)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(runtime / socket_name(results)))
    stale.close()
    assert ask(results, STATUS) is None
    server, _, troubles = served(results)
    async with server:
        assert await asyncio.to_thread(ask, results, STATUS) is not None
    assert troubles == []


async def test_listening_run_keeps_its_socket(runtime: Path, tmp_path: Path) -> None:
    results = str(tmp_path / "r.jsonl")
    first, asked, _ = served(results, where=[str(runtime)])
    second, _, troubles = served(results, where=[str(runtime)])
    async with first:
        async with second:
            assert await asyncio.to_thread(ask, results, STATUS) is not None
        assert await asyncio.to_thread(ask, results, STATUS) is not None
    assert len(asked) == 2
    assert "another run listens there" in troubles[0]


@pytest.mark.parametrize("fault", ["file", "link", "open", "long", "missing"])
async def test_folder_that_is_not_ours_is_passed_over(runtime: Path, tmp_path: Path, fault: str) -> None:
    results, bad = str(tmp_path / "r.jsonl"), runtime.parent / "bad"
    if fault == "file":
        bad.touch()
    elif fault == "link":
        runtime.mkdir(mode=0o700)
        bad.symlink_to(runtime)
    elif fault == "open":
        bad.mkdir()
        bad.chmod(0o755)
    elif fault == "long":
        bad = runtime.parent / ("x" * 80)
    else:
        bad = runtime.parent / "no" / "such"
    assert own_folder(str(bad), socket_name(results)) is not None
    server, _, troubles = served(results, where=[str(bad)])
    async with server:
        assert len(troubles) == 1
        assert str(bad) in troubles[0]
    server, _, troubles = served(results, where=[str(bad), str(runtime)])
    async with server:
        assert await asyncio.to_thread(ask, results, STATUS) is not None
    assert troubles == []


def test_folder_of_another_user_is_refused() -> None:
    assert not is_own_folder("/proc/1/root" if os.geteuid() else "/var/cache/man")
    assert not is_own_folder("/nowhere")


@pytest.mark.parametrize("value", [None, "", "relative/path", "/no/such/folder"])
def test_without_a_runtime_folder_there_is_another_place(monkeypatch, value: str | None) -> None:
    """As from cron and in a container."""
    if value is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.delenv("HOME", raising=False)
    places = list(folders())
    assert places[-1] == f"/tmp/batchchat-{os.geteuid()}"
    assert all(os.path.isabs(place) for place in places)
    assert not any(value and place.startswith(value) for place in places)


HOSTILE = [
    b"", b"\n", b"\n\n\n", b"{", b"{}\n", b"null\n", b"[1]\n", b"\x00" * 100 + b"\n", b"\xff\xfe\n", b'"' + b"a" * 10_000,
    b"a" * 1_000_000, b'{"x":' + b"[" * 4000 + b"\n", b'{"command":"stop"}\n', b'{"command":["pause"]}\n',
    b'{"command":"set-rate","rates":"5/s"}\n', b'{"command":"set-rate","rates":[5]}\n', b'{"command":"status"}',
    b'{"command":"status"}\n' * 1000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip


def talk(path: str, data: bytes, *, linger_s: float = 0.0) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            if not linger_s:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received
    return b""


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:24]))
async def test_garbage_gets_a_sentence_or_nothing_and_the_next_one_is_served(
    runtime: Path, tmp_path: Path, data
) -> None:
    results = str(tmp_path / "r.jsonl")
    server, asked, _ = served(results)
    async with server:
        (path,) = map(str, runtime.iterdir())
        received = await asyncio.to_thread(talk, path, data)
        assert received.count(b"\n") <= 1
        if not data.startswith(b'{"command":"status"}\n'):
            assert asked == []
            assert b'"done":true' not in received
        assert await asyncio.to_thread(ask, results, STATUS) is not None


async def test_clients_that_stall_hold_nobody_up_for_long(runtime: Path, tmp_path: Path) -> None:
    results = str(tmp_path / "r.jsonl")
    server, _, _ = served(results, request_s=0.3)
    async with server:
        (path,) = map(str, runtime.iterdir())
        stalled = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for connection in stalled:
            connection.connect(path)
            connection.send(b'{"comm')
        async with asyncio.timeout(20):
            while await asyncio.to_thread(ask, results, STATUS) is None:
                await asyncio.sleep(0.05)
        for connection in stalled:
            connection.close()


async def test_client_that_stalls_does_not_hold_up_the_end(runtime: Path, tmp_path: Path) -> None:
    server, _, _ = served(str(tmp_path / "r.jsonl"), request_s=1000)
    connection = socket.socket(socket.AF_UNIX)
    async with asyncio.timeout(10):
        async with server:
            (path,) = map(str, runtime.iterdir())
            connection.connect(path)
            await asyncio.sleep(0.05)
    connection.close()
    assert list(runtime.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_not_served(runtime: Path, tmp_path: Path) -> None:
    server, asked, _ = served(str(tmp_path / "r.jsonl"))
    async with server:
        (path,) = runtime.iterdir()
        for opened in (runtime.parent, runtime, path):  # as if the folder did not keep them out
            opened.chmod(0o777)
        code = (
            "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "try:\n s.sendall(b'{\"command\":\"pause\"}\\n'); print(s.recv(1000))\nexcept OSError: print(b'')"
        )
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(path), stdout=subprocess.PIPE
        )  # fmt: skip
        out, _ = await child.communicate()
    assert (child.returncode, out) == (0, b"b''\n")
    assert asked == []


@pytest.mark.parametrize("behaviour", ["silent", "garbage", "endless", "drips", "closes"])
def test_run_that_does_not_answer_well_is_given_up_in_time(runtime: Path, tmp_path: Path, behaviour: str) -> None:
    results = str(tmp_path / "r.jsonl")
    runtime.mkdir(mode=0o700)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(runtime / socket_name(results)))
    listening.listen()
    over = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            if behaviour == "garbage":
                connection.sendall(b"[garbage]\n")
            while behaviour in ("endless", "drips") and not over.wait(0.01 if behaviour == "drips" else 0):
                connection.sendall(b"x" * (1 if behaviour == "drips" else 65536))
            if behaviour == "silent":
                over.wait(20)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ask(results, STATUS, wait_s=0.5) is None
    finally:
        over.set()
        thread.join(20)
        listening.close()
    assert not thread.is_alive()
