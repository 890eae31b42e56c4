"""A results file that grows is counted as if it were read anew, and what was read is not read again."""

import gzip
import os
from pathlib import Path

import pytest

from batchchat.errors import ConfigError, ResultsFileError
from batchchat.results import counting, name_files, read_status
from batchchat.results.following import FollowedStatus, _Place
from tests.result_lines import answer, failure


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl"


def followed(path: Path) -> FollowedStatus:
    return FollowedStatus(name_files(str(path)))


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


LINES = [
    answer("a"),
    answer("b", "line\u2028separator"),
    answer(7),
    answer("a", "again"),
    b"\n",
    b"torn{\n",
    answer("last"),
]


@pytest.mark.parametrize("piece_bytes", [1, 7, 100, 1000, 100_000])
def test_whatever_pieces_a_file_grows_by_the_counts_are_those_of_a_whole_read(path: Path, piece_bytes: int) -> None:
    whole, errors = b"".join(LINES), path.with_name("r.errors.jsonl.part")
    path.touch()
    status = followed(path)
    for start in range(0, len(whole), piece_bytes):
        append(path, whole[start : start + piece_bytes])
        if start % (piece_bytes * 5) == 0:
            append(errors, failure(f"f-{start % 3}"))
        found = status.read()
        if path.read_bytes().endswith(b"\n"):
            assert found == read_status(name_files(str(path)))
    assert (found.completed, found.duplicate_ids, found.torn_lines) == (4, 1, 1)


def test_what_was_read_is_not_read_again(path: Path) -> None:
    path.write_bytes(answer("a") * 50 + answer("b"))
    status = followed(path)
    assert status.read().completed == 2
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"x" * size)  # no run does so: it shows that nobody looks there
    append(path, answer("c"))
    assert status.read().completed == 3


@pytest.mark.parametrize("how", ["shorter", "replaced"])
def test_file_that_is_another_one_is_read_anew(path: Path, how: str) -> None:
    path.write_bytes(answer("a") + answer("b"))
    status = followed(path)
    assert status.read().completed == 2
    if how == "shorter":
        path.write_bytes(answer("c"))
    else:
        path.with_name("new").write_bytes(answer("c") + answer("d") + answer("e"))
        os.replace(path.with_name("new"), path)
    assert status.read() == read_status(name_files(str(path)))


def test_failures_of_the_next_run_take_the_place_of_those_before(path: Path) -> None:
    path.write_bytes(answer("a"))
    errors = path.with_name("r.errors.jsonl")
    errors.write_bytes(failure("b") + failure("c"))
    status = followed(path)
    assert status.read().failures == {"server": 2}
    path.with_name("r.errors.jsonl.part").write_bytes(failure("b"))
    assert status.read().failures == {"server": 1}
    path.with_name("r.errors.jsonl.part").unlink()
    errors.unlink()
    assert status.read().failed == 0


def test_compressed_file_is_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(answer("a")))
    status = followed(path)
    assert status.read().completed == 1
    append(path, gzip.compress(answer("b")))
    assert status.read().completed in (1, 2), "it is read anew as a whole, but seldom"


def test_what_cannot_be_followed_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResultsFileError, match=r"r\.jsonl: there is no such results file"):
        followed(tmp_path / "r.jsonl").read()
    with pytest.raises(ConfigError, match="- is no file"):
        FollowedStatus(name_files("-")).read()
    (tmp_path / "x.jsonl").write_bytes(b'{"name": 1}\n')
    with pytest.raises(ResultsFileError, match=r"x\.jsonl:1: expected a result"):
        followed(tmp_path / "x.jsonl").read()


@pytest.mark.parametrize("at_end", [0, 1])
def test_the_moment_at_which_an_errors_file_gets_its_name_shows_all_failures(
    path: Path, at_end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is asked for first; it may be another before what was read is looked up, or before it is read on."""
    path.write_bytes(answer("a"))
    errors, part = path.with_name("r.errors.jsonl"), path.with_name("r.errors.jsonl.part")
    part.write_bytes(failure("b") + failure("c"))
    status = followed(path)
    assert status.read().failed == 2
    append(part, failure("d"))
    name = ("is_gone", "new_lines")[at_end]
    asked = getattr(_Place, name)

    def renamed_before(place: _Place, asked_for: str) -> object:
        if asked_for == str(part) and part.exists():
            part.rename(errors)
        return asked(place, asked_for)

    monkeypatch.setattr(_Place, name, renamed_before)
    assert status.read().failed == 3
    assert errors.exists()


def test_a_whole_read_at_that_moment_shows_all_failures_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(answer("a"))
    errors, part = path.with_name("r.errors.jsonl"), path.with_name("r.errors.jsonl.part")
    part.write_bytes(failure("b"))
    read = counting.read_lines

    def renamed_before(asked_for: str, name: str) -> object:
        if asked_for == str(part):
            part.rename(errors)
        return read(asked_for, name)

    monkeypatch.setattr(counting, "read_lines", renamed_before)
    assert read_status(name_files(str(path))).failed == 1
    assert errors.exists()
