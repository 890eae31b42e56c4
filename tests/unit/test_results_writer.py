"""Appending to results and errors files: what counts as written, and where answers go that cannot be."""

import asyncio
import gzip
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from batchchat.errors import ResultsWriteError
from batchchat.results import ErrorsWriter, ResultsWriter, WriteFailedError, open_journal, run_files
from batchchat.run_output import OutputSettings, RunOutput
from tests.result_lines import answer, failure


def writer_of(path, **options) -> ResultsWriter:
    return ResultsWriter(open_journal(run_files(str(path))), **options)


def no_thread_left() -> bool:
    return not any(thread.name.startswith("batchchat-") for thread in threading.enumerate())


@pytest.fixture
def spill_in(tmp_path):
    """The folder that answers are spilled to."""
    folder = tmp_path / "spill"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("fsync", ["interval", "always", "never"])
async def test_line_is_in_the_file_when_write_returns(tmp_path, fsync):
    path = tmp_path / "r.jsonl"
    writer = writer_of(path, fsync=fsync)
    for number in range(3):
        await writer.write(answer(number))
        assert path.read_bytes().endswith(answer(number))
    await writer.close()
    assert path.read_bytes() == b"".join(map(answer, range(3)))
    assert no_thread_left()


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
async def test_many_writers_at_once_give_one_whole_line_each(tmp_path, ending):
    path = tmp_path / f"r.jsonl{ending}"
    writer = writer_of(path)
    await asyncio.gather(*(writer.write(answer(number, "x" * number)) for number in range(500)))
    await writer.close()
    journal = open_journal(run_files(str(path)))
    journal.close()
    assert len(journal.completed) == 500
    assert journal.repairs == []


async def test_lines_of_one_moment_go_out_as_one_write(tmp_path, monkeypatch):
    """Also those that come while others are being written, of which there may be many by then."""
    sizes, write, go = [], os.write, threading.Event()

    def slow_write(fd, data):
        if len(data) > 20:  # no wake-up of a loop
            sizes.append(len(data))
            go.wait(30)
        return write(fd, data)

    writer = writer_of(tmp_path / "r.jsonl")
    monkeypatch.setattr("batchchat.results.appender.os.write", slow_write)
    first = [asyncio.create_task(writer.write(answer(number))) for number in range(50)]
    while not sizes:
        await asyncio.sleep(0)
    later = [asyncio.create_task(writer.write(answer(number))) for number in range(50, 200)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in first + later)
    go.set()
    await asyncio.gather(*first, *later)
    monkeypatch.undo()
    await writer.close()
    assert sizes == [sum(len(answer(number)) for number in numbers) for numbers in (range(50), range(50, 200))]


async def test_close_writes_what_came_in_the_same_turn(tmp_path):
    path = tmp_path / "r.jsonl"
    writer = writer_of(path)
    for number in range(3):
        writer.write_soon(answer(number))
    await writer.close()
    assert path.read_bytes() == b"".join(map(answer, range(3)))


NO_THREADS = """\
def start(thread): raise RuntimeError("can't start new thread")
threading.Thread.start = start
"""


