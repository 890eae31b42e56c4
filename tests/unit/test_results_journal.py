"""Opening a results file: what stays, what moves away, what is refused."""

import gzip
import os
from pathlib import Path

import pytest
import zstandard

from batchchat.errors import ConfigError, ResultsFileError, ResultsLockedError
from batchchat.jsonl import dump_line
from batchchat.results import (
    fingerprint_value,
    open_journal,
    outcome_to_batch_object,
    run_files,
    write_summary,
)
from batchchat.results.codec import Codec
from batchchat.results.summary import process_keys
from tests.result_lines import FINGERPRINT, answer, answered, failure


def opened(path: Path, **options):
    journal = open_journal(run_files(str(path)), **options)
    journal.close()
    return journal


def torn_of(path: Path) -> bytes:
    torn = path.with_suffix(".torn")
    return torn.read_bytes() if torn.exists() else b""


def test_missing_file_and_folder_are_made(tmp_path):
    path = tmp_path / "new" / "deep" / "r.jsonl"
    journal = opened(path)
    assert path.read_bytes() == b""
    assert journal.counts.answered == 0
    assert sorted(os.listdir(path.parent)) == ["r.jsonl"]


def test_answers_are_known_by_id_and_fingerprint(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + answer(7))
    journal = opened(path)
    assert journal.completed.get("a") == fingerprint_value(FINGERPRINT) == int(FINGERPRINT, 16)
    assert 7 in journal.completed
    assert "7" not in journal.completed
    assert journal.repairs == []


@pytest.mark.parametrize(
    "fingerprint",
    ["0" * 16, "F" * 16, "abcdef", "12 34 56 78 90ab", "-00000000000000f", "0x00000000000a1f", "g" * 16,
     "1234_5678_9abc_d", "é" * 16, "１" * 16, "", "a" * 17],
)  # fmt: skip
def test_odd_fingerprint_has_one_value_however_its_line_is_read(tmp_path, fingerprint):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a", fingerprint=fingerprint) + answer("b"))
    journal = opened(path)
    assert journal.completed.get("a") == fingerprint_value(fingerprint)
    assert "b" in journal.completed
    assert journal.repairs == []


def test_whole_last_line_without_line_end_is_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + answer("b")[:-1])
    journal = opened(path)
    assert path.read_bytes() == answer("a") + answer("b")
    assert [(repair.line_number, repair.bytes_moved) for repair in journal.repairs] == [(2, 0)]
    assert torn_of(path) == b""


def test_torn_last_line_moves_away(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + answer("b")[:40])
    journal = opened(path)
    assert path.read_bytes() == answer("a")
    assert torn_of(path) == answer("b")[:40] + b"\n"
    assert "b" not in journal.completed
    sentence = journal.repairs[0].sentence(journal.files)
    assert sentence == f"{path}:2: a torn last line; 40 bytes moved to {path.with_suffix('.torn')}"


@pytest.mark.parametrize(
    ("between", "moved"),
    [
        (b"\0" * 4096, b"\0" * 4096),
        (b"\0" * 10 + b"\n", b"\0" * 10),
        (b'{"id":"x","resp\n', b'{"id":"x","resp'),
        (b"\xff\xfe garbage\n", b"\xff\xfe garbage"),
        (answer("a"), answer("a")[:-1]),
        (failure("f"), failure("f")[:-1]),
    ],
    ids=["zeros before a line", "line of zeros", "torn line", "not UTF-8", "second line of an id", "failure"],
)
def test_what_is_no_answer_moves_away_and_neighbours_stay_byte_for_byte(tmp_path, between, moved):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + between + answer("b") + answer("c"))
    journal = opened(path)
    assert path.read_bytes() == answer("a") + answer("b") + answer("c")
    assert torn_of(path) == moved + b"\n"
    assert [repair.line_number for repair in journal.repairs] == [2]
    assert len(journal.completed) == 3
    assert sorted(os.listdir(tmp_path)) == ["r.jsonl", "r.torn"]


def test_zero_bytes_behind_a_whole_line_do_not_cost_its_answer(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + answer("b")[:-1] + b"\0" * 100)
    journal = opened(path)
    assert path.read_bytes() == answer("a") + answer("b")
    assert torn_of(path) == b"\0" * 100 + b"\n"
    assert "b" in journal.completed


@pytest.mark.parametrize("kept", range(13))
@pytest.mark.parametrize("zeros", [1, 25, 4096])
def test_first_line_that_ends_in_zero_bytes_wherever_it_was_cut_is_ours(tmp_path, kept, zeros):
    """After a power loss a file may have its length and only the first bytes of what was written to it."""
    path = tmp_path / "r.jsonl"
    content = answer("a")[:kept] + b"\0" * zeros
    path.write_bytes(content)
    journal = opened(path)
    assert path.read_bytes() == b""
    assert torn_of(path) == content + b"\n"
    assert len(journal.completed) == 0


def test_blank_lines_and_carriage_returns_are_left_alone(tmp_path):
    path = tmp_path / "r.jsonl"
    content = b"\xef\xbb\xbf" + answer("a")[:-1] + b"\r\n\n" + answer("b")
    path.write_bytes(content)
    journal = opened(path)
    assert path.read_bytes() == content
    assert len(journal.completed) == 2
    assert journal.repairs == []


