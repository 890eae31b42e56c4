"""What a run tells of itself while it goes on, asked for in a thread."""

from typing import Any

import msgspec

from batchchat.control.client import ask
from batchchat.control.messages import Request

__all__ = ["ask_live"]

_WAIT_S = 1.0


def ask_live(results: str) -> dict[str, Any] | None:
    """The keys of ``Live``; None where no run answers within a second."""
    reply = ask(results, Request(command="status"), wait_s=_WAIT_S)
    if reply is None or reply.live is None:
        return None
    found = msgspec.to_builtins(reply.live)
    return found if isinstance(found, dict) else None
