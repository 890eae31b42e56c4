"""``progress=True``: a bar under a cell, or on standard error, for runs and streams from Python."""

import asyncio
import re
from pathlib import Path

import pytest

import batchchat
from batchchat.devserver import DevServer
from batchchat.errors import ServerError
from batchchat.observer import RunPlan
from batchchat.progress_notebook import NotebookProgress, in_notebook
from batchchat.records import Completion, Failure, Outcome
from tests.runs import write_prompts

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"


class Display:
    """Stands in for IPython's: keeps what is shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def __call__(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> "Display":
        assert (raw, display_id) == (True, True)
        self.shown.append(bundle)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        self.shown.append(bundle)


def play(progress: NotebookProgress, total: int | None = 3) -> None:
    progress.run_started(RunPlan(total=total, completed=1, concurrency=4, output=""))
    progress.attempt_failed("q-1", 1, ServerError("HTTP 500"), True)
    progress.prompt_finished(Outcome(id="q-1", index=0, completion=Completion(text="yes")))
    progress.notice(HOSTILE, 0)
    progress.notice("for -v", 1)
    progress.run_held("paused", "paused")
    progress.prompt_finished(Outcome(id="q-2", index=0, error=Failure(type="server", message="no")))
    progress.close()
    progress.close()


def test_display_begins_with_what_is_answered_and_stays_with_the_counts() -> None:
    display = Display()
    play(NotebookProgress(display))
    first, last = display.shown
    assert first["text/plain"] == "1/3 answered"
    assert 'value="0.3333"' in first["text/html"]
    assert re.match(r"2/3 answered, 1 failed \(server 1\), in \d+", last["text/plain"])
    assert 'value="1.0000"' in last["text/html"]
    assert "for -v" not in last["text/plain"]


def test_stream_of_unknown_length_leaves_no_bar_that_runs_forever() -> None:
    display = Display()
    play(NotebookProgress(display), total=None)
    assert "<progress style" in display.shown[0]["text/html"]
    assert "<progress" not in display.shown[-1]["text/html"]


def test_hostile_text_is_text_under_a_cell() -> None:
    display = Display()
    play(NotebookProgress(display))
    last = display.shown[-1]
    assert "<script>" not in last["text/html"]
    assert "&lt;script&gt;" in last["text/html"]
    assert not {"\x1b", "\u202e"} & set(last["text/html"] + last["text/plain"])


def test_display_that_is_drawn_at_intervals_tells_rate_and_time_left() -> None:
    display = Display()

    async def some_time() -> None:
        progress = NotebookProgress(display)
        progress.run_started(RunPlan(total=100, completed=0, concurrency=4, output=""))
        for number in range(10):
            progress.prompt_finished(Outcome(id=number, index=0, completion=Completion(text="yes")))
        async with asyncio.timeout(20):
            while len(display.shown) < 2:
                await asyncio.sleep(0.01)
        progress.close()

    asyncio.run(some_time())
    assert re.fullmatch(r"10/100 answered, [\d.,]+/s, about .+ left", display.shown[1]["text/plain"])


def test_this_is_no_notebook() -> None:
    assert not in_notebook()


async def test_stream_tells_its_plan_and_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    async with DevServer() as server:
        service = {"name": "ai-engine", "base_url": server.base_url}
        outcomes = [outcome async for outcome in batchchat.stream(["a", "b", ""], provider=service, progress=True)]
    assert len(outcomes) == 3
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert out == ""
    assert first == "batchchat: 3 prompts; 16 in flight"
    assert re.fullmatch(r"batchchat: 2/3 answered, 1 failed \(input 1\), in \d+(\.\d+)?m?s", last)


async def test_stream_that_is_left_early_leaves_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    async with DevServer() as server:
        service = {"name": "ai-engine", "base_url": server.base_url}
        stream = batchchat.stream((str(n) for n in range(50)), provider=service, concurrency=1, progress=True)
        await anext(stream)
        await stream.aclose()
    first, last = capsys.readouterr().err.splitlines()
    assert first == "batchchat: prompts from a stream; 1 in flight"
    assert last.startswith("batchchat: 1/? answered, 0 failed, in ")


async def test_stream_is_quiet_unless_it_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    async with DevServer() as server:
        service = {"name": "ai-engine", "base_url": server.base_url}
        assert len([outcome async for outcome in batchchat.stream(["a"], provider=service)]) == 1
    assert capsys.readouterr() == ("", "")


async def test_job_shows_its_progress_also_inside_a_running_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with DevServer() as server:
        settings = {
            "input": [str(write_prompts(tmp_path / "p.jsonl", 5))],
            "output.path": str(tmp_path / "r.jsonl"),
            "provider.name": "ai-engine",
            "provider.base_url": server.base_url,
        }
        report = await batchchat.run_job(batchchat.load_job(None, settings), progress=True)
    assert report.answered == 5
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("batchchat: 5 prompts; 16 in flight; results in ")
    assert told[-1].startswith("batchchat: 5/5 answered, 0 failed, in ")
