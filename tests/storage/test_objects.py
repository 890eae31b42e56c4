"""Objects are read and put as they are, or a sentence tells why not, whatever a store and the way to it do meanwhile."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchchat.errors import ConfigError, ResultsLockedError
from batchchat.mirrors.lease import Lease
from batchchat.storage import (
    ABSENT,
    Segments,
    StorageError,
    get_bytes,
    open_range,
    open_seekable,
    put_bytes,
    put_whole,
    remove,
    stat,
)
from batchchat.storage import s3_store as s3
from batchchat.storage.store import _made
from batchchat.storage.tries import Patience, Tries
from tests.faulty_proxy import Fault, FaultyProxy

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(200)]
HASTY = Patience(4, 0.01, 0.02, 3)


@pytest.fixture(params=["s3", "path", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("at")
    return str(tmp_path / "shared") if request.param == "path" else f"memory://{tmp_path.name}/x"


def put_parts_of(monkeypatch: pytest.MonkeyPatch, path: Path, size: int) -> bytes:
    """A file that goes up in parts of the smallest size that stores allow."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    data = os.urandom(1 << 20) * (size >> 20)
    path.write_bytes(data)
    return data


def test_an_object_is_put_only_where_what_is_there_is_what_was_expected(place: str) -> None:
    first = put_bytes(f"{place}/a", b"1", expect=ABSENT)
    with pytest.raises(StorageError, match="meanwhile"):
        put_bytes(f"{place}/a", b"2", expect=ABSENT)
    second = put_bytes(f"{place}/a", b"22", expect=first)
    with pytest.raises(StorageError, match="meanwhile"):
        put_bytes(f"{place}/a", b"3", expect=first)
    assert get_bytes(f"{place}/a") == (b"22", second)
    assert stat(f"{place}/a").size_bytes == 2


def test_what_is_not_there_is_told_apart_from_what_cannot_be_had(place: str) -> None:
    with pytest.raises(StorageError) as missing:
        stat(f"{place}/none")
    assert missing.value.kind == "missing"
    remove(f"{place}/none")


def test_a_stream_begins_at_any_offset_and_is_the_object(place: str, tmp_path: Path) -> None:
    data = os.urandom(700_000)
    (tmp_path / "local").write_bytes(data)
    etag = put_whole(f"{place}/big", str(tmp_path / "local"))
    for start in (0, 1, 262_144, 699_999, 700_000, 800_000):
        with open_range(f"{place}/big", start, etag) as stream:
            assert stream.read() == data[start:]
    with open_seekable(f"{place}/big") as stream:
        stream.seek(-5, os.SEEK_END)
        assert stream.read() == data[-5:]


def test_segments_come_back_in_order_and_leave_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchchat.storage.segments._MOST", 4)
    segments = Segments(f"{place}/parts")
    lines = [b"%d\n" % number for number in range(11)]
    for line in lines:
        segments.append(line)
    later = Segments(f"{place}/parts")
    later.append(b"more\n")
    assert b"".join(Segments(f"{place}/parts").read_all()) == b"".join([*lines, b"more\n"])
    later.remove()
    assert list(Segments(f"{place}/parts").read_all()) == []


def test_an_interrupted_removal_leaves_segments_that_are_found(at: str, proxy: FaultyProxy) -> None:
    segments = Segments(f"{at}/parts", tries=Tries(HASTY))
    for number in range(4):
        segments.append(b"%d\n" % number)
    proxy.faults.append(Fault("fail", "DELETE", "/2.seg", times=99))
    with pytest.raises(StorageError, match="InternalError"):
        segments.remove()
    assert b"".join(Segments(f"{at}/parts").read_all()) == b"0\n1\n"


@pytest.mark.parametrize("what", ["slow down", "fail", "cut"])
def test_reading_goes_on_where_it_was_interrupted(what: str, at: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "local").write_bytes(data)
    put_whole(f"{at}/big", str(tmp_path / "local"))
    proxy.faults.append(Fault(what, "GET", "/big", times=3, skip=1))
    with open_range(f"{at}/big") as stream:
        assert stream.read() == data


def test_an_object_that_changed_in_mid_read_is_an_error_and_no_mix(at: str, proxy: FaultyProxy) -> None:
    put_bytes(f"{at}/big", b"a" * 3_000_000)
    other = lambda: put_bytes(f"{at}/big", b"b" * 3_000_000)  # noqa: E731
    proxy.faults.append(Fault("cut", "GET", "/big", skip=1, after=lambda: None))
    with open_range(f"{at}/big") as stream:
        assert stream.read(10) == b"a" * 10
        other()
        with pytest.raises(StorageError, match="changed it while it was read"):
            stream.read()


