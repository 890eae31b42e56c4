"""What ``read_status`` tells of results, also of those that a run is writing."""

import gzip
from datetime import timedelta

import pytest

from batchchat.errors import ConfigError, ResultsFileError
from batchchat.jsonl import dump_line
from batchchat.records import InputFault, Prompt
from batchchat.results import (
    ErrorsWriter,
    ResultsWriter,
    name_files,
    open_journal,
    outcome_to_batch_object,
    outcome_to_object,
    process_keys,
    read_status,
    run_files,
    write_summary,
)
from tests.result_lines import FINISHED_AT, answer, answered, failure


def prompts(*ids):
    return [Prompt(id=name, index=index, line_number=index + 1, messages=[]) for index, name in enumerate(ids)]


def test_counts_against_the_input(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + answer(2) + answer("gone"))
    (tmp_path / "r.errors.jsonl").write_bytes(failure("c") + failure("a"))
    fault = InputFault(path="in.jsonl", line_number=5, index=4, reason="found a list, expected an object")
    status = read_status(name_files(str(path)), [*prompts("a", 2, "c", "d"), fault])
    assert (status.total, status.completed, status.failed, status.pending) == (5, 2, 1, 2)
    assert status.unknown_ids == 1
    assert status.failures == {"server": 1}
    assert (status.usage.input_tokens, status.usage.output_tokens) == (27, 240)
    assert status.running is None


def test_without_input_ids_are_counted(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + b"garbage\n" + answer("a") + answer("b")[:-9])
    status = read_status(name_files(str(path)))
    assert (status.total, status.completed, status.pending, status.unknown_ids) == (None, 1, None, None)
    assert (status.duplicate_ids, status.torn_lines) == (1, 2)
    assert path.read_bytes() == answer("a") + b"garbage\n" + answer("a") + answer("b")[:-9]


@pytest.mark.parametrize("build", [outcome_to_object, outcome_to_batch_object])
def test_rate_is_that_between_first_and_last_answer(tmp_path, build):
    path = tmp_path / "r.jsonl.gz"
    times = [FINISHED_AT + timedelta(seconds=second) for second in (4, 0, 2)]
    lines = [dump_line(build(answered(number, finished_at=time))) for number, time in enumerate(times)]
    path.write_bytes(gzip.compress(b"".join(lines)))
    status = read_status(name_files(str(path)))
    assert status.rate_per_s == 0.5
    assert (status.first_finished_at, status.last_finished_at) == (times[1], times[0])
    assert status.usage.input_tokens == 27


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
async def test_running_run_is_told_and_not_disturbed(tmp_path, ending):
    files = run_files(str(tmp_path / f"r.jsonl{ending}"))
    writer, errors = ResultsWriter(open_journal(files)), ErrorsWriter(files.errors)
    write_summary(files.summary, {**process_keys(), "started_at": "2026-11-25T10:00:00Z"})
    await writer.write(answer("a"))
    await errors.write(failure("b"))
    with open(files.results, "ab") as torn:
        torn.write(b'{"id":"c","re' if not ending else gzip.compress(answer("c"))[:20])
    status = read_status(files)
    assert (status.completed, status.failed) == (1, 1)
    assert status.running is not None
    assert status.running.since == "2026-11-25T10:00:00Z"
    if not ending:
        assert status.torn_lines == 0
    await writer.write(answer("d"))
    await errors.close()
    await writer.close()
    assert read_status(files).running is None


def test_failures_of_a_killed_run_are_in_its_part_file(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a"))
    (tmp_path / "r.errors.jsonl").write_bytes(failure("a"))
    (tmp_path / "r.errors.jsonl.part").write_bytes(failure("b") + failure("c")[:10])
    status = read_status(name_files(str(path)))
    assert status.failures == {"server": 1}


def test_what_is_no_results_file_is_refused(tmp_path):
    with pytest.raises(ResultsFileError, match="no such results file") as caught:
        read_status(name_files(str(tmp_path / "r.jsonl")))
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r.jsonl").write_bytes(b'{"question":"Why?"}\n')
    with pytest.raises(ResultsFileError, match=r"r\.jsonl:1: expected a result"):
        read_status(name_files(str(tmp_path / "r.jsonl")))
    with pytest.raises(ResultsFileError, match="cannot be read"):
        read_status(name_files(str(tmp_path)))
    with pytest.raises(ConfigError, match="- is no file"):
        read_status(name_files("-"))
