"""A process of its own that checks answers against a schema, so that no answer can hold up the run for long."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any

from batchchat.answer_schema import make_validator, misfit
from batchchat.child_environment import bare_environment

__all__ = ["CheckTooSlowError", "CheckingChild"]

_CPU_S = 5.0
# Where the child cannot bound itself, and for one that is starved of its time.
_WALL_S = 120.0


class CheckTooSlowError(Exception):
    """A check was given up; what it took is no measure of the answer."""


class CheckingChild:
    """Checks one answer at a time; used by any threads. The process starts with the first one.

    Args:
        schema: One that ``make_validator`` took.
        cpu_s: Seconds of computing that one check may take.
    """

    def __init__(self, schema: Any, *, cpu_s: float = _CPU_S) -> None:
        self._opening = json.dumps([schema, cpu_s]).encode() + b"\n"
        self._cpu_s = cpu_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def misfit(self, answer: Any) -> str | None:
        """As ``answer_schema.misfit``, within the time allowed.

        Raises:
            CheckTooSlowError: It takes longer.
            OSError: No process can be started.
        """
        line = json.dumps(answer).encode() + b"\n"
        with self._lock:
            process = self._process or self._start()
            reply = _asked(process, line)
            if not reply.endswith(b"\n"):
                self.close()
                raise CheckTooSlowError(f"checking it takes more than {self._cpu_s:g} s of computing")
        found: str | None = json.loads(reply)
        return found

    def close(self) -> None:
        """Ends the process; another check starts one again."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "batchchat.answer_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=bare_environment(),
            start_new_session=True,  # a terminal's Ctrl-C is the run's affair
        )
        self._process, self._finalizer = process, weakref.finalize(self, _end, process)
        _write(process, self._opening)
        return process


def _asked(process: "subprocess.Popen[bytes]", line: bytes) -> bytes:
    """The child's line of reply; a piece of none where it died."""
    timer = threading.Timer(_WALL_S, process.kill)
    timer.daemon = True
    timer.start()
    try:
        _write(process, line)
        return process.stdout.readline() if process.stdout is not None else b""
    finally:
        timer.cancel()


def _write(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it died; its reply will tell
            process.stdin.write(line)
            process.stdin.flush()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def main() -> None:
    """The child: a line with schema and limit, then a line for each answer; ends with its input."""
    # Replies go where nothing that is printed by accident gets in between.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    schema, cpu_s = json.loads(sys.stdin.buffer.readline())
    validator = make_validator(schema)
    for line in sys.stdin.buffer:
        answer = json.loads(line)
        _limit(cpu_s)
        found = misfit(validator, answer)
        _limit(0.0)
        replies.write(json.dumps(found).encode() + b"\n")
        replies.flush()


def _limit(cpu_s: float) -> None:
    """Lets the system end this process after so much computing; 0 for no limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)


if __name__ == "__main__":
    main()
