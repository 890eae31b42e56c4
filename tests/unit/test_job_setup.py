"""What a run is told of its surroundings before it sends anything."""

from pathlib import Path

from batchchat.job_setup import space_warning
from batchchat.results import run_files


def test_disk_that_cannot_hold_the_answers_is_told(tmp_path: Path) -> None:
    files = run_files(str(tmp_path / "results.jsonl"))
    assert space_warning(files, 10) is None
    warning = space_warning(files, 10**15)
    assert warning is not None
    assert "results.jsonl" in warning
    assert "free" in warning


def test_stream_has_no_disk_to_fill() -> None:
    assert space_warning(run_files("-"), 10**15) is None
