"""Inputs that are too big to be read before the first request: what the run does with them meanwhile."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batchchat.look_ahead import BIG_INPUT_BYTES
from tests.runs import children_of, finish, is_running, kill, read_lines, run, serving, start_run, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
CHILD = "batchchat.look_ahead_child"
COUNT = 36
_PAD = "x" * (1 << 20)
# A nonce and one prompt at once, the next prompt after an hour: nothing but what is found beside the run can end it.
SLOWLY = ("--rate", "2/h", "--burst", "2", "--carry", "none")
FAULTS = {
    "no prompt": {"id": "q-x", "question": 1},
    "an id for the second time": {"id": "q-2", "prompt": "again"},
    "an empty prompt": {"id": "q-x", "prompt": " "},
}


def as_jsonl(folder: Path, rows: list[dict]) -> list[Path]:
    path = folder / "in.jsonl"
    with open(path, "w") as file:
        file.writelines(json.dumps({**row, "pad": _PAD}) + "\n" for row in rows)
    return [path]


def as_csv(folder: Path, rows: list[dict]) -> list[Path]:
    path = folder / "in.csv"
    with open(path, "w") as file:
        file.write("id,prompt,pad\n")
        file.writelines(f"{row['id']},{row.get('prompt', '')},{_PAD}\n" for row in rows)
    return [path]


def as_two_files(folder: Path, rows: list[dict]) -> list[Path]:
    half = len(rows) // 2
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    return [*as_jsonl(folder / "a", rows[:half]), *as_jsonl(folder / "b", rows[half:])]


FORMS: dict[str, Callable[[Path, list[dict]], list[Path]]] = {
    "jsonl": as_jsonl,
    "csv": as_csv,
    "two files": as_two_files,
}


def rows(fault: dict | None = None) -> list[dict]:
    """More than is read beforehand; the fault is the third from the end."""
    made = [{"id": f"q-{number}", "prompt": f"question {number}"} for number in range(COUNT)]
    return [*made[:-2], fault, *made[-2:]] if fault else made


def arguments(server, paths: list[Path], folder: Path, *more: str) -> tuple:
    first, *others = map(str, paths)
    return (server, first, folder / "out.jsonl", *others, *more)


@pytest.mark.parametrize(
    ("form", "fault"),
    [*(("jsonl", fault) for fault in FAULTS), *((form, "no prompt") for form in FORMS if form != "jsonl")],
)
def test_a_fault_far_behind_stops_the_run_with_every_answer_kept(tmp_path: Path, form, fault):
    paths = FORMS[form](tmp_path, rows(FAULTS[fault]))
    assert sum(path.stat().st_size for path in paths) > BIG_INPUT_BYTES
    with serving(tmp_path) as server:
        code, _, err = run(*arguments(server, paths, tmp_path, *SLOWLY))
        asked = [chat["prompt"] for chat in server.chats()]
    assert code == 3
    assert len(asked) <= 1  # the fault may be found before the first request has left
    line = COUNT - 1 + (form == "csv") - (len(rows(FAULTS[fault])) // 2 if form == "two files" else 0)
    told = [part for part in err.splitlines() if part.startswith("batchchat: stopping: ")]
    assert len(told) == 1
    assert f"{paths[-1]}:{line}: " in told[0]
    assert told[0].endswith("'batchchat check' finds this before a run")
    assert len(read_lines(tmp_path / "out.jsonl")) == len(asked)


def test_lenient_runs_are_told_the_total_and_of_no_fault(tmp_path: Path):
    paths = as_jsonl(tmp_path, rows(FAULTS["no prompt"]))
    with serving(tmp_path) as server:
        code, _, err = run(*arguments(server, paths, tmp_path, "--lenient", "--carry", "none", "--concurrency", "2"))
    assert code == 1
    assert "prompts, being counted" in err
    report = json.loads((tmp_path / "out.run.json").read_text())
    assert (report["total"], report["answered"], report["failed"], report["pending"]) == (COUNT + 1, COUNT, 1, 0)


@pytest.mark.parametrize(
    "more", [("--max-failures", "5%"), ("--limit", "40"), ("--sample", "40")], ids=lambda more: more[0]
)
def test_where_a_setting_needs_the_whole_input_it_is_read_first(tmp_path: Path, more):
    paths = as_jsonl(tmp_path, rows(FAULTS["no prompt"]))
    with serving(tmp_path) as server:
        code, _, err = run(*arguments(server, paths, tmp_path, *more))
        assert not server.chats()
    assert code == 3
    assert f"in.jsonl:{COUNT - 1}: " in err


def test_a_run_that_resumes_reads_its_whole_input_first(tmp_path: Path):
    paths = as_jsonl(tmp_path, rows())
    with serving(tmp_path) as server:
        assert run(*arguments(server, paths, tmp_path, "--limit", "3", "--carry", "none"))[0] == 0
        as_jsonl(tmp_path, rows(FAULTS["no prompt"]))
        code, _, err = run(*arguments(server, paths, tmp_path, "--carry", "none"))
        assert len(server.chats()) == 3
    assert code == 3
    assert f"in.jsonl:{COUNT - 1}: " in err


def test_a_fault_in_the_first_lines_is_told_before_the_first_request(tmp_path: Path):
    paths = as_jsonl(tmp_path, [FAULTS["no prompt"], *rows()])
    with serving(tmp_path) as server:
        code, _, err = run(*arguments(server, paths, tmp_path, *SLOWLY))
        assert not server.chats()
    assert code == 3
    assert "in.jsonl:1: " in err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_however_a_run_ends_nothing_is_left_of_it(tmp_path: Path, number):
    # So many lines that reading them takes longer than anything here.
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"id":"q-{n}","prompt":"question"}}\n' for n in range(1_200_000)))
    with serving(tmp_path) as server:
        process = start_run(server, path, tmp_path / "out.jsonl", *SLOWLY)
        wait_until(lambda: children_of(process.pid, CHILD))
        (child,) = children_of(process.pid, CHILD)
        server.wait_for_chats(1)
        assert is_running(child)
        kill(process, number)
        code, _, _ = finish(process)
        wait_until(lambda: not is_running(child))
    assert code == (-9 if number == signal.SIGKILL else 143)
