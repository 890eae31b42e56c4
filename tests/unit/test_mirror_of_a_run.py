"""What a run keeps on its machine until the store has it, and what it takes from there once it ends or begins."""

import asyncio
import errno
import os
import random
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchchat.compress import compression_of
from batchchat.mirrors import shipping
from batchchat.mirrors.lease import LeaseLostError
from batchchat.mirrors.mirror import Mirror
from batchchat.mirrors.parts import Marker, read_marker, write_marker
from batchchat.mirrors.place import mirror_place
from batchchat.results.codec import Codec, iter_decoded
from batchchat.run_output import OutputSettings, RunOutput
from batchchat.storage import Segments, StorageError, get_bytes, objects, put_bytes, remove
from batchchat.storage.tries import Tries
from tests.result_lines import answer

pytest.importorskip("fsspec")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/a.jsonl"


def line(prompt_id: str, text: str = "an answer", fingerprint: str = "1" * 16) -> bytes:
    return answer(prompt_id, text, fingerprint=fingerprint)


def opened(mirror: Mirror) -> RunOutput:
    return RunOutput.open(mirror.place.local, OutputSettings(), mirror)


async def begun(url: str) -> tuple[Mirror, RunOutput]:
    mirror = Mirror(mirror_place(url))
    output = await asyncio.to_thread(opened, mirror)
    output.begin({}, lambda error: None)
    return mirror, output


async def ended(mirror: Mirror, output: RunOutput) -> list[str]:
    return [*await output.close(), *await asyncio.to_thread(mirror.finish)]


async def stored(url: str) -> list[bytes]:
    """The results after one more run, which asks nothing."""
    assert await ended(*await begun(url)) == []
    return get_bytes(url)[0].splitlines(keepends=True)


