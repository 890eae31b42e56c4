"""Disks that are full, slow, read-only or lying, under results, errors file and summary."""

import errno
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

from batchchat.devserver.question import filled
from tests.chaos.disk_shim import fault, shim_environ
from tests.chaos.registry import Unavailable, case
from tests.chaos.result_files import read_answers
from tests.chaos.world import World

PROMPTS = 60


def spilled_ids(world: World, folder: Path | None = None) -> set[str]:
    """Ids of the answers in spill files."""
    ids: set[str] = set()
    for path in (folder or world.folder).glob("batchchat-spill-*"):
        ids |= set(read_answers(path).texts)
    return ids


def judge_kept(world: World, *, said: str = "", elsewhere: set[str] | None = None) -> None:
    """After a run that could not write: every answer that had arrived is in the results or in the spill."""
    kept = set(world.look().texts) | (spilled_ids(world) if elsewhere is None else elsewhere)
    delivered = world.log().delivered()
    gone = [key for key, text in world.prompts.items() if delivered[text] and key not in kept]
    world.verdict.blame(
        "lost", f"{len(gone)} answers are neither in the results nor spilled: {gone[:3]} {said}", len(gone)
    )
    if spilled_ids(world) and said and "batchchat-spill-" not in said:
        world.verdict.blame("wrong", f"the spill file is not named: {said[-300:]}")


def _fails_then_resumes(world: World, faults: list[str], codes: set[int]) -> None:
    """A run on a faulty disk, then one on a sound one; nothing is paid for twice."""
    process = world.start(environ=shim_environ(world.folder, faults=faults))
    world.end(process, codes)
    judge_kept(world, said=world.said(process))
    world.finish()


@case("disk", "a write to the results fails for good (full, quota, read-only, I/O error)", tries=6, in_test=2)
def write_fails(world: World) -> None:
    world.suffix = world.rng.choice([".jsonl", ".jsonl", ".jsonl.gz", ".jsonl.zst"])
    world.form = world.rng.choice(["flat", "openai-batch"])
    world.options = ["--fsync", world.rng.choice(["interval", "always", "never"])]
    world.write_prompts(PROMPTS)
    error = world.rng.choice([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG])
    # The first write of a run is at its start only where it has something to mend.
    first = world.rng.randrange(1, 20)
    with world.serving(latency_ms=20, latency_jitter=1):
        _fails_then_resumes(world, [fault("write", f"results{world.suffix}", first=first, error=error)], {6})


@case("disk", "fsync of the results fails once", tries=3, in_test=1)
def fsync_fails(world: World) -> None:
    """What a failed fsync leaves is not known to be on the disk, whatever a later one says."""
    world.write_prompts(PROMPTS)
    world.options = ["--fsync", world.rng.choice(["interval", "always"])]
    with world.serving(latency_ms=60):
        faults = [fault("fsync", "results.jsonl", first=1, times=1, error=errno.EIO)]
        _fails_then_resumes(world, faults, {6})


@case("disk", "writes take less than they were given", tries=2, in_test=1)
def short_writes(world: World) -> None:
    world.write_prompts(PROMPTS)
    with world.serving(latency_ms=5):
        world.run(environ=shim_environ(world.folder, faults=[fault("write", "results", error=-1)]))
        world.judge()


