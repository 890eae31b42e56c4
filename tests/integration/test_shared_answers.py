"""``dedup`` and ``reuse``: what asks the same is sent once, every prompt has its line, nothing is taken for another."""

import asyncio
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError
from batchchat.jsonl import dump_line
from batchchat.shared_answers import AnswerStore
from tests.integration.test_run_job import Listener, asked, run
from tests.runs import read_lines


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(map(dump_line, lines)))
    return path


def same(count: int, text: str = "same", **more: Any) -> list[dict[str, Any]]:
    return [{"id": n, "prompt": text} | more for n in range(count)]


async def ask(server: DevServer, folder: Path, *lines: dict[str, Any], to: str = "results.jsonl", **settings: Any):
    prompts = write(folder / "prompts.jsonl", *lines)
    settings = {"provider__name": "openai", "provider__model": "m"} | settings
    return await run(server, prompts, folder / to, **settings)


@pytest.mark.parametrize("order", ["completion", "input"])
@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_equal_prompts_are_sent_once_and_each_has_its_line(tmp_path, order: str, concurrency: int):
    lines = [{"id": f"{n}-{k}", "prompt": f"question {k}"} for n in range(20) for k in range(3)]
    async with DevServer(Scenario(latency_ms=5)) as server:
        report = await ask(server, tmp_path, *lines, dedup=True, output__order=order, concurrency=concurrency)
        assert sorted(asked(server).values()) == [1, 1, 1]
    answers = read_lines(tmp_path / "results.jsonl")
    assert report.exit_code == 0
    assert (report.answered, report.reused) == (60, 57)
    assert {line["id"]: line["response"] for line in answers} == {
        line["id"]: f"Echo: {line['prompt']}" for line in lines
    }
    if order == "input":
        assert [line["index"] for line in answers] == list(range(60))
    taken = [line for line in answers if "reused_from" in line]
    assert len(taken) == 57
    assert all(line["attempts"] == 0 and line["usage"] is None and line["latency_s"] is None for line in taken)
    sent = {line["id"] for line in answers} - {line["id"] for line in taken}
    assert {line["reused_from"]["id"] for line in taken} == sent
    assert sum(line["usage"]["input_tokens"] for line in answers if line["usage"]) == report.usage.input_tokens


async def test_without_it_equal_prompts_are_sent_each(tmp_path):
    async with DevServer() as server:
        await ask(server, tmp_path, *same(5))
        assert asked(server)["same"] == 5


async def test_what_differs_in_anything_that_counts_is_not_the_same(tmp_path):
    lines = [
        {"id": 1, "prompt": "same"},
        {"id": 2, "prompt": "same", "system": "short"},
        {"id": 3, "prompt": "same", "model": "other"},
        {"id": 4, "prompt": "same", "params": {"temperature": 1}},
        {"id": 5, "prompt": "same "},
        {"id": 6, "prompt": "same", "topic": "a field that is not asked"},
    ]
    async with DevServer() as server:
        report = await ask(server, tmp_path, *lines, dedup=True)
        assert len(server.chats) == 5
        assert report.reused == 1
    assert read_lines(tmp_path / "results.jsonl")[-1]["input"] is not None


async def test_conversations_under_an_id_of_their_own_are_all_asked(tmp_path):
    async with DevServer() as server:
        await ask(server, tmp_path, *same(4, chat_id="talk"), dedup=True)
        assert len(server.chats) == 4


async def test_a_failure_is_that_of_all_equal_prompts_and_counts_for_each(tmp_path):
    async with DevServer(Scenario(error_500=1.0, latency_ms=20)) as server:
        report = await ask(server, tmp_path, *same(6), dedup=True, retry__retries=0)
        assert len(server.chats) == 1
        assert report.failed == 6
    errors = read_lines(tmp_path / "results.errors.jsonl")
    assert {line["id"] for line in errors} == set(range(6))
    assert {line["error"]["type"] for line in errors} == {"server"}
    async with DevServer(Scenario(error_500=1.0, latency_ms=20)) as server:
        report = await ask(server, tmp_path, *same(60), dedup=True, retry__retries=0, stop__max_failures=3)
        assert report.exit_code == 5


async def test_answers_of_an_earlier_run_of_the_same_file_count(tmp_path):
    async with DevServer() as server:
        await ask(server, tmp_path, *same(3), dedup=True, limit=1)
        report = await ask(server, tmp_path, *same(3), dedup=True)
        assert len(server.chats) == 1
        assert (report.answered_before, report.reused) == (1, 2)
    assert [line.get("reused_from") for line in read_lines(tmp_path / "results.jsonl")] == [None, {"id": 0}, {"id": 0}]


async def test_a_run_that_is_stopped_gives_no_line_to_what_was_not_answered(tmp_path):
    async with DevServer(Scenario(stall_before=1.0)) as server:
        report = await ask(server, tmp_path, *same(10), dedup=True, timeout__run=0.3, grace=0.1)
        assert report.exit_code == 5
        assert report.pending == 10
    assert read_lines(tmp_path / "results.jsonl") == []


