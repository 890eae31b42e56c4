"""``batchchat status --watch``: what a run tells, again and again, and how it ended."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from batchchat.cli.input_options import RunSources
    from batchchat.control.messages import Live
    from batchchat.results import RunStatus

__all__ = ["Block", "watch_run"]

_TERMINAL_S, _PLAIN_S = 1.0, 30.0
_PLAIN_COLUMNS, _MOST_COLUMNS = 80, 100
# The lock of a run is free a moment before its summary tells how it ended.
_SUMMARY_S, _LOOK_S = 3.0, 0.05


def watch_run(sources: "RunSources", *, every_s: float | None, as_json: bool) -> None:
    """Tells of the run that holds a results file until it ends, then what the files hold and how it ended.

    The run itself is asked; its files are read only where it does not answer, and then only what was added to them.

    Args:
        every_s: Seconds between two blocks; None for a second on a terminal and as JSON, else half a minute.

    Raises:
        ConfigError: The results are no file.
        ResultsFileError: There is no such file, or it is no results file.
        PromptFileError: The input cannot be read.
    """
    from batchchat.control.client import ask_live
    from batchchat.results.following import FollowedStatus
    from batchchat.results.lock import is_locked

    files = sources.files
    files.need_file()
    out: Block | _JsonLines = _JsonLines(sys.stdout) if as_json else Block(sys.stdout)
    wait_s = every_s if every_s is not None else _TERMINAL_S if as_json or out.redraws else _PLAIN_S
    followed = FollowedStatus(files, prices=sources.prices, model=sources.model)
    before, watched = _summary_end(files.summary), False
    while (live := ask_live(files.results)) is not None or is_locked(files.results):
        watched = True
        out.tell(sources.told(files.results), live, None if live is not None else followed.read())
        time.sleep(wait_s)
    out.end(_last_status(sources), _ending(files.summary, before) if watched else before)


def _last_status(sources: "RunSources") -> "RunStatus":
    import msgspec

    from batchchat.results import read_status

    status = read_status(sources.files, sources.reader, prices=sources.prices, model=sources.model)
    return msgspec.structs.replace(status, results=sources.told(status.results))


def _ending(summary: str | None, before: dict[str, Any] | None) -> dict[str, Any] | None:
    """How the run ended that was watched; None where it left no word, as one that was killed.

    Args:
        before: What the summary told of the run before it.
    """
    give_up = time.monotonic() + _SUMMARY_S
    while (end := _summary_end(summary)) in (None, before) and summary is not None and time.monotonic() < give_up:
        time.sleep(_LOOK_S)
    return None if end == before else end


def _summary_end(summary: str | None) -> dict[str, Any] | None:
    from batchchat.results.summary import read_summary

    found = (read_summary(summary) or {}) if summary is not None else {}
    if found.get("state") != "finished":
        return None
    return {name: found.get(name) for name in ("reason", "message", "exit_code", "finished_at", "duration_s")}


class Block:
    """Blocks of text; on a terminal each takes the place of the one before."""

    def __init__(self, stream: TextIO, *, size: "Callable[[], os.terminal_size]" = shutil.get_terminal_size) -> None:
        self._stream, self._size = stream, size
        self.redraws = stream.isatty() and os.environ.get("TERM") not in ("dumb", None)
        self._lines = 0

    def tell(self, results: str, live: "Live | None", status: "RunStatus | None") -> None:
        """Shows what the run tells, or what its files hold where it does not."""
        from batchchat.cli.live_text import render_live
        from batchchat.cli.status_text import render_status
        from batchchat.progress_words import visible
        from batchchat.text_layout import cut

        moment = f"{datetime.now(UTC):%H:%M:%S} UTC"
        if live is not None:
            title = f"{cut(visible(results), self._columns - len(moment) - 2)}  {moment}"
            text = f"{title}\n{self._bar(live)}{render_live(live, self._columns)}"
        else:
            lines = [] if status is None else render_status(status, None).splitlines()
            text = "".join(f"{cut(line, self._columns)}\n" for line in lines)
        self._show(text if self.redraws else f"{text}\n")

    def end(self, status: "RunStatus", end: dict[str, Any] | None) -> None:
        """Shows what the files hold, and how the run ended."""
        from batchchat.cli.status_text import render_status
        from batchchat.text_layout import flow

        told = flow([_end_line(end)], self._columns) if self.redraws else [_end_line(end)]
        self._show(render_status(status, None) + "".join(f"{line}\n" for line in told))

    @property
    def _columns(self) -> int:
        if not self.redraws:
            return _PLAIN_COLUMNS
        # The last column stays free: some terminals go to the next line as soon as it is written.
        return max(20, min(_MOST_COLUMNS, self._size().columns - 1))

    def _bar(self, live: "Live") -> str:
        if not self.redraws or not live.total:
            return ""
        done = min(1.0, (live.answered_before + live.answered + live.failed) / live.total)
        room = min(self._columns, 60)
        full, empty = ("━", "─") if "utf" in (self._stream.encoding or "").lower() else ("#", "-")
        return f"{full * int(done * room)}{empty * (room - int(done * room))}\n"

    def _show(self, text: str) -> None:
        back = ""
        if self.redraws:
            lines = text.split("\n")[:-1][: max(1, self._size().lines - 1)]
            back = f"\x1b[{self._lines}A\r\x1b[J" if self._lines else ""
            self._lines, text = len(lines), "".join(f"{line}\n" for line in lines)
        self._stream.write(back + text)
        self._stream.flush()


class _JsonLines:
    """One object a line: ``time``, ``live`` and, where the files were read, ``status``; the last one has ``end``."""

    redraws = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def tell(self, results: str, live: "Live | None", status: "RunStatus | None") -> None:
        """What the run tells, or what its files hold where it does not."""
        from batchchat.control.messages import live_object

        self._write(running=True, live=None if live is None else live_object(live), status=status)

    def end(self, status: "RunStatus", end: dict[str, Any] | None) -> None:
        """What the files hold, and how the run ended."""
        self._write(running=False, live=None, status=status, end=end)

    def _write(self, *, status: "RunStatus | None", **keys: Any) -> None:
        import msgspec

        from batchchat.cli.status_text import status_object

        whole = {"time": datetime.now(UTC), **keys, "status": None if status is None else status_object(status)}
        self._stream.write(msgspec.json.encode(whole).decode() + "\n")
        self._stream.flush()


def _end_line(end: dict[str, Any] | None) -> str:
    from batchchat.durations import render_duration
    from batchchat.progress_words import visible

    if end is None:
        return "no run is going on; the last one left no word on its end"
    took = end["duration_s"]
    after = f" after {render_duration(took)}" if isinstance(took, int | float) else ""
    why = f": {end['message']}" if end["message"] else ""
    return visible(f"the run ended{after}: {end['reason']}, exit code {end['exit_code']}{why}")