@case("disk", "every write to the results takes 50 ms or more", tries=1, in_test=1)
def slow_disk(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--fsync", "always"]
    faults = [fault("write", "results.jsonl", wait_ms=50), fault("fsync", "results.jsonl", wait_ms=50)]
    with world.serving():
        process = world.start(environ=shim_environ(world.folder, faults=faults))
        world.wait_for_chats(PROMPTS // 3, process)
        world.kill(process)
        world.run(environ=shim_environ(world.folder, faults=faults))
        world.judge()


@case("disk", "a slow disk holds back the asking, and memory stays flat", tries=1)
def slow_disk_memory(world: World) -> None:
    """Answers of 40 kB, 10 writes a second: what waits for the disk is bounded by the slots, not by the input."""
    world.write_prompts(400)
    world.options = ["--carry", "none"]
    faults = [fault("write", "results.jsonl", wait_ms=100)]
    peaks = []
    with world.serving(reply_chars=40_000):
        world.expected = lambda text: filled(f"Echo: {text}", 40_000)
        for count in (60, 400):
            world.results.unlink(missing_ok=True)
            world.saved = {}
            process = world.start("--limit", str(count), environ=shim_environ(world.folder, faults=faults))
            peaks.append(_peak_kb(process))
            world.end(process, {0})
    more = peaks[1] - peaks[0]
    note = f"400 answers of 40 kB took {more} kB more at the peak than 60 did"
    world.verdict.blame("wrong", note, int(more > 6_000))


def _peak_kb(process: subprocess.Popen[bytes]) -> int:
    """The most memory that a process has had, read while it runs; 0 where the system does not tell."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError as error:
            raise Unavailable("needs /proc") from error
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, int(line.split()[1]))
        time.sleep(0.05)
    return peak


@case("disk", "the results may not grow any further (RLIMIT_FSIZE), spill included", tries=3, in_test=1)
def file_size_limit(world: World) -> None:
    """Each file may hold 6 kB; a spill that is full is followed by another, the errors file and the summary fit."""
    world.write_prompts(PROMPTS)
    size = world.rng.randrange(4_000, 9_000)
    with world.serving(latency_ms=20):
        process = world.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
        world.end(process, {6})
        judge_kept(world, said=world.said(process))
        world.finish()


@case("disk", "the disk of results and spill is full, and has room later (tmpfs)", tries=2, in_test=1)
def full_tmpfs(world: World) -> None:
    """In a mount namespace of its own: results, errors, summary and TMPDIR on a file system of 40 kB."""
    script = 'set -e; mount -t tmpfs -o size=40k tmpfs "$1"; shift; exec "$@"'
    _needs_mounts()
    small = world.folder / "small"
    small.mkdir()
    world.results_folder = small
    world.write_prompts(200)
    with world.serving(latency_ms=10):
        command = ["unshare", "-m", "sh", "-c", script, "sh", str(small), "sh", "-c"]
        copy = f'"$@"; code=$?; cp -r {small} {world.folder}/after; exit $code'
        process = world.start_command(
            [*command, copy, "sh", *world.command()], environ={"TMPDIR": str(small)}, cwd=str(world.folder)
        )
        code = process.wait(60)
        world.verdict.blame("wrong_exit", f"{code}: {world.said(process)[-400:]}", int(code != 6))
        _out_of(world.folder / "after", small)
        elsewhere = spilled_ids(world) | spilled_ids(world, small) | spilled_ids(world, Path("/dev/shm"))
        judge_kept(world, said=world.said(process), elsewhere=elsewhere)
        world.finish()


def _out_of(after: Path, small: Path) -> None:
    """What was on the small file system is now in the folder that it hid."""
    for path in after.iterdir():
        if path.is_file():
            shutil.copy2(path, small / path.name)


def _needs_mounts() -> None:
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("unshare") is None:
        raise Unavailable("needs root and unshare")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        raise Unavailable("needs the right to mount")


@case("disk", "the disk becomes read-only in mid-run", tries=2, in_test=1)
def read_only_in_mid_run(world: World) -> None:
    """A tmpfs that is remounted; nothing that was open for writing is, so writes fail and the rest is spilled."""
    _needs_mounts()
    world.write_prompts(PROMPTS)
    with world.serving(latency_ms=30):
        first = world.rng.randrange(2, 12)
        faults = [
            fault(call, "results", first=1 if call != "write" else first, error=errno.EROFS)
            for call in ("write", "rename", "unlink", "ftruncate")
        ]
        process = world.start(environ=shim_environ(world.folder, faults=faults))
        world.end(process, {6})
        judge_kept(world, said=world.said(process))
        world.finish()


@case("disk", "renames fail as on network file systems", tries=4, in_test=1)
def renames_fail(world: World) -> None:
    """The errors file and the summary cannot be put in place: told, and no answer is touched by it."""
    world.write_prompts(PROMPTS)
    error = world.rng.choice([errno.EXDEV, errno.ESTALE, errno.EBUSY, errno.EACCES, errno.EIO])
    with world.serving(latency_ms=5):
        process = world.start(environ=shim_environ(world.folder, faults=[fault("rename", "results", error=error)]))
        world.end(process, {6})
        judge_kept(world, said=world.said(process))
        world.finish()


@case("disk", "the rewriting for --on-change redo meets a failing disk", tries=4, in_test=1)
def redo_fails(world: World) -> None:
    """Nothing is asked, and the results are byte for byte as they were."""
    world.write_prompts(PROMPTS)
    with world.serving():
        world.run()
        before = world.results.read_bytes()
        asked = len(world.log().chats)
        changed = world.rng.sample(sorted(world.prompts), 20)
        old = dict(world.prompts)
        world.prompts |= {key: f"{world.prompts[key]} please" for key in changed}
        world.stale = {key: f"Echo: {text}" for key, text in old.items()}
        lines = [f'{{"id": "{key}", "prompt": "{text}"}}\n' for key, text in world.prompts.items()]
        world.input.write_text("".join(lines))
        call = world.rng.choice(
            ["write:results.jsonl.rewriting", "fsync:results.jsonl.rewriting", "rename:results.jsonl"]
        )
        faults = [fault(*call.split(":"), error=errno.EIO)]
        world.run("--on-change", "redo", codes={6}, environ=shim_environ(world.folder, faults=faults), resumes=False)
        if world.results.read_bytes() != before:
            world.verdict.blame("wrong", f"{call}: the results changed")
        if len(world.log().chats) != asked:
            world.verdict.blame("asked_twice_beyond", f"{call}: prompts were asked")
        world.saved = {}
        world.run("--on-change", "redo")
        world.stale = {}
        world.judge()


@case("disk", "close of the results fails, as on network file systems", tries=1, in_test=1)
def close_fails(world: World) -> None:
    world.write_prompts(PROMPTS)
    with world.serving():
        faults = [fault("close", "results", error=errno.EIO)]
        process = world.start(environ=shim_environ(world.folder, faults=faults))
        world.end(process, {0, 6})
        judge_kept(world, said=world.said(process))
        world.finish()


@case("disk", "the cache of the nonce cannot be written", tries=2, in_test=1)
def cache_fails(world: World) -> None:
    """A failing cache is no reason to stop."""
    world.provider = "ai-engine"
    world.write_prompts(PROMPTS)
    call = world.rng.choice(["open", "write", "rename", "fsync"])
    with world.serving(nonce_uses=20):
        faults = [fault(call, "/cache/", error=world.rng.choice([errno.ENOSPC, errno.EROFS, errno.EACCES]))]
        world.run(environ=shim_environ(world.folder, faults=faults))
        world.judge()
