"""Progress: what is told, how often, and that nothing in it steers a terminal or stops a run."""

import asyncio
import contextlib
import io
import json
import os
import pty
import re
import sys
from datetime import UTC, datetime

import pytest

from batchchat.errors import ServerError
from batchchat.observer import RunPlan, RunReport
from batchchat.one_line import one_line
from batchchat.progress import JsonProgress, LineProgress, RichProgress, choose_progress, safe_writer, visible
from batchchat.progress_counts import RunCounts
from batchchat.records import Completion, Failure, Outcome, Usage

NASTY = "a\x1b[2Jb\rc\nd\x07e\x9b31mf\u2028g\u202eh\x7f"
NEVER, ALWAYS = 1e9, 0.0


def answered(prompt_id="q-1") -> Outcome:
    return Outcome(id=prompt_id, index=0, attempts=1, completion=Completion(text="yes"))


def failed(prompt_id="q-2") -> Outcome:
    return Outcome(id=prompt_id, index=1, attempts=6, error=Failure(type="server", message="no"))


def report(exit_code: int = 0, message: str | None = None) -> RunReport:
    now = datetime.now(UTC)
    return RunReport(exit_code=exit_code, reason="completed", message=message, total=2, answered_before=0, answered=1,
                     failed=1, pending=0, started_at=now, finished_at=now, duration_s=1.0, usage=Usage(), attempts={},
                     requests=2, failures=(), first_answers=())  # fmt: skip


def play(progress) -> None:
    """A short run: a retry, an answer, a failure, notices of every level."""
    progress.run_started(RunPlan(total=2, completed=0, concurrency=4, output="out.jsonl"))
    progress.attempt_failed("q-1", 1, ServerError("HTTP 500"), True)
    for level in (0, 1, 2):
        progress.notice(f"level {level}", level)
    progress.prompt_finished(answered())
    progress.prompt_finished(failed())
    progress.run_finished(report())
    progress.close()


def lines_of(verbosity: int, every_s: float = NEVER) -> list[str]:
    lines: list[str] = []
    play(LineProgress(lines.append, verbosity=verbosity, every_s=every_s))
    return lines


def test_lines_tell_the_plan_and_warnings_by_default() -> None:
    assert lines_of(0) == ["batchchat: 2 prompts; 4 in flight; results in out.jsonl", "batchchat: level 0"]


def test_quiet_tells_nothing_of_a_run_that_goes_well() -> None:
    assert lines_of(-1, every_s=ALWAYS) == []


def test_verbose_tells_of_attempts_and_waits() -> None:
    lines = lines_of(1)
    assert "batchchat: q-1: attempt 1: server: HTTP 500 (asked again)" in lines
    assert "batchchat: level 1" in lines
    assert "batchchat: level 2" not in lines


def test_twice_verbose_tells_of_every_prompt() -> None:
    lines = lines_of(2)
    assert "batchchat: level 2" in lines
    assert "batchchat: q-1: answered after 1 attempt" in lines
    assert "batchchat: q-2: failed after 6 attempts" in lines


def test_no_progress_line_comes_before_its_time() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, verbosity=0, every_s=NEVER)
    for _ in range(1000):
        progress.prompt_finished(answered())
    assert lines == []


def test_one_progress_line_tells_counts_rate_and_what_is_left() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, verbosity=0, every_s=ALWAYS)
    progress.run_started(RunPlan(total=10, completed=3, concurrency=4, output="o"))
    progress.attempt_failed(7, 1, ServerError("HTTP 500"), True)
    progress.prompt_finished(answered())
    assert lines[0] == "batchchat: 10 prompts, 3 answered already; 4 in flight; results in o"
    assert lines[1].startswith("batchchat: 4/10 answered, 0 failed, 1 retrying, ")
    assert "/s, about " in lines[1]
    assert lines[1].endswith(" left")


def test_stream_of_unknown_length_has_no_total_and_no_time_left() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, verbosity=0, every_s=ALWAYS)
    progress.run_started(RunPlan(total=None, completed=0, concurrency=4, output="o"))
    progress.prompt_finished(failed())
    assert lines[0] == "batchchat: prompts from a stream; 4 in flight; results in o"
    assert lines[1].startswith("batchchat: 0/? answered, 1 failed (server 1), ")
    assert "left" not in lines[1]


def test_retried_prompt_no_longer_counts_as_retrying_once_it_ends() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, verbosity=0, every_s=ALWAYS)
    progress.attempt_failed("q-1", 1, ServerError("x"), True)
    progress.attempt_failed("q-1", 2, ServerError("x"), True)
    progress.prompt_finished(answered("q-1"))
    assert "retrying" not in lines[-1]


