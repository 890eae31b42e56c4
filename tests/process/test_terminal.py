"""What people see on a terminal: the bar of a run, and ``status --watch``, at every width."""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchchat.control.client import ask
from batchchat.control.messages import Request
from tests.runs import (
    BATCHCHAT,
    Server,
    finish,
    kill,
    run,
    run_arguments,
    serving,
    start_command,
    start_run,
    wait_until,
    write_prompts,
)

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform == "win32", reason="no such terminals there")]
WIDTHS = (40, 60, 80, 120)
MANY = ("--concurrency", "4", "--rate", "6/s", "--retries", "0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), latency_ms=50, error_503=0.2, seed=5) as found:
        yield found


def watching(results: Path, *more: str) -> list[str]:
    return [*BATCHCHAT, "status", str(results), "--watch", *more]


def ask_when_there(results: Path, command: str) -> None:
    """Asks a run as soon as it listens."""
    wait_until(lambda: (reply := ask(str(results), Request(command=command))) is not None and reply.done)


@pytest.fixture(scope="module")
def shown(server: Server, tmp_path_factory: pytest.TempPathFactory):
    """A resumed run on terminals of every width, each with ``status --watch`` on another one beside it."""
    from tests.terminals import Terminal, run_on_terminals

    bars, watchers, runs = {}, {}, {}
    with serving(tmp_path_factory.mktemp("reliable")) as reliable:
        for columns in WIDTHS:
            folder = tmp_path_factory.mktemp(f"at-{columns}")
            runs[columns] = server, write_prompts(folder / "p.jsonl", 26), folder / "r.jsonl"
            assert run(reliable, *runs[columns][1:], "--limit", "6")[0] == 0
    for columns in WIDTHS:
        bars[columns] = Terminal(run_arguments(*runs[columns], *MANY), columns)
    for columns in WIDTHS:
        ask_when_there(runs[columns][2], "pause")
        watchers[columns] = Terminal(watching(runs[columns][2], "--every", "0.3s"), columns)
    unseen = set(WIDTHS)

    def go_on(terminal: Terminal) -> None:
        """A run stands until its watcher has been seen, however slow this machine is."""
        columns = terminal.columns
        if columns in unseen and terminal is watchers[columns] and any("state" in line for line in terminal.lines):
            unseen.discard(columns)
            ask_when_there(runs[columns][2], "resume")

    run_on_terminals([*bars.values(), *watchers.values()], go_on)
    return bars, watchers


def words_of(screen: list[str]) -> str:
    """The screen as one text, however its lines are broken."""
    return " ".join(" ".join(screen).replace("·", ",").split())


@pytest.mark.parametrize("columns", WIDTHS)
def test_bar_tells_counts_pace_limit_time_left_and_failures(shown, columns: int) -> None:
    bar = shown[0][columns]
    assert bar.code == 1, "some prompts failed"
    told = [words_of(screen) for screen in bar.screens if any("answered" in line for line in screen)]
    whole = re.compile(r"\d+/26 answered .*[\d.]+/s of 6/s.* about [\dms. ]+ left")
    assert any(whole.search(text.replace(",", "")) for text in told), told[-3:]
    assert any(re.search(r"\d+ failed \(server \d+\)", text) for text in told), told[-3:]


@pytest.mark.parametrize("columns", WIDTHS)
def test_bar_fits_its_terminal(shown, columns: int) -> None:
    for screen in shown[0][columns].screens:
        below = next((at for at, line in enumerate(screen) if "/26 answered" in line), len(screen))
        assert all(len(line) < columns and "…" not in line for line in screen[below:]), screen


@pytest.mark.parametrize("columns", WIDTHS)
def test_resumed_run_counts_from_its_first_line_what_is_answered(shown, columns: int) -> None:
    counts = [
        int(found[1])
        for screen in shown[0][columns].screens
        if (found := re.search(r"(\d+)/26 answered", " ".join(screen)))
    ]
    assert counts[0] >= 6
    assert counts == sorted(counts)


@pytest.mark.parametrize("columns", WIDTHS)
def test_bar_is_gone_at_the_end(shown, columns: int) -> None:
    assert not any("/26 answered" in line for line in shown[0][columns].lines)


@pytest.mark.parametrize("columns", WIDTHS)
def test_watch_tells_the_run_and_then_its_end(shown, columns: int) -> None:
    watcher = shown[1][columns]
    assert watcher.code == 0
    told = [words_of(screen) for screen in watcher.screens]
    assert any(re.search(r"state (running|held|stopping)", text) for text in told)
    assert any(re.search(r"answered \d+ of 26 \(\d+%\)", text) for text in told), told
    assert any(re.search(r"sending [\d.e-]+/s, rate 6/s", text) for text in told), told
    assert re.search(
        r"completed \d+ failed \d+ server \d+ .*the run ended after .*: failures, exit code 1$", told[-1]
    ), told[-1]


@pytest.mark.parametrize("columns", WIDTHS)
def test_watch_draws_one_block_in_place_of_the_one_before(shown, columns: int) -> None:
    for screen in shown[1][columns].screens:
        if any("the run ended" in line for line in screen):
            continue
        assert sum("state " in line for line in screen) <= 1, screen
        assert all(len(line) < columns for line in screen)


@pytest.fixture(scope="module")
def slow_run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that goes on for as long as tests look at it."""
    folder = tmp_path_factory.mktemp("slow")
    results = folder / "r.jsonl"
    process = start_run(server, write_prompts(folder / "p.jsonl", 5000), results, "--rate", "5/s", "--quiet")
    wait_until(lambda: results.exists() and results.stat().st_size > 0)
    yield results
    kill(process)
    process.communicate()


def test_ctrl_c_ends_the_watch_with_130_and_not_the_run(slow_run: Path) -> None:
    from tests.terminals import Terminal, run_on_terminals

    terminal, sent = Terminal(watching(slow_run), 60), []

    def interrupt(terminal: Terminal) -> None:
        if not sent and any("state" in line for line in terminal.lines):
            sent.append(True)
            terminal.interrupt()

    run_on_terminals([terminal], interrupt)
    assert terminal.code == 130
    assert not any("Traceback" in line for line in terminal.lines)


def test_watch_where_nobody_draws_is_plain_text_and_json(slow_run: Path) -> None:
    watchers = [start_command(watching(slow_run, "--every", "0.2s", *more)) for more in ((), ("--json",))]
    plain, as_json = watchers
    lines = [plain.stdout.readline() for _ in range(40)]
    objects = [json.loads(as_json.stdout.readline()) for _ in range(3)]
    for watcher in watchers:
        kill(watcher, signal.SIGINT)
        code, _, err = finish(watcher)
        assert (code, err.strip()) == (130, "")
    assert not any("\x1b" in line for line in lines)
    assert sum(line.startswith("state ") for line in lines) >= 2
    assert all(found["running"] and found["live"]["total"] == 5000 and found["status"] is None for found in objects)
    assert objects[0]["live"]["answered"] <= objects[-1]["live"]["answered"]


def test_watch_of_a_run_that_does_not_answer_reads_its_file(server: Server, tmp_path: Path) -> None:
    """As one in a container; and one that is killed leaves no word on its end."""
    prompts, results = write_prompts(tmp_path / "p.jsonl", 2000), tmp_path / "r.jsonl"
    elsewhere = tempfile.mkdtemp(dir="/tmp")  # a path short enough for a socket
    process = start_run(server, prompts, results, "--rate", "40/s", env=os.environ | {"XDG_RUNTIME_DIR": elsewhere})
    wait_until(lambda: results.exists() and results.stat().st_size > 0)
    watcher = start_command(watching(results, "--every", "0.1s", "--json"))
    objects = [json.loads(watcher.stdout.readline())]
    while objects[-1]["status"] is None or objects[-1]["status"]["completed"] < 30:
        objects.append(json.loads(watcher.stdout.readline()))
    kill(process)
    process.communicate()
    code, out, err = finish(watcher)
    assert (code, err) == (0, "")
    last = json.loads(out.splitlines()[-1])
    assert (last["running"], last["end"], last["live"]) == (False, None, None)
    assert last["status"]["completed"] >= 30
    shutil.rmtree(elsewhere)


def test_watch_of_a_run_that_is_over_tells_its_end(server: Server, tmp_path: Path) -> None:
    prompts, results = write_prompts(tmp_path / "p.jsonl", 2), tmp_path / "r.jsonl"
    ended = run(server, prompts, results, "--retries", "0")[0]
    code, out, err = finish(start_command(watching(results)))
    assert (code, err) == (0, "")
    assert re.search(rf"completed +\d\n(.*\n)*the run ended after .*, exit code {ended}\n$", out)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("r.jsonl", "--every", "1s"), "--every needs --watch"),
        (("r.jsonl", "--watch", "--every", "soon"), "--every: expected a duration such as"),
        (("r.jsonl", "--watch", "--every", "1ms"), "--every: expected at least 0.1 s, found '1ms'"),
        (("missing.jsonl", "--watch"), "missing.jsonl: there is no such results file"),
        (("-", "--watch"), "- is no file; expected the path of a results file"),
    ],
)
def test_wrong_use_of_watch_is_a_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = finish(start_command([*BATCHCHAT, "status", *arguments], cwd=tmp_path))
    assert (code, out) == (2, "")
    assert sentence in err
