"""The parts of a mirror: who holds results in a store, what its files are called, and how new lines go up."""

import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from batchchat.errors import ConfigError, ResultsLockedError
from batchchat.job_config import JobConfig, OutputConfig
from batchchat.mirrors import lease as leases
from batchchat.mirrors import place as places
from batchchat.mirrors.keeping import LeaseKeeper
from batchchat.mirrors.lease import Lease, LeaseLostError
from batchchat.mirrors.place import machine_name, mirror_place, mirrored_job
from batchchat.mirrors.shipping import Shipping
from batchchat.storage import Segments, StorageError, get_bytes, put_bytes
from batchchat.storage.faults import ConflictError, TransientError
from batchchat.storage.path_store import PathStore
from batchchat.storage.s3_faults import fault_of
from batchchat.storage.store import Stat
from batchchat.storage.tries import Patience, Tries
from batchchat.storage.urls import is_url, plain_path

URL = "s3://bucket/results/a.jsonl.gz"


def lease(folder: Path, machine: str) -> Lease:
    return Lease(str(folder / "lease.json"), URL, machine, Tries(Patience(1, 0.0, 0.0, 1)))


def test_a_lease_is_one_machines_until_it_is_given_up(tmp_path: Path) -> None:
    first, second = lease(tmp_path, "one"), lease(tmp_path, "two")
    assert first.take() == []
    with pytest.raises(ResultsLockedError, match=rf"{URL}: another run holds these results \(process {os.getpid()} on"):
        second.take()
    first.renew()
    with pytest.raises(ResultsLockedError, match=r"its hold ends in 1[12]\d s"):
        second.take()
    first.release()
    assert second.take() == []


def test_a_machines_own_lease_is_taken_over_at_once_and_whoever_had_it_notices(tmp_path: Path) -> None:
    killed, next_run = lease(tmp_path, "one"), lease(tmp_path, "one")
    killed.take()
    next_run.take()
    with pytest.raises(LeaseLostError, match="another run has taken these results over"):
        killed.renew()
    killed.release()
    next_run.renew()


def test_a_lease_that_was_not_renewed_for_long_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease(tmp_path, "one").take()
    monkeypatch.setattr(leases, "_STALE_S", -1.0)
    assert lease(tmp_path, "two").take() == []