def objects_of(verbosity: int, every_s: float = NEVER) -> list[dict]:
    lines: list[str] = []
    play(JsonProgress(lines.append, verbosity=verbosity, every_s=every_s))
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("verbosity", "events"),
    [
        (-1, []),
        (0, ["run_started", "notice", "run_finished"]),
        (1, ["run_started", "attempt_failed", "notice", "notice", "run_finished"]),
        (2, ["run_started", "attempt_failed", "notice", "notice", "notice", "prompt_finished", "prompt_finished", "run_finished"]),
    ],
)  # fmt: skip
def test_json_has_one_object_for_each_event_of_its_level(verbosity: int, events: list[str]) -> None:
    objects = objects_of(verbosity)
    assert [record["event"] for record in objects] == events
    assert all(datetime.fromisoformat(record["time"]).utcoffset().total_seconds() == 0 for record in objects)


def test_json_progress_comes_at_its_interval() -> None:
    progress = [record for record in objects_of(0, every_s=ALWAYS) if record["event"] == "progress"]
    assert [(record["completed"], record["failed"], record["total"]) for record in progress] == [(1, 0, 2), (1, 1, 2)]


def test_quiet_json_tells_the_end_of_a_run_that_went_wrong() -> None:
    lines: list[str] = []
    progress = JsonProgress(lines.append, verbosity=-1)
    progress.run_finished(report(exit_code=4, message="no access"))
    (record,) = map(json.loads, lines)
    assert (record["event"], record["exit_code"], record["message"]) == ("run_finished", 4, "no access")


@pytest.mark.parametrize(
    "prompt_id", [2**80, "\ud83d", NASTY], ids=["huge integer", "half a pair", "control characters"]
)
def test_any_id_and_message_is_one_line_of_json(prompt_id) -> None:
    stream = io.StringIO()
    progress = JsonProgress(safe_writer(stream), verbosity=2)
    progress.prompt_finished(answered(prompt_id))
    progress.attempt_failed(prompt_id, 1, ServerError(NASTY), False)
    lines = stream.getvalue().split("\n")[:-1]
    assert [json.loads(line)["id"] for line in lines] == [prompt_id, prompt_id]
    assert json.loads(lines[1])["message"] == one_line(NASTY)
    assert all(line.isprintable() for line in lines)


def test_control_characters_reach_no_terminal() -> None:
    stream = io.StringIO()
    progress = LineProgress(safe_writer(stream), verbosity=2)
    progress.attempt_failed(NASTY, 1, ServerError(NASTY), True)
    progress.prompt_finished(answered(NASTY))
    progress.notice(NASTY, 0)
    written = stream.getvalue()
    assert written.count("\n") == 3
    assert all(line.isprintable() for line in written.split("\n"))


def test_visible_leaves_plain_text_of_every_language_alone() -> None:
    text = "Grüße 你好 שלום 👋 100 %"
    assert visible(text) == text
    assert visible("a\tb\x00c") == "a�b�c"


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error

    def isatty(self) -> bool:
        return True


BROKEN = [OSError(28, "No space left on device"), OSError(5, "Input/output error"), BrokenPipeError(), ValueError("I/O operation on closed file")]  # fmt: skip


