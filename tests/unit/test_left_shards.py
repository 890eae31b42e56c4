"""What workers of an earlier run left in a store comes into the results, also what they leave while a run looks."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchchat.errors import ResultsLockedError
from batchchat.mirrors.mirror import Mirror
from batchchat.mirrors.parts import Marker, ShardPlaces, read_marker, write_marker
from batchchat.mirrors.place import mirror_place
from batchchat.run_output import OutputSettings, RunOutput
from batchchat.storage import Segments, put_bytes
from batchchat.storage.objects import stat_or_none
from batchchat.storage.tries import Tries
from tests.result_lines import answer

pytest.importorskip("fsspec")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/a.jsonl"


@pytest.fixture
def worker(url: str, tmp_path: Path) -> Iterator[ShardPlaces]:
    """Where a worker of a run that was killed is at its shard."""
    write_marker(url, Marker(token=tmp_path.name, first=1, last=2), Tries())
    places = ShardPlaces(url, tmp_path.name, 1)
    yield places
    places.remove(Tries())


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
