"""Filters and orders of the page's table give what looking at every line would give."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.results.files import name_files
from batchchat.view.book import Book
from batchchat.view.lines import texts_of
from batchchat.view.search import Filter, Search

WORDS = (
    "alpha",
    "Beta",
    "GAMMA",
    "größe",
    "ÄRGER",
    'quo"te',
    "back\\slash",
    "new\nline",
    "emoji 👍",
    "a&b",
    "x\u2028y",
)


def line(number: int, pick: random.Random) -> dict:
    failed = pick.random() < 0.2
    return {
        "id": f"q-{number}" if number % 3 else number,
        "response": None if failed else " ".join(pick.choices(WORDS, k=3)),
        "error": {"type": pick.choice(["server", "timeout"]), "message": "it broke", "status": None}
        if failed
        else None,
        "attempts": pick.randint(1, 4),
        "latency_s": pick.choice([None, 0.0, 0.25, 1.0, 2.5]),
        "finished_at": f"2026-11-25T10:00:{number % 60:02}.000Z",
        "index": number,
        "usage": {"input_tokens": pick.randint(0, 9), "output_tokens": pick.randint(0, 9)},
        "input": {"question": pick.choice(WORDS), "meta": {"topic": pick.choice(WORDS), "n": number % 5}},
    }


LINES = [line(number, random.Random(number)) for number in range(400)]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    path = tmp_path_factory.mktemp("view") / "out.jsonl"
    path.write_text("".join(json.dumps(each, ensure_ascii=number % 2 == 0) + "\n" for number, each in enumerate(LINES)))
    book = Book(name_files(str(path)))
    book.refresh()
    while book.advance():
        pass
    assert book.columns.count == len(LINES)
    return book


def rows_of(book: Book, wanted: Filter) -> list[int]:
    search = Search(book.columns, book.contents, wanted)
    while not search.complete:
        search.advance()
    return list(search.rows())


def expected(wanted: Filter) -> list[int]:
    """The plain way: look at every line."""

    def fits(each: dict) -> bool:
        kind = "answered" if each["error"] is None else each["error"]["type"]
        latency_s = each["latency_s"]
        value = each["input"] if wanted.field else None
        for name in wanted.field.split(".") if wanted.field else ():
            value = value.get(name) if isinstance(value, dict) else None
        return (
            (not wanted.kind or wanted.kind == kind or (wanted.kind == "failed" and kind != "answered"))
            and (wanted.min_latency_s is None or (latency_s is not None and latency_s >= wanted.min_latency_s))
            and (wanted.max_latency_s is None or (latency_s is not None and latency_s <= wanted.max_latency_s))
            and (wanted.min_attempts is None or each["attempts"] >= wanted.min_attempts)
            and (wanted.max_attempts is None or each["attempts"] <= wanted.max_attempts)
            and any(wanted.text.casefold() in text.casefold() for text in texts_of(each))
            and (not wanted.field or (value is not None and any(wanted.value.casefold() in t.casefold() for t in texts_of(value))))
        )  # fmt: skip

    return [row for row, each in enumerate(LINES) if fits(each)]


texts = st.sampled_from(["", "alpha", "BETA", "gam", "GRÖSSE", "größe", "ärger", '"', "\\", "new\nline", "👍", "a&b", "x\u2028y", "q-17", "none of it"])  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Filter,
        text=texts,
        kind=st.sampled_from(["", "", "answered", "failed", "server", "timeout", "auth"]),
        min_latency_s=st.sampled_from([None, None, 0.0, 1.0]),
        max_latency_s=st.sampled_from([None, None, 0.25, 2.5]),
        min_attempts=st.sampled_from([None, None, 2]),
        max_attempts=st.sampled_from([None, None, 3]),
        field=st.sampled_from(["", "", "question", "meta.topic", "meta.n", "meta", "nothing"]),
        value=texts,
    )
)
def test_a_search_finds_what_looking_at_every_line_finds(book: Book, wanted: Filter) -> None:
    assert rows_of(book, wanted) == expected(wanted)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("index", lambda each: each["index"]),
        ("attempts", lambda each: each["attempts"]),
        ("latency", lambda each: -1.0 if each["latency_s"] is None else each["latency_s"]),
        ("tokens", lambda each: sum(each["usage"].values())),
        ("finished", lambda each: each["finished_at"]),
    ],
)
def test_rows_are_sorted_and_stay_in_their_order_where_they_are_equal(book: Book, sort, key, descending: bool) -> None:
    found = rows_of(book, Filter(kind="answered", sort=sort, descending=descending))
    answered = [row for row, each in enumerate(LINES) if each["error"] is None]
    assert found == sorted(answered, key=lambda row: key(LINES[row]), reverse=descending)


def test_the_order_of_the_file_turned_round(book: Book) -> None:
    assert rows_of(book, Filter(descending=True)) == list(range(len(LINES)))[::-1]


def test_a_search_goes_on_where_the_file_grew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"id":"a","response":"one"}\n')
    book = Book(name_files(str(path)))
    book.refresh()
    book.advance()
    search = Search(book.columns, book.contents, Filter(text="one"))
    search.advance()
    assert list(search.rows()) == [0]
    with path.open("a") as stream:
        stream.write('{"id":"b","response":"two"}\n{"id":"c","response":"ONE more"}\n')
    book.refresh()
    book.advance()
    assert not search.complete
    search.advance()
    assert list(search.rows()) == [0, 2]