@pytest.mark.parametrize("error", BROKEN, ids=repr)
def test_stream_that_takes_nothing_stops_nobody(error: Exception) -> None:
    play(LineProgress(safe_writer(Broken(error)), verbosity=2, every_s=ALWAYS))
    play(JsonProgress(safe_writer(Broken(error)), verbosity=2, every_s=ALWAYS))
    play(RichProgress(Broken(error), verbosity=2))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """A text stream on a pseudo-terminal, and a function that closes it and gives what was written there."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8", errors="backslashreplace")

    def written() -> str:
        stream.close()
        parts = []
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # Linux tells the end of a terminal in this way
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts).decode()

    yield stream, written
    stream.close()
    os.close(master)


def test_terminal_gets_a_bar_that_is_gone_at_the_end(terminal) -> None:
    stream, written = terminal
    progress = choose_progress(stream, verbosity=1, log_format="text")
    assert isinstance(progress, RichProgress)
    play(progress)
    text = written()
    assert "batchchat: level 0" in text
    assert "q-1: attempt 1: server: HTTP 500" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is given back"


def test_cursor_is_given_back_where_the_run_ends_without_a_report(terminal) -> None:
    stream, written = terminal
    progress = RichProgress(stream, verbosity=0)
    progress.run_started(RunPlan(total=2, completed=0, concurrency=4, output="o"))
    progress.close()
    progress.close()
    text = written()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_messages_above_the_bar_steer_no_terminal(terminal) -> None:
    stream, written = terminal
    progress = RichProgress(stream, verbosity=2)
    progress.notice("[red]x[/red] " + NASTY, 0)
    text = written()
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\x07" not in text
    assert "[red]x[/red] a�[2Jb�c�d�e�31mf�g�h�" in text


def test_no_color_means_no_color(terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream, written = terminal
    play(RichProgress(stream, verbosity=1))
    assert re.search(r"\x1b\[[0-9;]*[349]\d[0-9;]*m", written()) is None


def test_terminal_that_went_away_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w")
    progress = RichProgress(stream, verbosity=2)
    progress.run_started(RunPlan(total=2, completed=0, concurrency=4, output="o"))
    os.close(master)
    play(progress)
    with contextlib.suppress(OSError):
        stream.close()


@pytest.mark.parametrize("term", ["dumb", None])
def test_terminal_that_cannot_draw_gets_lines(terminal, monkeypatch: pytest.MonkeyPatch, term: str | None) -> None:
    if term is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", term)
    stream, written = terminal
    progress = choose_progress(stream, verbosity=0, log_format="text")
    assert isinstance(progress, LineProgress)
    play(progress)
    assert "\x1b" not in written()


def test_form_follows_what_was_asked_for_and_where_it_goes(terminal) -> None:
    stream, _ = terminal
    assert isinstance(choose_progress(stream, verbosity=-1, log_format="text"), LineProgress)
    assert isinstance(choose_progress(stream, verbosity=0, log_format="json"), JsonProgress)
    assert isinstance(choose_progress(io.StringIO(), verbosity=0, log_format="text"), LineProgress)
    assert sys.stderr is not stream


def test_line_progress_goes_on_while_nothing_finishes() -> None:
    """A service that is silent for minutes must not look like a run that hangs."""
    lines: list[str] = []

    async def silent() -> None:
        progress = LineProgress(lines.append, verbosity=0, every_s=0.01)
        progress.run_started(RunPlan(total=3, completed=0, concurrency=1, output="r.jsonl"))
        while len(lines) < 4:
            await asyncio.sleep(0.001)
        progress.close()

    asyncio.run(asyncio.wait_for(silent(), 20))
    assert all("0/3 answered" in line for line in lines[1:])


def test_waiting_stands_in_the_line_and_is_told_once() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, verbosity=0, every_s=0.0)
    progress.run_started(RunPlan(total=2, completed=0, concurrency=4, output="out.jsonl"))
    progress.run_held("window", "waiting until 22:00 (--window)")
    for _ in range(3):
        progress._tell_progress()
    assert lines[1:] == ["batchchat: 0/2 answered, 0 failed, waiting until 22:00 (--window)"]
    progress.run_held("paused", "paused")
    progress._tell_progress()
    assert lines[-1] == "batchchat: 0/2 answered, 0 failed, waiting until 22:00 (--window), paused"
    progress.prompt_finished(answered())
    assert lines[-1].startswith("batchchat: 1/2 answered, 0 failed, waiting")
    progress.run_held("window", None)
    progress.run_held("paused", None)
    progress._tell_progress()
    assert "/s" in lines[-1]
    assert "waiting" not in lines[-1]


def test_waiting_is_an_event_for_log_collectors() -> None:
    lines: list[str] = []
    progress = JsonProgress(lines.append, verbosity=0, every_s=NEVER)
    progress.run_held("window", "waiting until 22:00 (--window)")
    progress.run_held("window", None)
    told = [json.loads(line) for line in lines]
    assert [(event["event"], event["word"], event["why"]) for event in told] == [
        ("held", "window", "waiting until 22:00 (--window)"), ("held", "window", None),
    ]  # fmt: skip


def test_time_of_waiting_slows_no_speed() -> None:
    counts = RunCounts()
    counts.start(RunPlan(total=10, completed=0, concurrency=1, output=""))
    counts.began -= 3610
    counts.finished(answered())
    counts.held("window", "waiting")
    counts._held_at -= 3600
    assert counts.rate == pytest.approx(0.1, rel=0.1)
    counts.held("window", None)
    assert counts.rate == pytest.approx(0.1, rel=0.1)
