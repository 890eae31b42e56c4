"""llama.cpp's server in a process of its own, from its start to its end."""

import asyncio
import importlib.util
import json
import os
import re
import secrets
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from batchchat.child_environment import keyless_environment
from batchchat.errors import ConfigError
from batchchat.local.model import ModelFile

__all__ = ["LocalServer", "ServerSettings", "check_runtime"]

_CHILD = str(Path(__file__).with_name("child.py"))
_START_S = 300.0
_END_S = 5.0
_MOST_LOG_LINES = 40
# "0.00.003.746 E gguf_init_from_reader: failed to read header"
_TROUBLE = re.compile(r"^[\d.]+ E (?:[\w ]+: +)?(.+)")


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the server runs its model.

    Attributes:
        model: The model's file.
        slots: Answers that are made at the same time.
        context: Tokens that one prompt and its answer may take together.
        threads: Threads that compute; None for one for each processor that this process may use.
    """

    model: ModelFile
    slots: int
    context: int
    threads: int | None = None


def check_runtime() -> None:
    """Finds out before a run whether a model can be run at all.

    Raises:
        ConfigError: The extra ``local`` is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError("running a model on this machine needs the extra 'local'; pip install 'batchchat[local]'")


class LocalServer:
    """One process with one model; entered once, it listens on loopback until it is left.

    Args:
        settings: What to run and how.
        tell: Gets the server's log, line by line.

    Raises:
        ConfigError: (on entering) The server does not start with this model.
    """

    def __init__(self, settings: ServerSettings, tell: Callable[[str], None]) -> None:
        self._settings, self._tell = settings, tell
        self._log: deque[str] = deque(maxlen=_MOST_LOG_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.base_url = ""
        self.key = secrets.token_urlsafe(24)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.returncode is None

    async def __aenter__(self) -> Self:
        check_runtime()
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            _CHILD,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=keyless_environment() | {"OMP_WAIT_POLICY": "PASSIVE"},
            start_new_session=True,  # a terminal's Ctrl-C is for the run, whose answers may still come to their end
        )
        self._reader = asyncio.create_task(self._read_log(process))
        try:
            async with asyncio.timeout(_START_S):
                self.base_url = await self._handshake(process)
        except TimeoutError:
            await self._end()
            raise ConfigError(f"{self._subject()} was not ready within {_START_S:g} s; take a smaller model") from None
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    def why_ended(self) -> str:
        """What is known of the end of a process that ended by itself, as a part of a sentence."""
        code = None if self._process is None else self._process.returncode
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = str(-code)
            hint = ", as it does where memory runs out" if name == "SIGKILL" else ""
            how = f"the system ended it with {name}{hint}"
        else:
            how = f"it ended with exit code {code}"
        trouble = _first_trouble(self._log)
        return f"{how}; its log says: {trouble}" if trouble else how

    async def _handshake(self, process: asyncio.subprocess.Process) -> str:
        """Sends the settings and waits for the address."""
        settings = self._settings
        told: dict[str, Any] = {
            "model": settings.model.path,
            "name": settings.model.name,
            "slots": settings.slots,
            "context": settings.context,
            "threads": settings.threads or _processors(),
            "key": self.key,
        }
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        with suppress(ConnectionError):  # one that is gone already says why below
            process.stdin.write(json.dumps(told).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        answer: dict[str, str] = json.loads(line) if line.endswith(b"\n") else {}
        if "base_url" in answer:
            return answer["base_url"]
        await process.wait()
        await self._log_ended()
        why = _first_trouble(self._log) or answer["error"] if "error" in answer else self.why_ended()
        hint = "; take fewer slots or a smaller context" if "allocate" in why else ""
        raise ConfigError(f"{self._subject()} does not start: {why}{hint}")

    def _subject(self) -> str:
        return f"the server for model {self._settings.model.path}"

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Takes the log in, however long its lines are; a full pipe would stop the server."""
        if process.stderr is None:
            return
        rest = b""
        while chunk := await process.stderr.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in [*lines, rest] if len(rest) > (1 << 16) else lines:
                self._note(line)
            rest = b"" if len(rest) > (1 << 16) else rest
        self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()[:500]
        if text:
            self._log.append(text)
            self._tell(text)

    async def _log_ended(self) -> None:
        if self._reader is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reader), _END_S)

    async def _end(self) -> None:
        """Lets the process end, makes it where it does not, and leaves no task behind."""
        process, reader = self._process, self._reader
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _END_S)
            except BaseException as error:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                if not isinstance(error, TimeoutError):
                    raise
        if reader is not None:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader


def _first_trouble(log: Iterable[str]) -> str:
    """The first line of level E, which is nearest to the cause, without its time and function; empty for none."""
    return next((match[1] for line in log if (match := _TROUBLE.search(line))), "")


def _processors() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
