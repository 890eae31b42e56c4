"""What a run keeps on its machine until the store has it, and what it takes from there once it ends or begins."""

import asyncio
import errno
import os
import sys
import tempfile
from pathlib import Path

import pytest

from batchchat.mirrors.mirror import Mirror
from batchchat.mirrors.place import mirror_place
from batchchat.run_output import OutputSettings, RunOutput
from batchchat.storage import get_bytes, put_bytes
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
    assert told[1:] == [
        f"{url}: not brought up whole, as it could not be written here; all answers are kept in the folder "
        f"{mirror.place.folder}, and the same command takes them in"
    ]
    assert await stored(url) == [line("q-1"), line("q-2")]
    assert not os.path.exists(mirror.place.folder)


async def test_the_copy_of_results_that_were_removed_is_taken_in_by_the_next_run(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchchat.mirrors.shipping.Shipping.start", lambda self: None)
    monkeypatch.setattr("batchchat.mirrors.shipping.Shipping.close", lambda self: None)
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