def refuse_all(output: RunOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, neither the results nor the temporary folder take anything."""
    temporary = tempfile.gettempdir()
    open_file = os.open

    def full(view: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opening(path, *how, **more):
        if os.path.dirname(os.fspath(path)) == temporary:
            full(memoryview(b""))
        return open_file(path, *how, **more)

    monkeypatch.setattr(output._results, "_write_some", full)
    monkeypatch.setattr(os, "open", opening)


async def test_answers_that_were_spilled_beside_the_mirror_are_taken_in_by_the_next_run(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        mirror, output = await begun(url)
        await output._results.write(line("q-1"))
        refuse_all(output, patch)
        output._results.write_soon(line("q-2"))
        told = await ended(mirror, output)
    (spilled,) = output._results.spilled
    assert os.path.dirname(spilled) == mirror.place.folder
    assert "No space left" in told[0]
    assert f"the next run takes them in if it begins on {socket.gethostname()}" in told[0]
    assert told[1:] == [
        f"{url}: not brought up whole, as it could not be written here; all answers are kept in the folder "
        f"{mirror.place.folder}, and the same command takes them in"
    ]
    assert await stored(url) == [line("q-1"), line("q-2")]
    assert not os.path.exists(mirror.place.folder)


@pytest.mark.usefixtures("without_shipping")
async def test_the_copy_of_results_that_were_removed_is_taken_in_by_the_next_run(url: str) -> None:
    mirror, output = await begun(url)
    await output._results.write(line("q-1"))
    os.unlink(mirror.place.local.results)
    assert "all answers are in" in (await ended(mirror, output))[0]
    assert await stored(url) == [line("q-1")]


@pytest.mark.skipif(sys.platform == "win32", reason="there, a lock that is held cannot be removed")
def test_a_mirror_that_is_removed_loses_its_lock_last_and_stays_with_who_has_it_then(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_bytes(url, line("q-1"))
    mirror, following = Mirror(mirror_place(url)), Mirror(mirror_place(url))
    mirror.open()
    folder, unlink, left = Path(mirror.place.folder), os.unlink, list[list[str]]()
    for number in range(20):
        (folder / f"copy-{number}").touch()
    (folder / "errors").mkdir()

    def unlinking(path: str, **how: int) -> None:
        unlink(path, **how)
        if os.path.basename(path) == "lock" and not left:
            left.append(os.listdir(folder))
            following.open()

    monkeypatch.setattr(os, "unlink", unlinking)
    assert mirror.finish() == []
    assert left == [[]]
    assert Path(following.place.local.results).read_bytes() == line("q-1")
    following.finish()
    assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there, a lock that is held cannot be removed")
def test_a_mirror_that_is_taken_away_before_it_is_locked_is_made_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, makedirs, made = Mirror(mirror_place(url)), os.makedirs, list[str]()

    def making(path: str, *how, **more) -> None:
        makedirs(path, *how, **more)
        made.append(path)
        if len(made) == 1:
            os.rmdir(path)

    with monkeypatch.context() as patch:
        patch.setattr("batchchat.mirrors.folder.os.makedirs", making)
        mirror.open()
    assert made[:2] == [mirror.place.folder] * 2
    mirror.finish()


async def published(url: str) -> Mirror:
    """A run on workers that has brought all up and has not ended yet."""
    mirror, output = await begun(url)
    await output._results.write(line("q-1"))
    mirror._segments.append(line("q-1"))
    write_marker(url, Marker(token="ours", first=1, last=2, merged=True), Tries())
    assert await output.close() == []
    return mirror


def removing(monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None]) -> list[str]:
    """Names of objects that are removed, in order; ``before`` is told each at its turn."""
    names = list[str]()

    def remove(place: str, *, tries: Tries | None = None) -> None:
        names.append(place.rpartition("/")[2])
        before(names[-1])
        objects.remove(place, tries=tries)

    for module in ("batchchat.mirrors.parts", "batchchat.storage.segments", "batchchat.mirrors.lease"):
        monkeypatch.setattr(f"{module}.remove", remove, raising=False)
    return names


async def test_the_lease_is_renewed_until_nothing_is_removed_any_more(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, renewed = await published(url), dict[str, bool]()
    names = removing(
        monkeypatch, lambda name: renewed.setdefault(name, mirror._keeper._thread.is_alive() or name == "lease.json")
    )
    assert await asyncio.to_thread(mirror.finish) == []
    assert {"1.seg", "part-000001.jsonl", "workers.json"} <= set(names)
    assert all(renewed.values()), renewed


async def test_the_marker_of_another_run_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has the results since, as this run's renewals did not come through."""
    mirror, theirs = await published(url), Marker(token="theirs", first=1, last=33)
    removing(monkeypatch, lambda name: name == "part-000001.jsonl" and write_marker(url, theirs, Tries()))
    assert await asyncio.to_thread(mirror.finish) == []
    assert read_marker(url, Tries()) == theirs


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_what_has_the_names_of_another_runs_segments_stays_once_the_lease_is_lost(
    when: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = await published(url)
    keeper = mirror._keeper
    mirror._segments.append(line("q-2"))

    def lose() -> None:
        keeper.lost = LeaseLostError(url, "another run has taken these results over")

    if when == "before":
        lose()
    removing(monkeypatch, lambda name: name == "2.seg" and lose())
    assert await asyncio.to_thread(mirror.finish) == []
    assert get_bytes(f"{url}.parts/1.seg")[0] == line("q-1")


OLD, NEW = line("q-1", "old", "1" * 16), line("q-1", "new", "2" * 16)


async def redone(url: str) -> tuple[Mirror, RunOutput]:
    """A run whose prompt q-1 is another one than before."""
    mirror = Mirror(mirror_place(url))
    output = await asyncio.to_thread(opened, mirror)
    output.redo(["q-1"])
    output.begin({}, lambda error: None)
    return mirror, output


async def killed(mirror: Mirror, output: RunOutput, shipped: bytes) -> None:
    """Of what the run has written, only so much has come to the store; nobody waits for its lease to end."""
    mirror._shipping.close()
    if shipped:
        mirror._segments.append(shipped)
    mirror._keeper.close()
    await output._errors.close()
    await output._results.close()
    mirror._folder.close()
    remove(f"{mirror.place.remote.results}.parts/lease.json")


@pytest.fixture
def without_shipping(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes up does so when a test says it."""
    monkeypatch.setattr("batchchat.mirrors.shipping.Shipping.start", lambda self: None)
    monkeypatch.setattr("batchchat.mirrors.shipping.Shipping.close", lambda self: None)


@pytest.mark.usefixtures("without_shipping")
@pytest.mark.parametrize("then", ["ends", "is killed"])
async def test_what_a_killed_run_left_takes_no_newer_answers_place(
    then: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's run has asked the prompt, which was changed, since; the old answer is in the torn file."""
    mirror, output = await begun(url)
    await output._results.write(OLD)
    await killed(mirror, output, OLD)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
        other, output = await redone(url)
        await output._results.write(NEW)
        if then == "ends":
            assert await ended(other, output) == []
        else:
            await killed(other, output, NEW)
    assert await stored(url) == [NEW]
    assert OLD in get_bytes(url.replace(".jsonl", ".torn"))[0]


@pytest.mark.usefixtures("without_shipping")
async def test_what_a_killed_run_left_is_newer_where_nobody_has_been_there_since(url: str) -> None:
    put_bytes(url, OLD)
    mirror, output = await redone(url)
    await output._results.write(NEW)
    await killed(mirror, output, b"")
    # Killed again, before anything of it has come to the store.
    mirror = Mirror(mirror_place(url))
    mirror.open()
    mirror._keeper.close()
    mirror._folder.close()
    remove(f"{url}.parts/lease.json")
    assert await stored(url) == [NEW]
    with pytest.raises(StorageError, match="no such object"):
        get_bytes(f"{url}.parts/mirror.json")


@pytest.mark.usefixtures("without_shipping")
async def test_segments_that_are_left_of_published_results_are_not_newer(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their removal, which begins with the last one, did not come to its end."""
    segments = Segments(f"{url}.parts")
    segments.append(OLD)
    mirror, output = await redone(url)
    await output._results.write(NEW)
    segments.append(NEW)
    assert await output.close() == []

    def killed_then(name: str) -> None:
        if name == "1.seg":
            raise OSError("killed")

    with monkeypatch.context() as patch:
        removing(patch, killed_then)
        assert "killed" in mirror.finish()[0]
    assert list(Segments(f"{url}.parts").read_all()) == [OLD]
    remove(f"{url}.parts/lease.json")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert await stored(url) == [NEW]
    assert list(Segments(f"{url}.parts").read_all()) == []


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
async def test_each_segment_of_what_was_left_can_be_read_without_the_others(
    url: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine takes the answers from them, if this one is lost before the end."""
    monkeypatch.setattr(shipping, "_MOST_BYTES", 500_000)
    mirror = Mirror(mirror_place(url + ending))
    os.makedirs(mirror.place.folder)
    lines = [
        line(f"q-{number}", f"{number} {random.Random(number).randbytes(50_000 * number).hex()}") for number in range(9)
    ]
    Path(mirror.place.local.results).write_bytes(Codec(compression_of(f"a{ending}")).encode(b"".join(lines)))
    output = await asyncio.to_thread(opened, mirror)
    kept = list(Segments(f"{url}{ending}.parts").read_all())
    assert len(kept) > 3
    found = [b"".join(decoded(segment, ending, mirror.place.folder)) for segment in kept]
    assert all(segment.endswith(b"\n") for segment in found)
    assert b"".join(found) == b"".join(lines)
    await ended(mirror, output)


def decoded(data: bytes, ending: str, folder: str) -> list[Any]:
    path = Path(folder) / "segment"
    path.write_bytes(data)
    with path.open("rb") as file:
        return list(iter_decoded(file.fileno(), compression_of(f"a{ending}"), start=0, end=len(data)))