def test_a_lease_that_cannot_be_read_is_held_all_the_same(tmp_path: Path) -> None:
    put_bytes(str(tmp_path / "lease.json"), b"\xff nonsense")
    with pytest.raises(ResultsLockedError, match="its lease cannot be read"):
        lease(tmp_path, "one").take()


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_store_that_heeds_no_conditions_is_told_of(
    ignored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = PathStore.put

    def careless(self: PathStore, place: str, data: bytes, expect: str, mark: str) -> str:
        try:
            return put(self, place, data, expect, mark)
        except ConflictError:
            if (expect == "*absent*") != (ignored == "If-None-Match"):
                raise
            return put(self, place, data, "*any*", mark)

    monkeypatch.setattr(PathStore, "put", careless)
    (told,) = lease(tmp_path, "one").take()
    assert f"does not heed conditions of a request ({ignored})" in told


def job(path: str | None, **more: object) -> JobConfig:
    return msgspec.structs.replace(JobConfig(), output=OutputConfig(path=path), **more)


def test_texts_of_a_run_name_the_files_that_the_user_named() -> None:
    place = mirror_place(URL, "s3://other/errors/e.jsonl", "s3://bucket/results/a.run.json")
    for local, remote in zip(msgspec.structs.astuple(place.local), msgspec.structs.astuple(place.remote), strict=True):
        assert place.told(f"in {local}: x") == f"in {remote}: x"
    assert place.told_all({"a": [place.local.results, 1, None]}) == {"a": [URL, 1, None]}
    assert place.remote.torn == "s3://bucket/results/a.torn"


def test_two_results_have_two_mirrors_and_one_has_always_the_same() -> None:
    assert mirror_place(URL).folder == mirror_place(URL).folder != mirror_place(f"{URL}.zst").folder
    assert machine_name() == machine_name()


@pytest.mark.parametrize("other", ["s3a://bucket/results/a.jsonl.gz", "S3://bucket/results/a.jsonl.gz"])
def test_results_have_one_mirror_however_they_are_called(other: str) -> None:
    """Else two runs on this machine would have two locks, and one lease that each takes for its own."""
    assert mirror_place(other).folder == mirror_place(URL).folder
    with pytest.raises(ConfigError, match="is both input and results file"):
        mirrored_job(job(URL, input=[other]))
    found = mirrored_job(job(URL, input=[other.replace("a.jsonl.gz", "a.errors.jsonl")]))
    assert found is not None
    assert found[0].input == [found[1].local.errors]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of mirrors of its own."""
    monkeypatch.setattr("batchchat.mirrors.place._mirrors", lambda: str(tmp_path / "state"))
    return tmp_path / "state"


def test_of_runs_that_name_a_machine_at_once_all_give_one_name(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, seen = uuid.uuid4, list[str]()

    def drawn_meanwhile() -> uuid.UUID:
        monkeypatch.undo()
        monkeypatch.setattr("batchchat.mirrors.place._mirrors", lambda: str(state))
        seen.append(machine_name())
        return draw()

    monkeypatch.setattr("batchchat.mirrors.place.uuid.uuid4", drawn_meanwhile)
    assert machine_name() == seen[0] == machine_name()
    assert os.listdir(state) == ["machine"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_a_killed_run_left_empty_names_no_machine(
    links: bool, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*paths: str) -> None:
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    state.mkdir()
    (state / "machine").touch()
    assert machine_name() == machine_name()
    assert len((state / "machine").read_text()) == 32
    assert os.listdir(state) == ["machine"]


def test_machines_that_no_lock_keeps_apart_have_names_of_their_own(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {machine_name()}
    (state / "copy").write_bytes((state / "machine").read_bytes())
    os.replace(state / "copy", state / "machine")  # a container from an image that holds it
    here.add(machine_name())
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "another")
        here.add(machine_name())
    read = places._read
    monkeypatch.setattr(places, "_read", lambda path: "another start" if "boot_id" in path else read(path))
    here.add(machine_name())
    assert len(here) == 4


def test_the_errors_file_that_is_asked_again_is_that_of_the_mirror() -> None:
    found = mirrored_job(job(URL, input=["s3://bucket/results/a.errors.jsonl", "other.jsonl"]))
    assert found is not None
    mapped, place = found
    assert mapped.input == [place.local.errors, "other.jsonl"]
    assert mapped.output.path == place.local.results
    assert (mapped.errors, mapped.summary) == (None, None)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"path": URL, "input": [URL]}, "is both input and results file"),
        ({"path": "a.jsonl", "errors": URL}, "expected a plain file"),
        ({"path": "s3://bucket/"}, "expected the name of an object"),
    ],
)
def test_files_that_cannot_go_together_are_told(settings: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        mirrored_job(job(**settings))
    assert mirrored_job(job("a.jsonl")) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("C:\\a.jsonl", False),
        ("a://b", False),
        ("s3://b/k", True),
        ("S3://b/k", True),
        ("file:///a", False),
        ("-", False),
    ],
)
def test_what_is_a_url(path: str, expected: bool) -> None:
    assert is_url(path) is expected


def test_an_address_of_a_file_is_its_path() -> None:
    assert plain_path("file:///a%20b/c.jsonl") == "/a b/c.jsonl"
    assert plain_path("file://localhost/a") == "/a"
    with pytest.raises(ConfigError, match="no file of this machine"):
        plain_path("file://host/a")


class _Failing(Segments):
    """Takes nothing for a while."""

    failures = 2

    def append(self, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise TransientError("s3://bucket/a", "busy")
        super().append(data)


def test_new_lines_go_up_in_order_and_a_store_that_is_away_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchchat.mirrors.shipping._LEAST_S", 0.0)
    told, again = list[str](), threading.Event()
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"old\n")
    tries = Tries(Patience(1, 0.0, 0.0, 1))

    def notice(sentence: str) -> None:
        told.append(sentence)
        if "again" in sentence:
            again.set()

    segments = _Failing(str(tmp_path / "parts"), tries=tries)
    shipping = Shipping(str(path), 4, segments, tries=tries, notice=notice)
    shipping.start()
    for number in range(3):
        with path.open("ab") as file:
            file.write(b"line %d\n" % number)
        shipping.wrote(path.stat().st_size)
    while not again.wait(0.05):
        shipping.wrote(path.stat().st_size)
    shipping.close()
    assert b"".join(Segments(str(tmp_path / "parts")).read_all()) == b"line 0\nline 1\nline 2\n"
    assert [("safe on this machine only" in text, "again" in text) for text in told] == [(True, False), (False, True)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_whose_lease_was_taken_over_is_told(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchchat.mirrors.keeping.RENEW_S", 0.02)
    held, lost = lease(tmp_path, "one"), threading.Event()
    held.take()
    keeper = LeaseKeeper(held)
    if when == "before":
        keeper.on_loss(lambda error: lost.set())
    keeper.start()
    lease(tmp_path, "one").take()
    if when == "after":
        keeper._thread.join(20)
        keeper.on_loss(lambda error: lost.set())
    assert lost.wait(20)
    assert isinstance(keeper.lost, LeaseLostError)
    keeper.close()


def test_a_plain_file_is_put_whole_or_not_at_all(tmp_path: Path) -> None:
    etag = put_bytes(str(tmp_path / "a"), b"1")
    with pytest.raises(StorageError):
        put_bytes(str(tmp_path / "a"), b"2", expect="another")
    assert get_bytes(str(tmp_path / "a")) == (b"1", etag)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="there, folders cannot be locked")
def test_of_those_who_replace_a_plain_file_at_once_one_does(tmp_path: Path) -> None:
    """Each adds one to what it found, until it is the first; so nobody's one is overwritten."""
    path = str(tmp_path / "a")
    put_bytes(path, b"0")

    def add() -> None:
        for _ in range(20):
            while True:
                found, etag = get_bytes(path)
                try:
                    put_bytes(path, str(int(found) + 1).encode(), expect=etag)
                    break
                except ConflictError:
                    pass

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(add) for _ in range(4)]:
            done.result(50)
    assert get_bytes(path)[0] == b"80"


