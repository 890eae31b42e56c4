"""What a server of the suite saw: its requests, when they came and went, and which answers it sent whole."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchchat.devserver.state import worst_window

__all__ = ["ServerLog", "note_end_of_server"]


@dataclass
class ServerLog:
    """The log of one server or of several, as ``serve --log --log-ends`` writes it.

    Attributes:
        requests: A dict for each request, in the order of arrival.
        ends: When the answer to a request was over, and whether all of it was sent, by (log, number).
    """

    requests: list[dict[str, Any]] = field(default_factory=list)
    ends: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: list[Path]) -> "ServerLog":
        """All logs as one; lines that are still being written do not count."""
        log = cls()
        for path in paths:
            data = path.read_bytes() if path.exists() else b""
            for line in data[: data.rfind(b"\n") + 1].splitlines():
                told = json.loads(line)
                told["log"] = str(path)
                if told["kind"] == "end":
                    log.ends[told["log"], told["number"]] = told
                else:
                    log.requests.append(told)
        log.requests.sort(key=lambda request: request["time_s"])
        return log

    @property
    def chats(self) -> list[dict[str, Any]]:
        """Requests that carried a prompt."""
        return [request for request in self.requests if request["kind"] == "chat"]

    def asked(self) -> Counter[str]:
        """How often each prompt's text was sent."""
        return Counter(request["prompt"] for request in self.chats)

    def delivered(self) -> Counter[str]:
        """How often a whole answer without a fault was sent for each prompt's text."""
        whole = (chat for chat in self.chats if chat["status"] == 200 and not chat["fault"])
        return Counter(chat["prompt"] for chat in whole if self.ends.get(_key(chat), {}).get("delivered"))

    def worst_window(self, seconds: float) -> int:
        """The most requests of any kind that any window of that many seconds holds."""
        return worst_window([request["time_s"] for request in self.requests], seconds)

    def peak_in_flight(self) -> int:
        """The most chats that were open at any moment."""
        moments = []
        for chat in self.chats:
            end = self.ends.get(_key(chat))
            moments.append((chat["time_s"], 1))
            if end is not None:
                moments.append((end["time_s"], -1))
        peak = open_now = 0
        for _, step in sorted(moments):  # at one moment, ends come first
            open_now += step
            peak = max(peak, open_now)
        return peak


def note_end_of_server(path: Path) -> None:
    """Writes the ends of answers that a server had not sent to their end when it ended, which is now."""
    log = ServerLog.read([path])
    open_still = [request["number"] for request in log.requests if _key(request) not in log.ends]
    ends = [{"kind": "end", "number": number, "time_s": time.monotonic(), "delivered": False} for number in open_still]
    if ends:
        with path.open("a") as file:
            file.write("".join(f"{json.dumps(end)}\n" for end in ends))


def _key(request: dict[str, Any]) -> tuple[str, int]:
    return request["log"], request["number"]