@pytest.mark.parametrize("threads", ["", NO_THREADS], ids=["with a thread", "without a thread"])
def test_process_that_never_closes_writes_what_was_queued(tmp_path, threads):
    path = tmp_path / "r.jsonl"
    code = (
        "import asyncio, threading\n"
        "from batchchat.results import ResultsWriter, open_journal, run_files\n"
        "from tests.result_lines import answer\n"
        f"{threads}"
        "async def main():\n"
        f"    writer = ResultsWriter(open_journal(run_files({str(path)!r})))\n"
        "    for number in range(3):\n"
        "        writer.write_soon(answer(number))\n"
        "    asyncio.get_running_loop().stop()\n"
        "    await asyncio.sleep(60)\n"
        "loop = asyncio.new_event_loop()\n"
        "task = loop.create_task(main())\n"
        "loop.run_forever()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
    assert path.read_bytes() == b"".join(map(answer, range(3)))


async def test_end_that_comes_while_the_sync_begins_is_not_missed(tmp_path) -> None:
    """The syncer's interval is over, and before it takes back its call it is called to end."""

    class Late(threading.Event):
        def set(self) -> None:
            super().set()
            if stopping.is_set():
                called_to_end.set()

        def clear(self) -> None:
            if not called_to_end.wait(30):
                raise TimeoutError("nobody ended the writer")
            super().clear()

    called_to_end, stopping = threading.Event(), threading.Event()
    writer = writer_of(tmp_path / "r.jsonl", interval_s=0.0)
    writer._dirty = Late()
    await writer.write(answer(1))
    stopping.set()
    async with asyncio.timeout(20):
        await writer.close()
    assert no_thread_left()


async def test_compressed_file_is_whole_after_every_write(tmp_path):
    path = tmp_path / "r.jsonl.gz"
    writer = writer_of(path)
    await writer.write(answer("a"))
    await writer.write(answer("b"))
    assert gzip.decompress(path.read_bytes()) == answer("a") + answer("b")
    await writer.close()


async def test_cancelled_writer_does_not_take_its_line_back(tmp_path):
    path = tmp_path / "r.jsonl"
    writer = writer_of(path)
    task = asyncio.create_task(writer.write(answer("a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await writer.close()
    assert path.read_bytes() == answer("a")


async def test_interval_brings_lines_to_the_disk_without_a_further_line(tmp_path):
    class Counting(ResultsWriter):
        synced = threading.Event()

        def _sync(self) -> None:
            super()._sync()
            self.synced.set()

    writer = Counting(open_journal(run_files(str(tmp_path / "r.jsonl"))), interval_s=0.01)
    await writer.write(answer("a"))
    assert await asyncio.to_thread(writer.synced.wait, 20)
    await writer.close()


async def test_lock_is_held_until_close(tmp_path):
    path = tmp_path / "r.jsonl"
    writer = writer_of(path)
    with pytest.raises(ResultsWriteError.__base__, match="another run"):
        writer_of(path)
    await writer.close()
    await writer.close()
    await writer_of(path).close()


async def test_full_device_fails_with_the_answers_spilled(spill_in):
    failures = []
    writer = writer_of("/dev/full", on_failure=failures.append, rescue_folders=[str(spill_in)])
    with pytest.raises(WriteFailedError, match="/dev/full: results cannot be written: No space left") as caught:
        await writer.write(answer("a"))
    with pytest.raises(WriteFailedError):
        await writer.write(answer("b"))
    with pytest.raises(WriteFailedError):
        await writer.close()
    assert caught.value.exit_code == 6
    assert not caught.value.quiet
    [spilled] = writer.spilled
    assert spilled in str(caught.value)
    assert Path(spilled).parent == spill_in
    assert Path(spilled).read_bytes() == answer("a") + answer("b")
    assert Path(spilled).stat().st_mode & 0o777 == 0o600
    assert len(failures) == 1
    assert no_thread_left()


def test_file_that_may_not_grow_keeps_whole_lines_only(tmp_path, spill_in):
    """A limit on file size is met in the middle of the third line: that line is spilled, the file ends before it."""
    path = tmp_path / "r.jsonl"
    limit = len(answer(0)) * 2 + 50
    asyncio.run(_write_against_limit(path, limit, spill_in))
    assert path.read_bytes() == answer(0) + answer(1)
    [spilled] = spill_in.iterdir()
    assert spilled.read_bytes() == answer(2) + answer(3)
    path.write_bytes(path.read_bytes() + spilled.read_bytes())
    journal = open_journal(run_files(str(path)))
    journal.close()
    assert len(journal.completed) == 4
    assert journal.repairs == []


async def _write_against_limit(path: Path, limit: int, spill_in: Path) -> None:
    writer = writer_of(path, rescue_folders=[str(spill_in)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        found = await asyncio.gather(*(writer.write(answer(number)) for number in range(4)), return_exceptions=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found[:2] == [None, None]
    assert all(isinstance(error, WriteFailedError) and "File too large" in str(error) for error in found[2:])
    with pytest.raises(WriteFailedError):
        await writer.close()


async def test_answers_that_fit_nowhere_are_told_by_id(tmp_path):
    writer = writer_of("/dev/full", rescue_folders=[str(tmp_path / "missing"), "/dev/full"])
    with pytest.raises(WriteFailedError, match=r"1 answers could be kept nowhere .*: 'a'"):
        await writer.write(answer("a"))
    with pytest.raises(WriteFailedError):
        await writer.close()


async def test_reader_that_goes_away_is_a_quiet_end(tmp_path, spill_in):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = writer_of(pipe, rescue_folders=[str(spill_in)])
    await writer.write(answer("a"))
    assert os.read(reader, 10_000) == answer("a")
    os.close(reader)
    with pytest.raises(WriteFailedError) as caught:
        await writer.write(answer("b"))
    assert caught.value.quiet
    with pytest.raises(WriteFailedError):
        await writer.close()
    assert list(spill_in.iterdir()) == []


@pytest.mark.parametrize("replace", [False, True], ids=["removed", "replaced"])
async def test_results_removed_during_the_run_are_recovered(tmp_path, spill_in, replace):
    path = tmp_path / "r.jsonl"
    failed = asyncio.Event()
    writer = writer_of(path, interval_s=0.01, on_failure=lambda error: failed.set(), rescue_folders=[str(spill_in)])
    await writer.write(answer("a"))
    path.unlink()
    if replace:
        path.write_bytes(b"")
    try:
        await writer.write(answer("b"))
        await asyncio.wait_for(failed.wait(), 20)
    except WriteFailedError:
        assert failed.is_set()
    with pytest.raises(WriteFailedError, match=r"removed or replaced.*r\.recovered\.jsonl"):
        await writer.write(answer("c"))
    with pytest.raises(WriteFailedError):
        await writer.close()
    saved = (tmp_path / "r.recovered.jsonl").read_bytes() + b"".join(file.read_bytes() for file in spill_in.iterdir())
    assert saved == answer("a") + answer("b") + answer("c")


async def test_results_folder_removed_during_the_run_is_noticed_at_the_end(tmp_path, spill_in):
    path = tmp_path / "out" / "r.jsonl"
    writer = writer_of(path, fsync="never", interval_s=3600, rescue_folders=[str(spill_in)])
    await writer.write(answer("a"))
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(WriteFailedError, match="removed or replaced"):
        await writer.close()
    [recovered] = spill_in.iterdir()
    assert recovered.read_bytes() == answer("a")


async def test_results_cut_by_another_program_are_noticed(tmp_path, spill_in):
    path = tmp_path / "r.jsonl"
    writer = writer_of(path, fsync="always", rescue_folders=[str(spill_in)])
    await writer.write(answer("a"))
    os.truncate(path, 0)
    await writer.write(answer("b"))
    with pytest.raises(WriteFailedError, match=f"cut the results file from {2 * len(answer('a'))} to "):
        await writer.write(answer("c"))
    with pytest.raises(WriteFailedError):
        await writer.close()


async def test_failed_sync_spills_what_may_not_be_on_disk(tmp_path, spill_in):
    class Failing(ResultsWriter):
        def _sync(self) -> None:
            raise OSError(5, "Input/output error")

    journal = open_journal(run_files(str(tmp_path / "r.jsonl")))
    writer = Failing(journal, interval_s=3600, rescue_folders=[str(spill_in)])
    await writer.write(answer("a"))
    with pytest.raises(WriteFailedError, match=r"Input/output error.*spill"):
        await writer.close()
    [spilled] = spill_in.iterdir()
    assert spilled.read_bytes() == answer("a")


async def test_errors_file_takes_the_old_ones_place_only_at_the_end(tmp_path):
    path = tmp_path / "r.errors.jsonl"
    path.write_bytes(b"old\n")
    writer = ErrorsWriter(str(path))
    await writer.write(failure("a"))
    assert path.read_bytes() == b"old\n"
    assert orjson.loads((tmp_path / "r.errors.jsonl.part").read_bytes())["id"] == "a"
    await writer.close()
    assert path.read_bytes() == failure("a")
    assert os.listdir(tmp_path) == ["r.errors.jsonl"]


async def test_errors_file_is_there_even_when_nothing_failed(tmp_path):
    path = tmp_path / "e.jsonl.gz"
    await ErrorsWriter(str(path)).close()
    assert path.read_bytes() == b""
    writer = ErrorsWriter(str(path))
    await writer.write(failure("a"))
    await writer.close()
    assert gzip.decompress(path.read_bytes()) == failure("a")


async def test_errors_without_a_file_go_nowhere():
    writer = ErrorsWriter(None)
    await writer.write(failure("a"))
    await writer.close()
    with pytest.raises(ResultsWriteError, match="errors cannot be written"):
        ErrorsWriter("/proc/no/such/folder/e.jsonl")


@pytest.fixture
def no_threads(monkeypatch):
    """The system lets this process start no more threads."""

    def start(thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


async def test_without_a_thread_answers_are_written_in_place_and_the_run_is_told(tmp_path, no_threads):
    path, failures = tmp_path / "r.jsonl", []
    writer = writer_of(path, on_failure=failures.append)
    async with asyncio.timeout(20):
        for number in range(2):
            with pytest.raises(WriteFailedError, match=r"r\.jsonl: .* no more threads; .* is kept") as caught:
                await writer.write(answer(number))
        writer.write_soon(answer(2))
        with pytest.raises(WriteFailedError, match="no more threads"):
            await writer.close()
    assert path.read_bytes() == b"".join(map(answer, range(3)))
    assert len(failures) == 1
    assert (caught.value.exit_code, caught.value.quiet, writer.spilled) == (6, False, ())
    open_journal(run_files(str(path))).close()  # nobody holds it any more


async def test_without_a_thread_an_answer_that_does_not_fit_is_spilled(spill_in, no_threads):
    writer = writer_of("/dev/full", rescue_folders=[str(spill_in)])
    async with asyncio.timeout(20):
        with pytest.raises(WriteFailedError, match="No space left"):
            await writer.write(answer("a"))
        with pytest.raises(WriteFailedError):
            await writer.close()
    [spilled] = writer.spilled
    assert Path(spilled).read_bytes() == answer("a")


async def test_errors_file_gets_its_name_without_a_thread(tmp_path, no_threads):
    async with asyncio.timeout(20):
        await ErrorsWriter(str(tmp_path / "e.jsonl")).close()
    assert os.listdir(tmp_path) == ["e.jsonl"]


async def test_a_bug_at_the_end_of_a_file_is_no_good_end(tmp_path):
    class Broken(ResultsWriter):
        def _finish(self) -> None:
            super()._finish()
            raise KeyError("bug")

    with pytest.raises(WriteFailedError, match=r"r\.jsonl: results cannot be written: KeyError\('bug'\)"):
        await Broken(open_journal(run_files(str(tmp_path / "r.jsonl")))).close()


async def test_results_are_closed_whatever_the_errors_file_raises(tmp_path, monkeypatch):
    async def close(writer) -> None:
        raise RuntimeError("bug")

    files = run_files(str(tmp_path / "r.jsonl"))
    output = RunOutput.open(files, OutputSettings())
    output.begin({}, lambda error: None)
    monkeypatch.setattr(ErrorsWriter, "close", close)
    assert await output.close() == [f"{files.results}: results cannot be brought to their end: RuntimeError('bug')"]
    open_journal(files).close()  # nobody holds it any more
