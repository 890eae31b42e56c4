"""``python -m batchchat.look_ahead_child``: reads an input to its end, or to its first fault, for a run that goes on.

Standard input brings one line of settings and stays open as long as the run lives; one line of JSON goes out.
"""

import contextlib
import json
import os
import signal
import sys
import threading

import msgspec

from batchchat.errors import BatchchatError
from batchchat.input_settings import InputSettings
from batchchat.prompts import PromptReader
from batchchat.records import InputFault

__all__ = ["Asked", "Found", "look", "main"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be read.

    Attributes:
        lenient: Whether faulty lines are counted as the others are.
    """

    settings: InputSettings
    lenient: bool


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the whole input holds.

    Attributes:
        total: Prompts and faulty lines, None where a fault is told.
        fault: The first faulty line, one sentence with file and line.
    """

    total: int | None = None
    fault: str | None = None


def look(asked: Asked) -> Found:
    """Reads the input.

    Raises:
        BatchchatError: It cannot be read; the run meets that itself.
    """
    total = 0
    for item in PromptReader(asked.settings):
        if isinstance(item, InputFault) and not asked.lenient:
            return Found(fault=f"{item.path}:{item.line_number}: {item.reason}")
        total += 1
    return Found(total=total)


def main() -> None:
    """Reads what is asked and tells what was found; ends when the parent does, whatever that dies of."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        with contextlib.suppress(OSError):
            os.nice(10)
    # Through ``json``, which takes names of files that are not UTF-8.
    asked = msgspec.convert(json.loads(sys.stdin.buffer.readline()), Asked)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = look(asked)
    except BatchchatError:
        return
    sys.stdout.write(json.dumps(msgspec.to_builtins(found)) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    # Not through ``sys.stdin``, whose lock the end of the interpreter would wait for.
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