@pytest.mark.parametrize("form", ["flat", "openai-batch"])
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
async def test_answers_of_another_run_are_taken_whatever_their_ids(tmp_path, form: str, ending: str):
    old = f"old.{ending}"
    async with DevServer() as server:
        await ask(
            server, tmp_path, *({"id": f"o-{n}", "prompt": f"p {n}"} for n in range(4)), to=old, output__format=form
        )
        lines = [{"id": n, "prompt": f"p {n}", "note": n} for n in range(6)]
        report = await ask(server, tmp_path, *lines, reuse=[str(tmp_path / old)])
        assert (report.answered, report.reused) == (6, 4)
        assert max(asked(server).values()) == 1
    for line in read_lines(tmp_path / "results.jsonl"):
        assert line["response"] == f"Echo: p {line['id']}"
        assert line["input"]["note"] == line["id"]
        origin = {"id": f"o-{line['id']}", "path": str(tmp_path / old)} if line["id"] < 4 else None
        assert line.get("reused_from") == origin


async def test_lines_that_are_no_answers_are_told_and_passed_over(tmp_path):
    listener = Listener()
    async with DevServer() as server:
        await ask(server, tmp_path, {"id": 1, "prompt": "a"}, to="old.jsonl")
        with (tmp_path / "old.jsonl").open("ab") as stream:
            stream.write(b'{"id": 2, "response": "of another tool"}\n{"id": 3, "resp')
        report = await ask(
            server, tmp_path, {"id": 9, "prompt": "a"}, reuse=[str(tmp_path / "old.jsonl")], listener=listener
        )
        assert report.reused == 1
    assert any("2 of its lines hold no answer" in notice for notice in listener.notices)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b'{"id": 1, "prompt": "x"}\n', "expected results"),
        (b"\x1f\x8b\x08\x00", "let the name end in .gz"),
    ],
)
async def test_a_file_that_holds_no_results_is_refused_before_anything_is_sent(tmp_path, content, words: str):
    old = tmp_path / "old.jsonl"
    if content is not None:
        old.write_bytes(content)
    async with DevServer() as server:
        with pytest.raises(ConfigError, match=words):
            await ask(server, tmp_path, {"id": 1, "prompt": "x"}, reuse=[str(old)])
        assert server.chats == []


async def test_the_own_results_are_no_other_run(tmp_path):
    async with DevServer() as server:
        await ask(server, tmp_path, {"id": 1, "prompt": "x"})
        with pytest.raises(ConfigError, match="results"):
            await ask(server, tmp_path, {"id": 1, "prompt": "x"}, reuse=[str(tmp_path / "results.jsonl")])


async def test_a_reused_answer_can_be_reused_again_and_names_its_first_place(tmp_path):
    async with DevServer() as server:
        await ask(server, tmp_path, {"id": "a", "prompt": "x"}, to="one.jsonl")
        await ask(server, tmp_path, {"id": "b", "prompt": "x"}, to="two.jsonl", reuse=[str(tmp_path / "one.jsonl")])
        await ask(server, tmp_path, {"id": "c", "prompt": "x"}, to="three.jsonl", reuse=[str(tmp_path / "two.jsonl")])
        assert len(server.chats) == 1
    (line,) = read_lines(tmp_path / "three.jsonl")
    assert line["reused_from"] == {"id": "a", "path": str(tmp_path / "one.jsonl")}


async def test_the_expression_of_now_reads_the_answer_of_then(tmp_path):
    async with DevServer(Scenario(replies=('{"a": 1, "b": 2}',))) as server:
        await ask(server, tmp_path, {"id": 1, "prompt": "x"}, to="old.jsonl", answer__extract="a")
        await ask(server, tmp_path, {"id": 1, "prompt": "x"}, answer__extract="b", reuse=[str(tmp_path / "old.jsonl")])
    assert read_lines(tmp_path / "results.jsonl")[0]["value"] == 2


async def test_equal_turns_and_tool_calls_are_shared_too(tmp_path):
    lines = [{"id": n, "turns": ["one", "two"]} for n in range(3)]
    async with DevServer(Scenario(latency_ms=5)) as server:
        await ask(server, tmp_path, *lines, dedup=True)
        assert len(server.chats) == 2
    assert [line["responses"] for line in read_lines(tmp_path / "results.jsonl")] == [["Echo: one", "Echo: two"]] * 3
    async with DevServer(Scenario(tool_call=1.0)) as server:
        await ask(server, tmp_path, *same(3), dedup=True, to="tools.jsonl")
        assert len(server.chats) == 1
    assert all(line["tool_calls"] for line in read_lines(tmp_path / "tools.jsonl"))


async def test_a_deadline_that_one_misses_is_missed_by_all_equal_ones(tmp_path):
    async with DevServer(Scenario(fail_first=1, fail_with="stall_before")) as server:
        async with asyncio.timeout(30):
            report = await ask(server, tmp_path, *same(5), dedup=True, timeout__prompt=0.5)
        assert report.failed == 5
        assert len(server.chats) == 1