def test_an_answer_that_does_not_come_is_asked_for_again(
    at: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_SILENCE_S", 2.0)  # a busy machine is silent for less
    put_bytes(f"{at}/a", b"1")
    _made.cache_clear()
    proxy.faults += [Fault("stall", "HEAD", "/a"), Fault("stall", "GET", "/a")]
    try:
        assert get_bytes(f"{at}/a")[0] == b"1"
    finally:
        _made.cache_clear()
    assert proxy.count("GET", "/a") == 2


def test_of_machines_that_take_hold_of_results_at_once_one_has_them(at: str) -> None:
    def take(number: int) -> bool:
        try:
            Lease(f"{at}/lease.json", at, f"machine {number}", Tries()).take()
        except ResultsLockedError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(take, range(6))) == 1


def test_a_store_that_stays_busy_is_told_of_after_a_bounded_number_of_tries(at: str, proxy: FaultyProxy) -> None:
    proxy.faults.append(Fault("slow down", "PUT", times=99))
    with pytest.raises(StorageError, match="asks to wait or fails \\(SlowDown\\)"):
        put_bytes(f"{at}/a", b"1", tries=Tries(HASTY))
    assert proxy.count("PUT") == HASTY.tries


@pytest.mark.parametrize("expect", ["absent", "etag"])
def test_a_put_whose_answer_was_lost_is_no_conflict(expect: str, at: str, proxy: FaultyProxy) -> None:
    expected = ABSENT if expect == "absent" else put_bytes(f"{at}/a", b"0")
    proxy.faults.append(Fault("lose answer", "PUT", "/a"))
    etag = put_bytes(f"{at}/a", b"1", expect=expected)
    assert get_bytes(f"{at}/a") == (b"1", etag)
    assert proxy.count("PUT", "/a", 412) == 1


def test_a_big_file_goes_up_in_parts_whatever_becomes_of_each(
    at: str, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = put_parts_of(monkeypatch, tmp_path / "local", 11 << 20)
    proxy.faults += [
        Fault("cut request", "PUT", "partNumber=2"),
        Fault("slow down", "PUT", "partNumber=3", times=2),
        Fault("lose answer", "PUT", "partNumber=1"),
        Fault("lose answer", "POST", "uploadId="),
    ]
    etag = put_whole(f"{at}/big", str(tmp_path / "local"), expect=ABSENT)
    assert get_bytes(f"{at}/big") == (data, etag)
    with pytest.raises(StorageError, match="meanwhile"):
        put_whole(f"{at}/big", str(tmp_path / "local"), expect=ABSENT)
    assert proxy.count("DELETE", "uploadId=", 204)  # its parts do not stay


def test_only_one_of_two_that_put_a_new_object_at_once_has_put_it(place: str) -> None:
    def put(text: bytes) -> bool:
        try:
            put_bytes(f"{place}/a", text, expect=ABSENT)
        except StorageError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(put, [b"%d" % number for number in range(8)]))
    assert sum(done) == 1 or place.startswith("memory:")
    assert get_bytes(f"{place}/a")[0] in {b"%d" % number for number, ok in enumerate(done) if ok}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://key:hidden@bucket/a", "found a secret"),
        ("s3://bucket/a?X-Amz-Signature=hidden&x=1", "found a secret"),
        ("s3://bucket/", "expected the name of an object"),
        ("s3://bucket", "expected the name of an object"),
        ("ftp://host/a", "expected an address that begins with s3://"),
    ],
)
def test_an_address_that_is_none_is_told_without_its_secrets(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        stat(url)
    assert "hidden" not in str(error.value)


def test_keys_that_are_wrong_and_a_bucket_that_is_none_are_told_apart(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="there is no bucket nobody"):
        stat("s3://nobody/a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    _made.cache_clear()
    try:
        with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID") as error:
            get_bytes(f"{at}/a")
        assert error.value.kind == "denied"
        assert "wrong" not in str(error.value)
    finally:
        _made.cache_clear()


def test_tries_are_further_and_further_apart_and_end_when_given_up() -> None:
    from batchchat.storage.faults import TransientError

    tries, count = Tries(Patience(100, 30.0, 60.0, 100)), itertools.count()

    def busy() -> None:
        next(count)
        tries.give_up()
        raise TransientError("s3://bucket/a", "busy")

    with pytest.raises(StorageError, match="given up after: busy"):
        tries.call(busy)
    assert next(count) == 1
