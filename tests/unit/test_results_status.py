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


def test_rate_leaves_out_the_time_between_runs(tmp_path):
    """Three answers of yesterday, and then one every two seconds."""
    path = tmp_path / "r.jsonl"
    began = FINISHED_AT + timedelta(days=1)
    times = [FINISHED_AT + timedelta(seconds=n) for n in range(3)]
    times += [began + timedelta(seconds=second) for second in (2, 4, 6, 8)]
    path.write_bytes(b"".join(answer(number, finished_at=time) for number, time in enumerate(times)))
    files = name_files(str(path))
    write_summary(files.summary, {"started_at": began})
    assert read_status(files).rate_per_s == 0.5


@pytest.mark.parametrize("started", ["yesterday", 7, None, "2026-11-25T10:03:11", "9999-12-31T23:59:59Z"])
def test_start_that_cannot_be_true_leaves_the_rate_between_first_and_last(tmp_path, started):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer(1) + answer(2, finished_at=FINISHED_AT + timedelta(seconds=2)))
    files = name_files(str(path))
    write_summary(files.summary, {"started_at": started})
    assert read_status(files).rate_per_s == 0.5


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
