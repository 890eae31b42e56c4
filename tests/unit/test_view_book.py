"""The page's table follows its files: grown, cut, replaced, renamed, compressed, and whatever stands in them."""

import gzip
import json
import os
from pathlib import Path

import pytest
import zstandard

from batchchat.errors import ResultsFileError
from batchchat.results.files import name_files
from batchchat.view.book import Book
from batchchat.view.columns import KINDS
from batchchat.view.compare import NONE, VERDICTS, Comparison
from batchchat.view.content import StaleError
from batchchat.view.lines import MOST_SHOWN_CHARS, preview, whole


def written(number: int, **more: object) -> str:
    return json.dumps({"id": f"q-{number}", "response": f"answer {number}", "index": number, **more}) + "\n"


def up_to_date(book: Book) -> Book:
    book.refresh()
    while book.advance():
        pass
    return book


def ids(book: Book) -> list[str]:
    return [preview(book.line(row))["id"] for row in range(book.columns.count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def book(path: Path):
    book = Book(name_files(str(path)))
    yield book
    book.close()


def test_rows_come_with_the_lines_that_are_whole(path: Path, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a run writes, half a line is none; afterwards, a last line without its end is one."""
    running = True
    monkeypatch.setattr("batchchat.view.book.is_locked", lambda path: running)
    path.write_text(written(0) + written(1) + written(2).rstrip("\n"))
    assert ids(up_to_date(book)) == ["q-0", "q-1"]
    with path.open("a") as stream:
        stream.write("\n" + written(3)[:20])
    assert ids(up_to_date(book)) == ["q-0", "q-1", "q-2"]
    with path.open("a") as stream:
        stream.write(written(3)[20:-1])
    running = False
    assert ids(up_to_date(book)) == ["q-0", "q-1", "q-2", "q-3"]
    with path.open("a") as stream:
        stream.write("\n" + written(4))
    assert ids(up_to_date(book)) == ["q-0", "q-1", "q-2", "q-3", "q-4"]
    assert book.generation == 1


@pytest.mark.parametrize("how", ["cut", "replaced", "rewritten"])
def test_a_file_that_is_another_one_is_read_anew(path: Path, book: Book, how: str) -> None:
    path.write_text(written(0) + written(1))
    up_to_date(book)
    if how == "cut":
        path.write_text(written(0))
    elif how == "replaced":
        other = path.with_name("other")
        other.write_text(written(7) + written(8) + written(9))
        os.replace(other, path)
        with pytest.raises(StaleError):
            book.line(1)
    else:
        with path.open("r+") as stream:
            stream.write(written(7) + written(8) + written(9))
    up_to_date(book)
    assert book.generation == 2
    assert ids(book) == (["q-0"] if how == "cut" else ["q-7", "q-8", "q-9"])


def test_failures_of_a_run_that_goes_on_stay_the_same_rows_at_its_end(path: Path, book: Book) -> None:
    """They are in the part file, which the run renames when it ends."""
    error = {"type": "timeout", "message": "too slow"}
    old, part = path.with_name("out.errors.jsonl"), path.with_name("out.errors.jsonl.part")
    path.write_text(written(0))
    old.write_text(written(8, response=None, error=error))
    part.write_text(written(9, response=None, error=error))
    assert ids(up_to_date(book)) == ["q-0", "q-9"]
    assert KINDS[book.columns.kind[1]] == "timeout"
    os.replace(part, old)
    assert ids(up_to_date(book)) == ["q-0", "q-9"]
    assert book.generation == 1
    part.write_text(written(10, response=None, error=error))  # the next run
    assert ids(up_to_date(book)) == ["q-0", "q-10"]
    assert book.generation == 2


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_files_are_unpacked_and_followed(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchchat.view.content._REST_FACTOR", 0)
    pack = gzip.compress if ending == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    path = tmp_path / f"out.jsonl.{ending}"
    path.write_bytes(pack((written(0) + written(1)).encode()))
    book = Book(name_files(str(path)))
    try:
        assert ids(up_to_date(book)) == ["q-0", "q-1"]
        member = pack((written(2) + written(3)).encode())
        with path.open("ab") as stream:
            stream.write(member)
        assert ids(up_to_date(book)) == ["q-0", "q-1", "q-2", "q-3"]
        with path.open("ab") as stream:
            stream.write(b"\0" * 40)
        assert ids(up_to_date(book)) == ["q-0", "q-1", "q-2", "q-3"]
        assert book.generation == 1
    finally:
        book.close()


def test_lines_of_both_forms_and_of_nobody(path: Path, book: Book) -> None:
    batch = {
        "id": "batch-1",
        "custom_id": "b",
        "response": {"status_code": 200, "body": {"model": "m", "choices": [{"message": {"content": "from a batch"}}]}},
        "error": None,
    }
    lines = [
        json.dumps(batch),
        "nonsense",
        '{"no":"result"}',
        "",
        written(1).strip(),
        "[1]",
        '{"id":"h","response":"half \\ud83d"}',
    ]
    path.write_text("\n".join(lines) + "\n")
    up_to_date(book)
    assert ids(book) == ["b", "q-1", "h"]
    assert book.columns.odd == 3
    assert preview(book.line(0)) == {"id": "b", "prompt": "", "response": "from a batch", "model": "m"}
    assert preview(book.line(2))["response"] == "half �"


@pytest.mark.parametrize("hole", ["missing", "folder"])
def test_what_cannot_be_shown_is_told_in_a_sentence(path: Path, book: Book, hole: str) -> None:
    if hole == "folder":
        path.mkdir()
    with pytest.raises(ResultsFileError, match="no such results file" if hole == "missing" else "is a folder"):
        book.check()


def test_long_texts_are_cut_and_the_rest_is_counted() -> None:
    data = json.dumps({"id": "a", "response": "x" * (MOST_SHOWN_CHARS + 5)}).encode()
    shown = whole(data)
    assert len(shown["response"]["text"]) == MOST_SHOWN_CHARS
    assert shown["response"]["cut"] == 5
    assert len(preview(data)["response"]) <= 201


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[" * 9000, b'{"id":"a"}', b'{"id":"a","response":{"b":[]}}', b'{"id":"a","response":"x","input":[1]}',
     b'{"id":"a","response":"x","usage":3,"error":"no","input":{"messages":[1,{"content":[{"text":null}]}]}}',
     b'{"id":"a","response":"x","input":{"turns":[null,3],"prompt":5}}', b"\xff\xfe", b'{"id":1e999,"response":""}',
     b'{"id":"a","response":"x","input":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}"],
)  # fmt: skip
def test_no_line_breaks_what_is_shown(data: bytes) -> None:
    assert set(preview(data)) == {"id", "prompt", "response", "model"}
    json.dumps([preview(data), whole(data)]).encode()


def test_two_files_are_joined_by_id_and_judged(tmp_path: Path) -> None:
    error = {"type": "server", "message": "no"}
    left = [written(1), written(2), written(3), written(4, response=None, error=error), written(5, response=None, error=error),
            written(6), json.dumps({"id": 1, "response": "another"}) + "\n"]  # fmt: skip
    right = [
        written(5, response=None, error=error),
        written(4),
        written(3, response="other"),
        written(2, attempts=7),
        written(9),
        written(1),
    ]
    books = []
    for name, lines in (("a.jsonl", left), ("b.jsonl", right)):
        (tmp_path / name).write_text("".join(lines))
        books.append(up_to_date(Book(name_files(str(tmp_path / name)))))
    made = Comparison(books[0].columns, books[1].columns)
    pairs = {}
    for at, verdict in enumerate(made.verdict):
        rows = made.left[at], made.right[at]
        names = {ids(book)[row] for book, row in zip(books, rows, strict=True) if row != NONE}
        assert len(names) == 1
        pairs[names.pop()] = VERDICTS[verdict]
    assert pairs == {
        "q-1": "same", "q-2": "same", "q-3": "differs", "q-4": "one_failed", "q-5": "both_failed", "q-6": "only_left",
        "1": "only_left", "q-9": "only_right",
    }  # fmt: skip
    assert made.counts == {"same": 2, "differs": 1, "one_failed": 1, "both_failed": 1, "only_left": 2, "only_right": 1}
    assert [VERDICTS[made.verdict[at]] for at in made.chosen(frozenset({"differs"}))] == ["differs"]
