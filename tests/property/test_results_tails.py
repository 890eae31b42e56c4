"""A results file cut or overwritten anywhere: at most what was hit is lost, and nothing is destroyed."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.errors import ResultsFileError
from batchchat.results import open_journal, run_files
from batchchat.results.codec import Codec, iter_decoded
from tests.result_lines import answer

NAMES = ["one", "two", 3, "four"]
LINES = [answer(name, f"Because {name} ✓") for name in NAMES]
ENDINGS = {"": None, ".gz": "gz", ".zst": "zst"}


class Folder:
    """A folder with one results file, fit for use once in each example."""

    def __init__(self, ending: str, content: bytes) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.kind = ENDINGS[ending]
        self.results = self.path / f"r.jsonl{ending}"
        self.results.write_bytes(content)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.path)

    def reopen(self):
        journal = open_journal(run_files(str(self.results)))
        journal.close()
        return journal

    def lines(self) -> list[bytes]:
        with open(self.results, "rb") as stream:
            pieces = iter_decoded(stream.fileno(), self.kind, end=self.results.stat().st_size)
            return b"".join(piece for piece in pieces if isinstance(piece, bytes)).splitlines(keepends=True)

    def torn(self) -> bytes:
        torn = self.path / "r.torn"
        return torn.read_bytes() if torn.exists() else b""


def members_of(ending: str) -> list[bytes]:
    codec = Codec(ENDINGS[ending])
    return [codec.encode(line) for line in LINES]


@pytest.mark.parametrize("ending", ENDINGS)
def test_cut_at_every_byte_of_the_last_two_lines_loses_only_what_is_cut(ending):
    members = members_of(ending)
    content = b"".join(members)
    start = len(content) - len(members[-1]) - len(members[-2])
    for cut in range(start, len(content) + 1):
        whole = 3 if cut >= start + len(members[-2]) else 2
        if cut == len(content):
            whole = 4
        with Folder(ending, content[:cut]) as folder:
            journal = folder.reopen()
            lines = folder.lines()
            # A line whose member lost no more than its checksum, or that lost no more than its line end, is kept.
            assert lines[:whole] == LINES[:whole], cut
            assert lines == LINES[: len(lines)], cut
            assert len(lines) <= whole + 1
            assert [name in journal.completed for name in NAMES] == [n < len(lines) for n in range(4)], cut
            cut_off = content[start + (len(members[-2]) if whole >= 3 else 0) : cut]
            if len(lines) == whole < 4:
                assert cut_off in folder.torn(), cut
            again = folder.reopen()
            assert again.repairs == []
            assert len(again.completed) == len(lines)


def test_member_whose_header_lies_costs_no_member_behind_it():
    """Without its content size and checksum, a frame seems to go on over the whole ones that follow."""
    members = members_of(".zst")
    at = len(members[0]) + 4
    content = b"".join(members)
    with Folder(".zst", content[:at] + b"\0" + content[at + 1 :]) as folder:
        folder.reopen()
        assert folder.lines() == [LINES[0], LINES[2], LINES[3]]


@pytest.mark.parametrize("ending", ENDINGS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_overwritten_stretch_costs_the_lines_it_hits_and_no_other(ending, data):
    members = members_of(ending)
    content = b"".join(members)
    at = data.draw(st.integers(len(members[0]), len(content) - 1))
    length = data.draw(st.integers(1, min(200, len(content) - at)))
    junk = data.draw(st.one_of(st.just(b"\0" * length), st.binary(min_size=length, max_size=length)))
    broken = content[:at] + junk + content[at + length :]
    hit = set()
    begin = 0
    for number, member in enumerate(members):
        if broken[begin : begin + len(member)] != member:
            hit.add(number)
        begin += len(member)
    with Folder(ending, broken) as folder:
        try:
            journal = folder.reopen()
        except ResultsFileError as error:
            # Junk may happen to be JSON that is no result: then the file is left for its owner to look at.
            assert "expected a result" in str(error)
            assert folder.results.read_bytes() == broken
            return
        lines = [line for line in folder.lines() if line.strip()]  # a line feed at an edge leaves a blank line
        assert len(lines) == len(journal.completed)
        for number, line in enumerate(LINES):
            if number not in hit:
                kept = line in lines or _joined(number, hit, broken, members)
                assert kept, (number, hit)
        assert folder.reopen().repairs == []


def _joined(number: int, hit: set[int], broken: bytes, members: list[bytes]) -> bool:
    """Whether the line end before this line was overwritten, so that both are one physical line now."""
    begin = sum(map(len, members[:number]))
    return number - 1 in hit and broken[begin - 1 : begin] != b"\n"


@given(
    orders=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["whole", "torn", "zeros", "junk"])), max_size=12),
    ending=st.sampled_from(list(ENDINGS)),
)
@settings(max_examples=80, deadline=None)
def test_no_mixture_of_lines_leaves_two_for_one_id(orders, ending):
    pieces = {"whole": lambda line: line, "torn": lambda line: line[:40] + b"\n"}
    pieces |= {"zeros": lambda line: b"\0" * 7 + line, "junk": lambda line: b"\xfe junk\n"}
    codec = Codec(ENDINGS[ending])
    content = codec.encode(LINES[0]) + b"".join(codec.encode(pieces[how](LINES[which])) for which, how in orders)
    with Folder(ending, content) as folder:
        journal = folder.reopen()
        lines = folder.lines()
        assert len(lines) == len(set(lines)) == len(journal.completed)
        wanted = {0} | {which for which, how in orders if how in ("whole", "zeros")}
        assert sorted(lines) == sorted(LINES[which] for which in wanted)
