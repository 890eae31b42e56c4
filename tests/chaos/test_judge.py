"""The judge of the chaos suite sees each kind of broken promise; without that, a table of zeros says nothing."""

import json
import time
from pathlib import Path

import pytest

from tests.chaos.server_log import note_end_of_server
from tests.chaos.world import KEY, World

ANSWER = '{"id": "q-%d", "response": "Echo: question %d", "error": null}\n'


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 1)
    world.write_prompts(3)
    world.logs = [tmp_path / "server.log"]
    world.results.write_text("".join(ANSWER % (n, n) for n in range(3)))
    world.beside(".errors.jsonl").write_text("")
    world.beside(".run.json").write_text('{"answered_before": 0, "answered": 3, "failed": 0}')
    serve(world, [chat(n, f"question {n}") for n in range(3)])
    return world


def chat(
    number: int, prompt: str, *, at: float | None = None, took: float = 0.01, delivered: bool = True
) -> list[dict]:
    begun = number * 0.1 if at is None else at
    request = {"kind": "chat", "number": number, "time_s": begun, "prompt": prompt, "status": 200, "fault": None}
    return [request, {"kind": "end", "number": number, "time_s": begun + took, "delivered": delivered}]


def serve(world: World, chats: list[list[dict]]) -> None:
    world.logs[0].write_text("".join(json.dumps(line) + "\n" for lines in chats for line in lines))


def counts(world: World) -> dict[str, int]:
    world.judge()
    verdict = world.verdict
    names = ("lost", "duplicated", "wrong", "asked_twice", "asked_twice_beyond", "limit_broken")
    return {name: getattr(verdict, name) for name in names if getattr(verdict, name)}


def test_nothing_is_found_where_all_is_well(world: World) -> None:
    assert counts(world) == {}


def test_missing_line_is_lost(world: World) -> None:
    world.results.write_text(ANSWER % (0, 0) + ANSWER % (1, 1))
    world.beside(".run.json").write_text('{"answered_before": 0, "answered": 2, "failed": 0}')
    assert counts(world) == {"lost": 1}


def test_line_that_went_away_is_lost(world: World) -> None:
    world.look()
    world.results.write_text("")
    world.look()
    assert world.verdict.lost == 3


def test_second_line_is_duplicated(world: World) -> None:
    with world.results.open("a") as file:
        file.write(ANSWER % (1, 1))
    assert counts(world) == {"duplicated": 1}


@pytest.mark.parametrize(
    "line",
    [
        ANSWER % (1, 2),
        '{"id": "q-1", "response": null, "error": {"type": "server"}}\n',
        '{"id": "q-1", "response": "Echo: question 1"\n',
        ANSWER % (7, 7),
    ],
)
def test_line_that_is_not_the_answer_is_wrong(world: World, line: str) -> None:
    world.results.write_text(ANSWER % (0, 0) + line + ANSWER % (2, 2))
    world.judge()
    assert world.verdict.wrong


def test_torn_tail_at_the_end_is_wrong(world: World) -> None:
    with world.results.open("a") as file:
        file.write('{"id": "q')
    assert counts(world) == {"wrong": 1}


def test_files_that_tell_otherwise_are_wrong(world: World) -> None:
    world.beside(".errors.jsonl").write_text('{"id": "q-1"}\n')
    world.beside(".run.json").write_text('{"answered_before": 0, "answered": 2, "failed": 1}')
    assert counts(world) == {"wrong": 2}


def test_answer_paid_for_twice_is_seen_and_allowed_once_for_a_death(world: World) -> None:
    serve(world, [*(chat(n, f"question {n}") for n in range(3)), chat(3, "question 1"), chat(4, "question 2")])
    world.in_flight_when_killed["question 2"] = 1
    assert counts(world) == {"asked_twice": 1, "asked_twice_beyond": 1}


def test_answer_that_was_not_sent_whole_is_not_paid_for(world: World) -> None:
    serve(world, [*(chat(n, f"question {n}") for n in range(3)), chat(3, "question 1", delivered=False)])
    assert counts(world) == {}


def test_death_that_costs_more_than_was_in_flight_is_seen(world: World) -> None:
    world.concurrency = 1
    world.results.write_text("")
    world.note_death()
    assert world.verdict.lost == 2


def test_full_window_and_too_many_at_a_time_are_seen(world: World) -> None:
    world.rates, world.concurrency = [(2, 1.0)], 1
    serve(world, [chat(n, f"question {n}", at=n * 0.3, took=0.5) for n in range(3)])
    assert counts(world) == {"limit_broken": 2}


def test_server_that_ends_has_nothing_in_flight_any_more(world: World) -> None:
    world.concurrency = 2
    open_still = [chat(n, f"question {n}")[:1] for n in range(2)]
    serve(world, open_still)
    note_end_of_server(world.logs[0])
    after = chat(2, "question 2", at=time.monotonic())
    world.logs[0].write_text(world.logs[0].read_text() + "".join(json.dumps(line) + "\n" for line in after))
    assert counts(world) == {}
    serve(world, [*open_still, after])
    assert counts(world) == {"limit_broken": 1}


def test_run_that_ends_otherwise_than_documented_is_seen(world: World) -> None:
    code = "import sys; print('Traceback', file=sys.stderr); sys.exit(5)"
    world.end(world.start_command(["python3", "-c", code]), {0})
    assert (world.verdict.wrong_exit, world.verdict.wrong) == (1, 2), "the code, the traceback, no way to resume"


def test_command_that_resumes_is_missed_where_anything_is_left(world: World) -> None:
    world.beside(".run.json").write_text('{"pending": 0}')
    world.end(world.start_command(["sh", "-c", "exit 130"]), {130})
    assert not world.verdict.failed
    world.beside(".run.json").write_text('{"pending": 1}')
    world.end(world.start_command(["sh", "-c", "exit 130"]), {130})
    assert world.verdict.wrong == 1


def test_run_that_does_not_end_is_seen_and_ended(world: World) -> None:
    world.end(world.start_command(["sleep", "60"]), {0}, within_s=0.3)
    assert world.verdict.overdue == 1


@pytest.mark.parametrize("secret", [KEY, "nonce-0123"])
def test_secret_in_a_file_is_seen(world: World, secret: str) -> None:
    told = [{**request, "nonce": "nonce-0123"} for request in chat(9, "question 1")]
    serve(world, [told])
    (world.folder / "run-1.err").write_text(f"401 for {secret}\n")
    world.judge_secrets()
    assert world.verdict.wrong == 1


def test_cache_that_others_can_read_is_seen(world: World) -> None:
    (world.folder / "cache").mkdir()
    (world.folder / "cache" / "nonce.json").touch(0o644)
    world.judge_secrets()
    assert world.verdict.wrong == 1