def test_what_got_no_thread_can_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    tries = Tries(Patience(1, 0.0, 0.0, 1))
    segments = Segments(str(tmp_path / "parts"), tries=tries)
    shipping = Shipping(str(tmp_path / "r.jsonl"), 0, segments, tries=tries, notice=lambda sentence: None)
    for each in (LeaseKeeper(lease(tmp_path, "one")), shipping):
        with pytest.raises(RuntimeError, match="can't start new thread"):
            each.start()
        each.close()


@pytest.mark.parametrize("fault", [StorageError("s3://bucket/a", "it refuses", "failed"), KeyError("ETag")])
def test_what_did_not_go_up_is_tried_again_though_no_more_lines_come(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchchat.mirrors.shipping._LEAST_S", 0.0)
    told, again = list[str](), threading.Event()
    faults = [fault, fault]

    class Faulty(Segments):
        def append(self, data: bytes) -> None:
            if faults:
                raise faults.pop()
            super().append(data)

    def notice(sentence: str) -> None:
        told.append(sentence)
        if "again" in sentence:
            again.set()

    path = tmp_path / "results.jsonl"
    path.write_bytes(b"line\n")
    tries = Tries(Patience(1, 0.0, 0.0, 1))
    shipping = Shipping(str(path), 0, Faulty(str(tmp_path / "parts"), tries=tries), tries=tries, notice=notice)
    shipping.start()
    shipping.wrote(5)
    assert again.wait(20)
    shipping.close()
    assert list(Segments(str(tmp_path / "parts")).read_all()) == [b"line\n"]
    assert len(told) == 2
    assert str(fault) in told[0]


def test_a_renewal_that_fails_as_nobody_thought_of_is_told_once_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchchat.mirrors.keeping.RENEW_S", 0.0)
    faults, renewed, told = [KeyError("ETag"), KeyError("ETag")], threading.Event(), list[str]()

    class Faulty(Lease):
        def renew(self) -> None:
            if faults:
                raise faults.pop()
            renewed.set()

    keeper = LeaseKeeper(Faulty(str(tmp_path / "lease.json"), URL, "one", Tries()))
    keeper.on_loss(lambda error: told.append(str(error)), told.append)
    keeper.start()
    assert renewed.wait(20)
    keeper.close()
    assert told == ["the hold on the results cannot be renewed (KeyError('ETag')); the run goes on trying"]
    assert keeper.lost is None


@pytest.mark.parametrize("error", [KeyError("ETag"), RuntimeError("Session is closed"), AttributeError("x")])
def test_whatever_the_client_of_a_store_raises_is_a_fault_of_the_store(error: Exception) -> None:
    pytest.importorskip("botocore")
    fault = fault_of("s3://bucket/a", error)
    assert isinstance(fault, TransientError)
    assert type(error).__name__ in str(fault)


def test_a_renewal_that_arrived_though_its_answer_was_lost_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lease(tmp_path, "one")
    held.take()
    with monkeypatch.context() as away:
        away.setattr("batchchat.storage.objects.store_of", lambda place: _AnswersLost())
        with pytest.raises(TransientError):
            held.renew()
    held.renew()
    with pytest.raises(ResultsLockedError):
        lease(tmp_path, "two").take()
    lease(tmp_path, "one").take()
    with pytest.raises(LeaseLostError):
        held.renew()


class _AnswersLost(PathStore):
    """All that it is asked for is done, and nobody is told."""

    def put(self, place: str, data: bytes, expect: str, mark: str) -> str:
        PathStore().put(place, data, expect, mark)
        raise TransientError(place, "lost")

    def stat(self, place: str) -> Stat:
        raise TransientError(place, "lost")


def test_a_renewal_that_comes_while_a_lease_is_looked_at_is_not_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age of the lease before, and the etag of the one after, would let another machine take it."""
    held, look, renewals = lease(tmp_path, "one"), leases.stat, [1]
    held.take()

    def look_at_an_old_one(place: str, *, tries: Tries) -> Stat:
        found = look(place, tries=tries)
        if renewals:
            renewals.pop()
            held.renew()
            return msgspec.structs.replace(found, modified_at=found.modified_at - timedelta(seconds=130))
        return found

    monkeypatch.setattr(leases, "stat", look_at_an_old_one)
    with pytest.raises(ResultsLockedError, match="another run holds these results"):
        lease(tmp_path, "two").take()


def test_a_lease_that_changes_with_every_look_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, look = lease(tmp_path, "one"), leases.stat
    held.take()

    def look_at_an_old_one(place: str, *, tries: Tries) -> Stat:
        found = look(place, tries=tries)
        held.renew()
        return msgspec.structs.replace(found, modified_at=found.modified_at - timedelta(seconds=130))

    monkeypatch.setattr(leases, "stat", look_at_an_old_one)
    with pytest.raises(ResultsLockedError, match="seen 0 s ago"):
        lease(tmp_path, "two").take()


def test_giving_a_lease_up_never_takes_that_of_the_next_run_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is removed, the answer is lost, and the next run takes it before anything else is tried."""
    tries = Tries(Patience(3, 0.0, 0.0, 3))
    held, following = Lease(str(tmp_path / "lease.json"), URL, "one", tries), lease(tmp_path, "two")
    held.take()
    remove, removed = PathStore.remove, list[str]()

    def lose_the_answer(self: PathStore, place: str) -> None:
        remove(self, place)
        removed.append(place)
        if len(removed) == 1:
            following.take()
            raise TransientError(place, "lost")

    monkeypatch.setattr(PathStore, "remove", lose_the_answer)
    with pytest.raises(TransientError):
        held.release()
    held.release()
    assert len(removed) == 1
    following.renew()


def test_a_lease_that_another_run_has_is_not_given_up(tmp_path: Path) -> None:
    killed, next_run = lease(tmp_path, "one"), lease(tmp_path, "one")
    killed.take()
    next_run.take()
    killed.release()
    next_run.renew()
