"""Real runs in and out of their windows; the child's time zone makes it the time of day that a test needs."""

import os
import signal
import time
from typing import Any

import pytest

from tests.runs import (  # fmt: skip
    assert_all_answered,
    finish,
    kill,
    read_lines,
    serving,
    start_run,
    wait_until,
    write_prompts,
)


def zone_where_it_is(seconds_of_day: int) -> dict[str, str]:
    """An environment in which a clock on the wall shows this time now."""
    ahead = (seconds_of_day - int(time.time()) % 86400) % 86400
    ahead -= 86400 if ahead > 43200 else 0
    sign = "-" if ahead > 0 else "+"  # POSIX counts to the west
    hours, rest = divmod(abs(ahead), 3600)
    return {**os.environ, "TZ": f"TST{sign}{hours:02}:{rest // 60:02}:{rest % 60:02}"}


def start(server: Any, folder: Any, count: int, seconds_of_day: int, *more: str) -> Any:
    prompts = write_prompts(folder / "prompts.jsonl", count)
    return start_run(
        server,
        prompts,
        folder / "results.jsonl",
        "--window",
        "22:00-06:00",
        *more,
        env=zone_where_it_is(seconds_of_day),
    )


# So long that a busy machine has begun the run before.
NEARLY_TEN = 22 * 3600 - 10


def test_run_started_too_early_waits_and_goes_on_by_itself(tmp_path) -> None:
    with serving(tmp_path) as server:
        process = start(server, tmp_path, 5, NEARLY_TEN)
        wait_until((tmp_path / "results.jsonl").exists)
        opened = time.time()
        code, _, err = finish(process)
        assert all(request["at"] >= opened for request in server.requests())
    assert code == 0, err
    assert_all_answered(tmp_path / "results.jsonl", range(5))
    assert "nothing new is sent until 22:00: it is outside the window 22:00-06:00" in err
    assert "the window is open until " in err


def test_waiting_run_holds_its_results_and_has_checked_its_input(tmp_path) -> None:
    with serving(tmp_path) as server:
        process = start(server, tmp_path, 2, 12 * 3600)
        wait_until((tmp_path / "results.run.json").exists)
        second = start(server, tmp_path, 2, 12 * 3600)
        assert finish(second)[0] == 75
        kill(process, signal.SIGTERM)
        code, _, err = finish(process)
        assert server.requests() == []
    assert code == 143, err
    assert "to resume: " in err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "prompts.jsonl").write_text("{]\n")
    arguments = [
        str(tmp_path / "bad" / "prompts.jsonl"),
        "-o",
        str(tmp_path / "bad" / "r.jsonl"),
        "--window",
        "22:00-06:00",
    ]
    process = start_run(
        "http://127.0.0.1:9", *arguments[:1], arguments[2], *arguments[3:], env=zone_where_it_is(12 * 3600)
    )
    assert finish(process)[0] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_signals_end_a_waiting_run_at_once(tmp_path, number: int, code: int) -> None:
    with serving(tmp_path) as server:
        process = start(server, tmp_path, 2, 12 * 3600)
        wait_until((tmp_path / "results.run.json").exists)
        kill(process, number)
        assert finish(process)[0] == code
        assert server.requests() == []


def test_deadline_of_the_run_counts_while_it_waits(tmp_path) -> None:
    with serving(tmp_path) as server:
        code, _, err = finish(start(server, tmp_path, 2, 12 * 3600, "--deadline", "1s"))
        assert server.requests() == []
    assert (code, "to resume: " in err) == (5, True), err


def test_closing_window_lets_what_is_on_the_wire_finish_and_sends_nothing_new(tmp_path) -> None:
    """At 05:59:52 four are on the wire, with answers that take longer than until six."""
    with serving(tmp_path, delta_interval_ms=4000) as server:
        process = start(server, tmp_path, 12, 6 * 3600 - 8, "--concurrency", "4")
        wait_until(lambda: (tmp_path / "results.jsonl").exists() and len(read_lines(tmp_path / "results.jsonl")) >= 4)
        time.sleep(0.5)
        kill(process, signal.SIGINT)
        code, _, err = finish(process)
        assert len(server.chats()) == 4
    assert code == 130
    assert_all_answered(tmp_path / "results.jsonl", range(4))
    assert "nothing new is sent until 22:00" in err