async def test_what_does_not_fit_the_rule_of_now_is_asked_and_not_taken(tmp_path):
    lines = [{"id": n, "prompt": f"p {n}"} for n in range(3)]
    async with DevServer() as server:
        await ask(server, tmp_path, *lines, to="old.jsonl")
        server.scenario = Scenario(replies=('{"a": 1}',))
        report = await ask(server, tmp_path, *lines, answer__extract="a", reuse=[str(tmp_path / "old.jsonl")])
    assert (report.answered, report.reused) == (3, 0)
    assert [line["value"] for line in read_lines(tmp_path / "results.jsonl")] == [1, 1, 1]


async def test_without_a_rule_of_now_there_is_no_value_of_then(tmp_path):
    async with DevServer(Scenario(replies=('{"a": 1}',))) as server:
        await ask(server, tmp_path, {"id": 1, "prompt": "x"}, to="old.jsonl", answer__extract="a")
        report = await ask(server, tmp_path, {"id": 1, "prompt": "x"}, reuse=[str(tmp_path / "old.jsonl")])
    assert report.reused == 1
    (line,) = read_lines(tmp_path / "results.jsonl")
    assert line["response"] == '{"a": 1}'
    assert "value" not in line
    assert "parsed" not in line


@pytest.mark.parametrize("broken", ["folder", "no gzip", "no results"])
async def test_a_file_that_cannot_be_reused_leaves_the_files_of_the_run_as_they_were(tmp_path, broken: str):
    old = tmp_path / ("old.gz" if broken == "no gzip" else "old")
    if broken == "folder":
        old.mkdir()
    else:
        old.write_bytes(b'{"id": 1}\n')
    async with DevServer(Scenario(error_500=1.0)) as server:
        await ask(server, tmp_path, *same(3), retry__retries=0)
        before = {path: path.read_bytes() for path in tmp_path.glob("results*")}
        with pytest.raises(ConfigError, match="reuse"):
            await ask(server, tmp_path, *same(3), reuse=[str(old)])
    assert {path: path.read_bytes() for path in tmp_path.glob("results*")} == before


async def test_the_first_file_that_has_an_answer_counts_and_a_pipe_is_a_file(tmp_path):
    async with DevServer() as server:
        await ask(server, tmp_path, {"id": "a", "prompt": "x"}, to="one.jsonl")
        await ask(server, tmp_path, *({"id": n, "prompt": n} for n in "xyz"), to="two.jsonl")
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=((tmp_path / "two.jsonl").read_bytes(),))
        writer.start()
        reuse = [str(tmp_path / "one.jsonl"), str(pipe), str(tmp_path / "one.jsonl")]
        report = await ask(server, tmp_path, *({"id": n, "prompt": n} for n in "xyz"), reuse=reuse, dedup=True)
        writer.join()
        assert len(server.chats) == 4
    assert report.reused == 3
    assert {line["id"]: line["reused_from"] for line in read_lines(tmp_path / "results.jsonl")} == {
        "x": {"id": "a", "path": reuse[0]},
        "y": {"id": "y", "path": reuse[1]},
        "z": {"id": "z", "path": reuse[1]},
    }


async def test_ids_of_both_types_are_named_as_they_are(tmp_path):
    async with DevServer(Scenario(latency_ms=20)) as server:
        await ask(server, tmp_path, {"id": 1, "prompt": "x"}, {"id": "1", "prompt": "x"}, dedup=True)
        assert len(server.chats) == 1
    first, second = read_lines(tmp_path / "results.jsonl")
    assert repr(second["reused_from"]["id"]) == repr(first["id"])
    assert repr(first["id"]) != repr(second["id"])


async def test_answers_that_the_temporary_folder_does_not_take_are_asked_again_and_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    listener = Listener()
    async with DevServer() as server:
        report = await ask(server, tmp_path, *same(20), dedup=True, concurrency=1, listener=listener)
        assert len(server.chats) > 1
    assert (report.exit_code, report.answered) == (0, 20)
    assert sum("temporary folder" in notice for notice in listener.notices) == 1


async def test_an_answer_asked_for_again_is_shared_and_paid_once(tmp_path):
    lines = [{"id": n, "prompt": "same"} for n in range(5)]
    async with DevServer(Scenario(replies=("no", '{"a": 1}'), latency_ms=10)) as server:
        report = await ask(server, tmp_path, *lines, dedup=True, answer__schema={"required": ["a"]})
        assert len(server.chats) == 2
    assert (report.answered, report.reused) == (5, 4)
    assert [line["parsed"] for line in read_lines(tmp_path / "results.jsonl")] == [{"a": 1}] * 5


def test_reading_many_answers_ends_soon_after_a_stop(tmp_path):
    lines = ({"id": n, "response": "x", "fingerprint": f"{n:016x}"} for n in range(5000))
    old = write(tmp_path / "old.jsonl", *lines)
    with AnswerStore() as store:
        assert store.load([str(old)], None, cancelled=lambda: len(store) >= 1000) == []
        assert 1000 <= len(store) < 2000
        assert store.get(f"{7:016x}").reused_from == {"id": 7, "path": str(old)}
        assert store.get(f"{4000:016x}") is None
