"""What a run is told of its surroundings before it sends anything."""

from pathlib import Path

import pytest

from batchchat.config import load_job
from batchchat.errors import ConfigError
from batchchat.job_setup import checked_files, space_warning
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


@pytest.mark.parametrize("name", ["shots.jsonl", "parts/t.j2", "s.j2", "long.j2"])
@pytest.mark.parametrize("option", ["output.path", "errors", "summary"])
def test_what_makes_the_prompts_is_never_written(tmp_path: Path, name: str, option: str) -> None:
    (tmp_path / "job.yaml").write_text(
        f"input: in.jsonl\noutput: {{path: {tmp_path / 'r.jsonl'}}}\n"
        f"prompt: {{templates: {{a: {{file: parts/t.j2}}, b: {{file: long.j2}}}}, system: {{file: s.j2}}, "
        f"examples: {tmp_path / 'shots.jsonl'}}}\n"
    )
    checked_files(load_job(str(tmp_path / "job.yaml"), environ={}))
    with pytest.raises(ConfigError, match=r"both input and results file|is an input and would be overwritten"):
        checked_files(load_job(str(tmp_path / "job.yaml"), {option: str(tmp_path / name)}, environ={}))
