"""The summary file, and who holds the results by what it says."""

import os

import orjson
import pytest

from batchchat.results import process_keys, read_summary, write_summary
from batchchat.results.lock import read_holder


def test_summary_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "r.run.json"
    assert write_summary(str(path), {"reason": "completed", "numbers": [2**70]}) is None
    assert write_summary(str(path), {"reason": "failures", "word": "schön"}) is None
    assert read_summary(str(path)) == {"reason": "failures", "word": "schön"}
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    assert os.listdir(tmp_path) == ["r.run.json"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_summary_that_cannot_be_written_is_a_sentence(tmp_path):
    path = tmp_path / "missing" / "r.run.json"
    assert write_summary(str(path), {}) == f"{path}: the summary cannot be written: No such file or directory"
    assert write_summary("/dev/full", {}) == "/dev/full: the summary cannot be written: No space left on device"
    assert write_summary("/dev/null", {}) is None


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff"])
def test_unreadable_summary_is_none(tmp_path, content):
    path = tmp_path / "r.run.json"
    if content is not None:
        path.write_bytes(content)
    assert read_summary(str(path)) is None


@pytest.mark.parametrize(
    "change",
    [{"finished_at": "2026-11-25T10:05:00Z"}, {"pid": None}, {"pid": 2**22 + 1}],
    ids=["ended", "no process", "dead"],
)
def test_holder_is_only_told_where_it_can_be_true(tmp_path, change):
    path = tmp_path / "r.run.json"
    running = {**process_keys(), "started_at": "2026-11-25T10:00:00Z", "finished_at": None}
    path.write_bytes(orjson.dumps(running))
    assert str(read_holder(str(path))).startswith(f"process {os.getpid()} on ")
    path.write_bytes(orjson.dumps({**running, **change}))
    assert read_holder(str(path)) is None
