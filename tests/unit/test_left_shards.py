"""What workers of an earlier run left in a store comes into the results, also what they leave while a run looks."""

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batchchat.errors import ResultsLockedError
from batchchat.mirrors.mirror import Mirror
from batchchat.mirrors.parts import Marker, ShardPlaces, read_marker, write_marker
from batchchat.mirrors.place import mirror_place
from batchchat.results.spill import spill_prefix
from batchchat.run_output import OutputSettings, RunOutput
from batchchat.shards.work_store import WorkStore
from batchchat.storage import Segments, put_bytes
from batchchat.storage.objects import stat_or_none
from batchchat.storage.tries import Tries
from tests.result_lines import answer

pytest.importorskip("fsspec")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/a.jsonl"


@pytest.fixture
def worker(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardPlaces:
    """Where a worker of a run that was killed is at its shard."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_marker(url, Marker(token=tmp_path.name, first=1, last=2), Tries())
    return ShardPlaces(url, tmp_path.name, 1)


def while_it_waits(monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]) -> None:
    """Calls each time when the run waits for more of what workers leave, which takes no time."""
    monkeypatch.setattr(time, "sleep", lambda pause_s: call() if pause_s >= 1 else None)


def once(monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[[], None], prefix: str) -> None:
    """Calls before the first use of a method of ``Segments`` that are in a folder."""
    method, calls = getattr(Segments, name), [call]

    def first_call(self: Segments, *given):
        if self._prefix == prefix and calls:
            calls.pop()()
        return method(self, *given)

    monkeypatch.setattr(Segments, name, first_call)


def taken_in(url: str) -> list[str]:
    """Ids of what the next run finds; nothing of the shards is left then."""
    mirror = Mirror(mirror_place(url))
    try:
        output = RunOutput.open(mirror.place.local, OutputSettings(), mirror)
        output._journal.close()
        assert read_marker(url, Tries()) is None
        return [json.loads(line)["id"] for line in Path(mirror.place.local.results).read_text().splitlines()]
    finally:
        mirror.finish()


def test_a_shard_that_becomes_whole_while_its_segments_are_read_is_taken_in(
    url: str, worker: ShardPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(worker.segments)
    segments.append(answer("q-1"))

    def make_whole() -> None:
        put_bytes(worker.part, answer("q-1") + answer("q-2"))
        segments.remove()

    once(monkeypatch, "read_all", make_whole, worker.segments)
    while_it_waits(monkeypatch, lambda: None)
    assert taken_in(url) == ["q-1", "q-2"]
    assert stat_or_none(worker.part) is None


def test_a_worker_that_had_brought_nothing_yet_is_waited_for(
    url: str, worker: ShardPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = itertools.chain(["q-1", "q-2"], itertools.repeat(None))
    segments = Segments(worker.segments)

    def bring() -> None:
        if (prompt_id := next(ids)) is not None:
            segments.append(answer(prompt_id))

    while_it_waits(monkeypatch, bring)
    assert taken_in(url) == ["q-1", "q-2"]
    assert list(Segments(worker.segments).read_all()) == []


@pytest.mark.parametrize("how", ["segment", "part"])
def test_what_comes_after_the_last_look_is_not_removed_unseen(
    how: str, url: str, worker: ShardPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(worker.segments)
    segments.append(answer("q-1"))

    def add() -> None:
        if how == "segment":
            segments.append(answer("q-2"))
        else:
            put_bytes(worker.part, answer("q-1") + answer("q-2"))

    while_it_waits(monkeypatch, lambda: None)
    # When what was taken in goes to the store, before it is removed where it came from.
    once(monkeypatch, "append", add, f"{url}.parts")
    assert taken_in(url) == ["q-1", "q-2"]
    assert (list(Segments(worker.segments).read_all()), stat_or_none(worker.part)) == ([], None)


def test_a_worker_that_goes_on_writing_keeps_the_next_run_out(
    url: str, worker: ShardPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, segments = itertools.count(), Segments(worker.segments)
    while_it_waits(monkeypatch, lambda: segments.append(answer(f"q-{next(numbers)}")))
    with pytest.raises(ResultsLockedError, match="a worker of an earlier run still writes there"):
        taken_in(url)
    assert read_marker(url, Tries()) is not None
    assert len(list(Segments(worker.segments).read_all())) == next(numbers)


@pytest.fixture
def kept(worker: ShardPlaces, tmp_path: Path) -> list[Path]:
    """What a worker kept on this machine that could not write its journal: in two folders, and a copy."""
    scratch = Path(worker.scratch)
    scratch.mkdir(mode=0o700)
    name = f"{spill_prefix(os.path.realpath(worker.journal))}1-1.jsonl"
    paths = [tmp_path / name, scratch / name, scratch / "journal.recovered.jsonl"]
    for number, path in enumerate(paths, 2):
        path.write_bytes(answer(f"q-{number}"))
        path.chmod(0o600)
    return paths


@pytest.mark.parametrize("journal", [None, answer("q-1"), answer("q-1") + b'{"id": "torn'])
def test_what_workers_on_this_machine_kept_beside_their_journals_comes_home_too(
    journal: bytes | None, url: str, worker: ShardPlaces, kept: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if journal is not None:
        Path(worker.journal).write_bytes(journal)
    while_it_waits(monkeypatch, lambda: None)
    assert sorted(taken_in(url)) == ["q-1", "q-2", "q-3", "q-4"][0 if journal else 1 :]
    assert [path for path in kept if path.exists()] == []


@pytest.mark.parametrize("journal", [None, answer("q-1"), answer("q-1") + b'{"id": "torn'])
def test_a_run_that_goes_on_finds_what_its_worker_kept_here(
    journal: bytes | None, url: str, worker: ShardPlaces, kept: list[Path], tmp_path: Path
) -> None:
    if journal is not None:
        Path(worker.journal).write_bytes(journal)
    place = WorkStore(url, tmp_path.name)
    with place.fetched(1, whole=False) as (answers, _):
        found = set(Path(str(answers)).read_bytes().splitlines(keepends=True))
    assert {answer(f"q-{number}") for number in range(1 if journal else 2, 5)} <= found


async def test_what_a_worker_kept_is_in_the_store_before_it_goes_from_its_machine(
    url: str, worker: ShardPlaces, kept: list[Path], tmp_path: Path
) -> None:
    place = WorkStore(url, tmp_path.name)
    output = place.open(1, OutputSettings())
    assert output is not None
    assert [path for path in kept if path.exists()] == []
    await output.close()
    place.leave(1)
    found = b"".join(Segments(worker.segments).read_all()).splitlines(keepends=True)
    assert sorted(found) == [answer(f"q-{number}") for number in (2, 3, 4)]


def test_a_shard_that_is_begun_after_a_later_one_is_looked_for_too(url: str) -> None:
    place = WorkStore.make(url)
    for number in range(1, 33):
        place.begin(number)
        place.discard(number, whole=True)
    for number in (34, 33):
        place.begin(number)
    marker = read_marker(url, Tries())
    assert marker is not None
    assert marker.first <= 33 < 34 <= marker.last
