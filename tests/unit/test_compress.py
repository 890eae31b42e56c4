"""Opening input files, compressed or not, and what is wrong with one as a whole."""

import gzip
import io
import os
import sys
from pathlib import Path

import pytest
import zstandard

from batchchat.compress import compression_of, open_input, strip_endings
from batchchat.errors import PromptFileError

DATA = b"".join(b'{"id":%d,"prompt":"hello %d"}\n' % (number, number * number) for number in range(5000))
GZIP = gzip.compress(DATA, mtime=0)
ZSTD = zstandard.ZstdCompressor().compress(DATA)


def read(path: Path) -> bytes:
    with open_input(str(path)) as stream:
        return stream.read()


def trouble(path: Path | str) -> str:
    with pytest.raises(PromptFileError) as caught, open_input(str(path)) as stream:
        stream.read()
    assert caught.value.path == str(path)
    return caught.value.reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", DATA),
        ("a.jsonl.gz", GZIP),
        ("a.jsonl.zst", ZSTD),
        ("A.JSONL.GZ", GZIP),
        ("members.gz", gzip.compress(DATA[:1000], mtime=0) + gzip.compress(DATA[1000:], mtime=0)),
        ("frames.zst", zstandard.compress(DATA[:1000]) + zstandard.compress(DATA[1000:])),
        ("skip.zst", b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + ZSTD),
        ("no-size.zst", zstandard.ZstdCompressor(write_content_size=False).compress(DATA)),
    ],
)
def test_content_is_read_as_its_ending_says(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert read(path) == DATA


@pytest.mark.parametrize("name", ["a.jsonl", "a.gz", "a.zst"])
def test_empty_file_is_empty_under_every_ending(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert read(tmp_path / name) == b""


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", GZIP, "found gzip data, expected UTF-8 text; let the name end in .gz"),
        ("a.jsonl", ZSTD, "found Zstandard data, expected UTF-8 text; let the name end in .zst"),
        ("a.gz", DATA, "expected gzip data as the ending says, found something else"),
        ("a.gz", ZSTD, "expected gzip data as the ending says, found Zstandard"),
        ("a.zst", GZIP, "expected Zstandard data as the ending says, found gzip"),
        ("a.gz", GZIP[:-9], "the compressed data ends too early; the file is cut short"),
        ("a.zst", ZSTD[:-9], "the compressed data ends too early; the file is cut short"),
        ("a.jsonl", "{}".encode("utf-16"), "found UTF-16 or UTF-32 text, expected UTF-8; save it as UTF-8"),
        ("a.jsonl", "\ufeff{}".encode("utf-16-be"), "found UTF-16 or UTF-32 text, expected UTF-8; save it as UTF-8"),
        ("a.jsonl", "\ufeff{}".encode("utf-32-be"), "found UTF-16 or UTF-32 text, expected UTF-8; save it as UTF-8"),
        (
            "a.gz",
            gzip.compress("{}".encode("utf-16"), mtime=0),
            "found UTF-16 or UTF-32 text, expected UTF-8; save it as UTF-8",
        ),
    ],
)
def test_content_that_does_not_fit_is_told_in_a_sentence(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert trouble(path) == reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gz", GZIP[:2000] + bytes(50) + GZIP[2050:]),
        ("a.gz", GZIP + b"rubbish"),
        ("a.zst", ZSTD[:2000] + bytes(50) + ZSTD[2050:]),
        ("a.zst", ZSTD + b"rubbish"),
    ],
)
def test_damage_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert trouble(path).startswith("the compressed data is damaged (")


def test_what_precedes_a_cut_is_read_before_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(zstandard.compress(DATA) + ZSTD[:-9])
    with open_input(str(path)) as stream:
        assert stream.read(len(DATA)) == DATA


def test_path_that_is_no_readable_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    assert trouble(tmp_path / "none.jsonl").startswith("no such file")
    assert trouble(tmp_path).startswith("this is a folder")
    assert trouble("a\0b") == "cannot be opened (embedded null byte)"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_file_without_permission_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch(mode=0)
    assert trouble(path).startswith("permission denied")


def test_compressed_file_is_closed_with_its_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(GZIP)
    stream = open_input(str(path))
    assert stream.readline() == b'{"id":0,"prompt":"hello 0"}\n'
    stream.close()
    assert stream.closed


def test_dash_is_standard_input_which_is_not_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    def standard_input(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))

    standard_input(DATA)
    assert open_input("-").read() == DATA
    standard_input(GZIP)
    with pytest.raises(PromptFileError, match="decompress it first"):
        open_input("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(PromptFileError, match="standard input is closed"):
        open_input("-")


@pytest.mark.parametrize(
    ("path", "stripped", "compression"),
    [
        ("out/a.jsonl", "out/a", None),
        ("out/a.jsonl.gz", "out/a", "gz"),
        ("a.JSONL.ZST", "a", "zst"),
        ("a.gz", "a", "gz"),
        ("a.json", "a.json", None),
        ("a.b.jsonl", "a.b", None),
        ("a.d/results", "a.d/results", None),
        ("d/.jsonl", "d/.jsonl", None),
    ],
)
def test_endings(path: str, stripped: str, compression: str | None) -> None:
    assert strip_endings(path) == stripped
    assert compression_of(path) == compression