def test_file_of_nothing_but_a_torn_first_line_is_ours(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a")[:5])
    assert len(opened(path).completed) == 0
    assert path.read_bytes() == b""
    assert torn_of(path) == answer("a")[:5] + b"\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"question":"Why?"}\n', "keys question"),
        (answer("a") + b"[1,2]\n", "r.jsonl:2:"),
        (b"Dear diary\nthis is text\n", "Dear diary"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (gzip.compress(answer("a"), mtime=0), "gz"),
        (zstandard.compress(answer("a")), "zst"),
    ],
)
def test_another_kind_of_file_is_refused_untouched(tmp_path, content, found):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(ResultsFileError) as caught:
        opened(path)
    assert found in str(caught.value)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_results_of_the_other_form_are_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    batch = dump_line(outcome_to_batch_object(answered("b")))
    path.write_bytes(batch)
    assert "b" in opened(path, form="openai-batch").completed
    with pytest.raises(ResultsFileError, match="--format openai-batch"):
        opened(path)
    path.write_bytes(answer("a") + batch)
    with pytest.raises(ResultsFileError, match="among lines of the form flat"):
        opened(path)
    assert path.read_bytes() == answer("a") + batch


def test_dropped_answers_go_to_the_torn_file(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(answer("a") + answer("b") + answer(3))
    journal = open_journal(run_files(str(path)))
    assert journal.drop(["b", 3, "missing"]) == 2
    assert path.read_bytes() == answer("a")
    assert torn_of(path) == answer("b") + answer(3)
    assert "b" not in journal.completed
    assert "a" in journal.completed
    with pytest.raises(ResultsLockedError):
        open_journal(run_files(str(path)))
    journal.close()
    opened(path)


def test_second_run_is_told_who_holds_the_file(tmp_path):
    files = run_files(str(tmp_path / "r.jsonl"))
    journal = open_journal(files)
    write_summary(files.summary, {**process_keys(), "started_at": "2026-11-25T10:00:00Z", "finished_at": None})
    with pytest.raises(ResultsLockedError) as caught:
        open_journal(files)
    assert f"process {os.getpid()} on " in str(caught.value)
    assert "since 2026-11-25T10:00:00Z" in str(caught.value)
    assert caught.value.exit_code == 75
    journal.close()
    opened(Path(files.results))


def test_link_stays_a_link_when_its_file_is_mended(tmp_path):
    real = tmp_path / "real.jsonl"
    real.write_bytes(answer("a") + b"garbage\n" + answer("b"))
    real.chmod(0o640)
    link = tmp_path / "r.jsonl"
    link.symlink_to(real)
    opened(link)
    assert link.is_symlink()
    assert real.read_bytes() == answer("a") + answer("b")
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_damage_in_a_compressed_file_costs_its_own_member_only(tmp_path, kind):
    path = tmp_path / f"r.jsonl.{kind}"
    codec = Codec(kind)
    members = [codec.encode(answer(name)) for name in "abc"]
    broken = bytearray(members[1])
    broken[len(broken) // 2] ^= 0xFF
    path.write_bytes(members[0] + bytes(broken) + members[2])
    journal = opened(path)
    assert "a" in journal.completed
    assert "b" not in journal.completed
    assert "c" in journal.completed
    assert bytes(broken) in (tmp_path / "r.torn").read_bytes()
    assert [repair.reason for repair in journal.repairs] == ["a compressed member that does not decode"]
    assert len(opened(path).completed) == 2
    assert opened(path).repairs == []


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_lines_that_span_members_are_read_as_any_reader_would(tmp_path, kind):
    path = tmp_path / f"r.jsonl.{kind}"
    codec = Codec(kind)
    path.write_bytes(codec.encode(answer("a")[:30]) + codec.encode(answer("a")[30:] + answer("b")))
    journal = opened(path)
    assert len(journal.completed) == 2
    assert journal.repairs == []


def test_name_and_content_must_agree_on_compression(tmp_path):
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(answer("a"))
    with pytest.raises(ResultsFileError, match="expected gz content"):
        opened(path)
    assert path.read_bytes() == answer("a")


def test_files_are_named_after_the_results(tmp_path):
    for name in ("r.jsonl", "r.jsonl.gz", "r.jsonl.zst", "r"):
        files = run_files(str(tmp_path / name))
        assert files.errors == str(tmp_path / "r.errors.jsonl")
        assert files.summary == str(tmp_path / "r.run.json")
        assert files.torn == str(tmp_path / "r.torn")
    for stream in ("-", "/dev/null", "/dev/full"):
        files = run_files(stream)
        assert files.stream
        assert (files.errors, files.summary, files.torn) == (None, None, None)
    assert run_files("-", "e.jsonl", "s.json").errors == "e.jsonl"


def test_folder_or_shared_name_is_a_usage_error(tmp_path):
    with pytest.raises(ConfigError, match="is a folder") as caught:
        run_files(str(tmp_path))
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError, match="both name"):
        run_files(str(tmp_path / "r.jsonl"), str(tmp_path / "r.jsonl"))
