"""Somebody else has his hands on the files of a run while it is at work."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.chaos.cases.disk import judge_kept, spilled_ids
from tests.chaos.disk_shim import fault, shim_environ
from tests.chaos.registry import case
from tests.chaos.result_files import read_answers
from tests.chaos.world import World

PROMPTS = 60


def _meddled(world: World, meddle: Callable[[], None], *, codes: set[int], **how: dict) -> subprocess.Popen[bytes]:
    """A run whose files are meddled with once half of the prompts have been asked."""
    world.write_prompts(PROMPTS)
    process = world.start(**how)
    world.wait_for_chats(PROMPTS // 2, process)
    meddle()
    world.saved = {}  # what is where is judged by the case
    world.end(process, codes)
    return process


def _recovered(world: World, *folders: Path) -> list[Path]:
    return [path for folder in (world.folder, *folders) for path in folder.rglob("*.recovered*.jsonl")]


def _judge_recovered(world: World, process: subprocess.Popen[bytes]) -> None:
    """Everything is in the recovered file, which is named; the user puts it back, and the next run does the rest."""
    said, found = world.said(process), _recovered(world)
    elsewhere = set().union(spilled_ids(world), *(read_answers(path).texts for path in found))
    judge_kept(world, said=said, elsewhere=elsewhere)
    if len(found) != 1 or str(found[0]) not in said:
        world.verdict.blame("wrong", f"{found} are the recovered files, and were told as {said[-400:]}")
        return
    world.results.parent.mkdir(exist_ok=True)
    if world.results.is_dir():
        world.results.rmdir()
    found[0].replace(world.results)


@case("disk", "the results file is removed or replaced by another in mid-run", tries=5, in_test=1)
def results_replaced(world: World) -> None:
    other = world.folder / "other.jsonl"
    other.write_bytes(b"")

    def to_folder() -> None:
        world.results.unlink()
        world.results.mkdir()

    def to_link() -> None:
        world.results.unlink()
        world.results.symlink_to(other)

    how = world.rng.choice([world.results.unlink, lambda: other.replace(world.results), to_folder, to_link])
    with world.serving(latency_ms=40):
        process = _meddled(world, how, codes={6})
        _judge_recovered(world, process)
        world.finish()


@case("disk", "the folder of the results is removed in mid-run", tries=2, in_test=1)
def folder_removed(world: World) -> None:
    world.results_folder = world.folder / "out"
    with world.serving(latency_ms=40):
        process = _meddled(world, lambda: shutil.rmtree(world.results_folder), codes={6})
        _judge_recovered(world, process)
        world.finish()


@case("disk", "the folder of the results gets another name in mid-run", tries=2, in_test=1)
def folder_renamed(world: World) -> None:
    """The file is still there, under another name; nothing new is asked, and it is told."""
    world.results_folder = world.folder / "out"
    moved = world.folder / "moved"
    with world.serving(latency_ms=40):
        process = _meddled(world, lambda: world.results_folder.rename(moved), codes={6})
        if not moved.exists():
            return
        kept = set(read_answers(moved / "results.jsonl").texts) | spilled_ids(world)
        judge_kept(world, said=world.said(process), elsewhere=kept)
        shutil.rmtree(world.results_folder, ignore_errors=True)
        moved.rename(world.results_folder)
        world.finish()


@case("disk", "somebody cuts the results file in mid-run", tries=2, in_test=1)
def results_cut(world: World) -> None:
    """What was cut off is gone, but nothing else; the run says so and asks no more."""
    cut: set[str] = set()

    def meddle() -> None:
        size = world.results.stat().st_size // 2
        before = set(read_answers(world.results).texts)
        os.truncate(world.results, size)
        cut.update(before - set(read_answers(world.results).texts))

    world.mending = True
    with world.serving(latency_ms=40):
        process = _meddled(world, meddle, codes={0, 6})
        kept = set(world.look().texts) | spilled_ids(world)
        delivered = world.log().delivered()
        gone = {key for key, text in world.prompts.items() if delivered[text]} - kept - cut
        # Lines that were on their way when the file was cut may have gone with it, or run into the cut line.
        world.verdict.blame("lost", f"{sorted(gone)[:3]}", max(0, len(gone) - world.concurrency - 1))
        if process.returncode == 0 and gone | cut:
            world.verdict.blame("wrong_exit", "a cut file passed for a whole one")
        world.forget(*(gone | cut))
        world.finish()


@case("disk", "somebody writes into the results file in mid-run", tries=4, in_test=1)
def results_edited(world: World) -> None:
    """Lines of others are moved away, a line that was overwritten is asked again, everything else stays."""
    spoiled: set[str] = set()

    def append() -> None:
        whole = world.results.read_bytes()
        line = whole[: whole.index(b"\n") + 1]
        junk = world.rng.choice([line, b"\0" * 700 + b"\n", b"not a line of ours\n", line[:40] + b"\n"])
        with world.results.open("ab") as file:
            file.write(junk)

    def overwrite() -> None:
        first = world.results.read_bytes().split(b"\n")[0]
        spoiled.update(
            read_answers(world.results).texts.keys()
            & {f"q-{n}" for n in range(PROMPTS) if f'"q-{n}"'.encode() in first[:16]}
        )
        with world.results.open("r+b") as file:
            file.write(b"#" * (len(first) - 10))

    with world.serving(latency_ms=40):
        world.mending = True
        world.write_prompts(PROMPTS)
        process = world.start()
        world.wait_for_chats(PROMPTS // 2, process)
        world.rng.choice([append, append, append, overwrite])()
        process.wait(60)
        world.forget(*spoiled)
        if process.returncode:
            world.verdict.blame("wrong_exit", f"{process.returncode}: {world.said(process)[-300:]}")
        world.finish()


@case("disk", "somebody appends to the results, then the disk is full", tries=2, in_test=1)
def appended_then_full(world: World) -> None:
    """What is cut off after a write that failed half-way is its own half and nothing else."""
    junk = b'{"id": "foreign"' + b"x" * world.rng.randrange(10, 2_000) + b"\n"

    def append() -> None:
        with world.results.open("ab") as file:
            file.write(junk)

    with world.serving(latency_ms=40):
        world.mending = True
        late = world.rng.randrange(22, 40)
        faults = [
            fault("write", "results.jsonl", first=late, times=1, error=-1),
            fault("write", "results.jsonl", first=late + 1, error=errno.ENOSPC),
        ]
        process = _meddled(world, append, codes={0, 6}, environ=shim_environ(world.folder, faults=faults))
        judge_kept(world, said=world.said(process))
        world.finish()


@case("disk", "errors file or summary cannot be made", tries=3, in_test=1)
def files_beside_cannot_be_made(world: World) -> None:
    """A folder stands in their place: told before anything is asked, or nothing is lost by it."""
    world.write_prompts(20)
    ending = world.rng.choice([".errors.jsonl", ".run.json", ".torn"])
    world.beside(ending).mkdir()
    with world.serving():
        process = world.start()
        world.end(process, {0, 2, 6}, resumes=False)
        if not world.said(process).strip():
            world.verdict.blame("wrong", "nothing was told")
        judge_kept(world, said=world.said(process))
        world.beside(ending).rmdir()
        world.finish()
