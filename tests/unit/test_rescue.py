"""Answers that went elsewhere because the disk was full come home, each once, and nobody else's do."""

import json
import os
from pathlib import Path

import pytest

from batchchat.errors import ResultsWriteError
from batchchat.results import Journal, name_files, open_journal, take_in_spills
from batchchat.results.codec import iter_decoded
from batchchat.results.spill import spill_prefix


def line(key: str, *, error: object = None) -> bytes:
    response = None if error else f"answer {key}"
    return json.dumps({"id": key, "response": response, "error": error, "fingerprint": "0" * 16}).encode() + b"\n"


def spill(folder: Path, results: Path, content: bytes, number: int = 1, mode: int = 0o600) -> Path:
    path = folder / f"{spill_prefix(os.path.realpath(results))}4711-{number}.jsonl"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def opened(results: Path) -> Journal:
    return open_journal(name_files(str(results)))


def content(journal: Journal) -> bytes:
    return b"".join(iter_decoded(journal.fd, journal.codec.kind, end=journal.end))


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_spilled_answers_are_taken_in_once(tmp_path: Path, ending: str) -> None:
    results = tmp_path / f"r{ending}"
    first = spill(tmp_path, results, line("a") + line("b"))
    second = spill(tmp_path, results, line("b") + line("c") + line("d")[:-9], 2)
    journal = opened(results)
    told = take_in_spills(journal, [str(tmp_path)])
    assert content(journal) == line("a") + line("b") + line("c")
    assert [prompt_id in journal.completed for prompt_id in "abcd"] == [True, True, True, False]
    assert "2 answers" in told[0]
    assert "1 answers" in told[1]
    assert not first.exists()
    assert not second.exists()
    journal.close()
    again = opened(results)
    assert take_in_spills(again, [str(tmp_path)]) == []
    assert not again.repairs
    again.close()


def test_answer_that_is_there_already_and_failures_stay_out(tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    results.write_bytes(line("a"))
    failure = {"type": "server", "message": "", "status": 500, "retryable": True, "partial": None}
    spill(tmp_path, results, line("a") + line("f", error=failure) + b"nonsense\n" + line("b"))
    journal = opened(results)
    take_in_spills(journal, [str(tmp_path)])
    assert content(journal) == line("a") + line("b")
    journal.close()


def test_files_that_others_may_have_made_stay_out(tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    wide = spill(tmp_path, results, line("a"), 1, 0o666)
    secret = tmp_path / "elsewhere.jsonl"
    secret.write_bytes(line("b"))
    link = tmp_path / f"{spill_prefix(os.path.realpath(results))}1-1.jsonl"
    link.symlink_to(secret)
    other = spill(tmp_path, tmp_path / "other.jsonl", line("c"))
    journal = opened(results)
    assert take_in_spills(journal, [str(tmp_path), str(tmp_path / "nowhere")]) == []
    assert content(journal) == b""
    assert all(path.exists() for path in (wide, link, other, secret))
    journal.close()


def test_spill_stays_where_there_is_still_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "r.jsonl"
    results.write_bytes(line("a"))
    kept = spill(tmp_path, results, line("b"))
    journal = opened(results)
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ResultsWriteError, match=r"r\.jsonl: results cannot be written: No space left"):
        take_in_spills(journal, [str(tmp_path)])
    assert kept.exists()
    assert results.read_bytes() == line("a")
    journal.close()


def test_a_spill_with_answers_of_another_form_stays(tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    kept = spill(tmp_path, results, line("a") + line("b"))
    journal = open_journal(name_files(str(results)), form="openai-batch")
    told = take_in_spills(journal, [str(tmp_path)])
    journal.close()
    assert "2 answers that an earlier run kept in" in told[0]
    assert "are not of the form openai-batch and stay there; 0 were taken in" in told[0]
    assert kept.read_bytes() == line("a") + line("b")
    journal = opened(results)
    take_in_spills(journal, [str(tmp_path)])
    assert content(journal) == line("a") + line("b")
    assert not kept.exists()
    journal.close()


def test_a_spill_of_another_form_goes_where_its_prompts_have_their_answers(tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    kept = spill(tmp_path, results, line("a"))
    journal = open_journal(name_files(str(results)), form="openai-batch")
    journal.completed.add("a", 0)
    take_in_spills(journal, [str(tmp_path)])
    assert not kept.exists()
    journal.close()
