"""What stands around a process: its environment, its folder, its limits, its clock."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.registry import Unavailable, case
from tests.chaos.result_files import read_answers
from tests.chaos.world import World

PROMPTS = 40
_STRANGE = {
    "HOME": ["", "/nowhere", "/dev/null", "relative/home", "/proc/1", "/\udcff\udcfe"],
    "XDG_CACHE_HOME": ["", "relative", "/dev/null", "/proc", "/nowhere/\udcff", "{folder}/a-file"],
    "XDG_CONFIG_HOME": ["", "relative", "/dev/null"],
    "TMPDIR": ["", "/nowhere", "relative", "/dev/null"],
    "LANG": ["C", "POSIX", "tr_TR.UTF-8", "xx_XX.garbage", ""],
    "LC_ALL": ["C", "tr_TR", "de_DE@euro", "\udcff"],
    "PYTHONIOENCODING": ["ascii", "latin-1", "utf-16", "ascii:strict"],
    "PYTHONUTF8": ["0", "1"],
    "PYTHONOPTIMIZE": ["1", "2"],
    "PYTHONUNBUFFERED": ["1"],
    "PYTHONHASHSEED": ["0"],
    "TZ": ["Nowhere/Garbage", "UTC+25", ":", "\udcff", "Europe/Berlin"],
    "TERM": ["", "dumb", "nonsense"],
    "COLUMNS": ["0", "-1", "x", "1"],
    "NO_COLOR": ["1"],
    "FORCE_COLOR": ["1"],
    "PATH": ["", "/nowhere"],
}


@case(
    "process",
    "an environment of garbage: HOME, XDG_*, TMPDIR, locale, TZ, TERM, PYTHON*, umask, at random",
    tries=5,
    in_test=1,
)
def strange_environment(world: World) -> None:
    world.write_prompts(20)
    (world.folder / "a-file").write_text("x")
    with world.serving(latency_ms=2):
        for _ in range(3):
            world.results.unlink(missing_ok=True)
            world.saved.clear()
            world.logs[0].write_bytes(b"")
            chosen = world.rng.sample(sorted(_STRANGE), world.rng.randrange(2, 9))
            strange = {name: world.rng.choice(_STRANGE[name]).replace("{folder}", str(world.folder)) for name in chosen}
            kept = {
                name: world.environ.pop(name)
                for name in world.rng.sample(["HOME", "LANG", "TMPDIR"], 1)
                if name in world.environ
            }
            umask = world.rng.choice([0, 0o22, 0o77])
            code = world.run("-v", environ=strange, umask=umask)
            world.environ |= kept
            if code:
                world.verdict.blame("wrong", f"the environment was {strange}")
            world.judge()
            mode = world.results.stat().st_mode & 0o777
            if mode != 0o666 & ~umask:
                world.verdict.blame("wrong", f"the results have the mode {mode:o} under umask {umask:o}")


@case("process", "umask 0777: even the run's own files cannot be opened again", tries=1, in_test=0)
def umask_takes_all(world: World) -> None:
    """Root may open them still; for others the results file is refused with a sentence."""
    world.write_prompts(20)
    with world.serving():
        if os.getuid():
            world.run(umask=0o777, codes={0, 6})
        else:
            world.run(umask=0o777)
            world.judge()


@case("process", "the working folder is removed before the start and in mid-run", tries=1, in_test=0)
def folder_is_gone(world: World) -> None:
    world.write_prompts(PROMPTS)
    gone = world.folder / "gone"
    gone.mkdir()
    with world.serving(latency_ms=20):
        process = world.start_command(["sh", "-c", f'rmdir "{gone}"; exec "$@"', "sh", *world.command()], cwd=gone)
        world.end(process, {0})
        world.judge()
        world.results.unlink()
        world.saved.clear()
        world.logs[0].write_bytes(b"")
        gone.mkdir()
        process = world.start(cwd=gone)
        world.wait_for_chats(5, process)
        gone.rmdir()
        world.end(process, {0})
        world.judge()
        words = 'cd "$0" && rmdir "$0" && exec "$@"'
        gone.mkdir()
        relative = [*world.command("-o", "results.jsonl")]
        world.end(world.start_command(["sh", "-c", words, str(gone), *relative]), {2})


def _limited(kind: int, soft: int, hard: int | None = None) -> object:
    return lambda: resource.setrlimit(kind, (soft, soft if hard is None else hard))


@case("process", "RLIMIT_AS: no more memory, from some moment on, while answers of 8 MB come", tries=3, in_test=0)
def little_memory(world: World) -> None:
    """A run that has not enough fails prompts or says so; what is stored stays, and the next run ends the job.

    A library of others may end the process on the spot (SIGSEGV, SIGABRT); then it is a death like any other.
    """
    world.write_prompts(6)
    world.concurrency = 3
    with world.serving(latency_ms=100, reply_chars=8_000_000):
        process = world.start("--retries", "0")
        world.wait_for_chats(world.rng.randrange(1, 4), process)
        if process.poll() is None:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + world.rng.randrange(30) * (1 << 20)
            resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        code = process.wait(100)
        said = world.said(process)
        if code not in (0, 1, 2, 4, 6, -signal.SIGSEGV, -signal.SIGABRT) or "Traceback" in said:
            world.verdict.blame("wrong", f"exit {code}: {said[-1500:]}")
        answers = read_answers(world.results)
        if answers.faults or answers.duplicates:
            world.verdict.blame("wrong", f"the results hold {answers.faults} and {answers.duplicates} lines twice")


@case("process", "RLIMIT_CPU: the time is over, SIGXCPU and then SIGKILL", tries=1, in_test=0)
def no_time(world: World) -> None:
    world.write_prompts(4000)
    world.concurrency = 16
    with world.serving():
        process = world.start(preexec_fn=_limited(resource.RLIMIT_CPU, 1, 2))
        process.wait(100)
        world.note_death()
        world.finish()


@case("process", "a small part of a processor: nice 10 beside four busy neighbours", tries=1, in_test=0)
def starved(world: World) -> None:
    """Limits of half a second, and a processor that is hardly there: no answer may be thrown away for it."""
    world.write_prompts(PROMPTS)
    world.options = ["--timeout", "3s", "--idle-timeout", "1s"]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        with world.serving(latency_ms=50):
            world.run(within_s=100, preexec_fn=lambda: os.nice(10))
            world.judge()
    finally:
        for process in busy:
            process.kill()
            process.wait()


UNCLEAN = ("ResourceWarning", "never awaited", "was never retrieved", "Task was destroyed", "DeprecationWarning")


@case(
    "process",
    "python -X dev, -W error and the debug mode of asyncio: every way to end leaves nothing open",
    tries=3,
    in_test=1,
)
def developers_mode(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--grace", "300ms"]
    environ = {
        "PYTHONDEVMODE": "1",
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONWARNINGS": "error,default::ResourceWarning",
        "PYTHONTRACEMALLOC": "0",
    }
    ends: list[tuple[dict[str, object], list[str], list[int], set[int]]] = [
        ({"latency_ms": 60}, [], [2], {130}),
        ({"latency_ms": 3000}, [], [15, 15], {143}),
        ({"latency_ms": 100}, ["--deadline", "700ms"], [], {5}),
        ({"error_500": 1}, ["--max-failures", "3", "--retries", "0"], [], {5}),
        ({"auth_refused": True}, [], [], {4}),
        ({"stall_midway": 1}, ["--idle-timeout", "300ms", "--retries", "0"], [], {1, 4}),
        ({"cut_reset": 1}, ["--retries", "0"], [], {1, 4}),
        ({"error_429": 1, "retry_after": 4000}, [], [], {4}),
        ({}, ["-o", "/dev/full"], [], {6}),
        ({}, ["--order", "input", "--dedup"], [], {0}),
    ]
    for number, (scenario, more, signals, codes) in enumerate(world.rng.sample(ends, 3)):
        if "-o" not in more:
            more = [*more, "-o", str(world.folder / f"end-{number}.jsonl")]
        with world.serving(**scenario):
            process = world.start(*more, environ=environ)
            if signals:
                world.wait_for_chats(len(world.log().chats) + 3, process)
                time.sleep(0.05)
            for sent in signals:
                os.kill(process.pid, sent)
                time.sleep(0.2)
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                world.end(process, codes, within_s=0.01)
                continue
            said = world.said(process)
            if code not in codes:
                world.verdict.blame("wrong_exit", f"{scenario} {more}: {code}, not {codes}: {said[-500:]}")
            for words in (*UNCLEAN, "Traceback"):
                if words in said:
                    world.verdict.blame("wrong", f"{scenario} {more}: {words}: {said[-900:]}")
                    break


@case("process", "15,000 prompts: memory stays where it was after the first 5,000", tries=1, in_test=0, within_s=180)
def memory_is_flat(world: World) -> None:
    world.write_prompts(15_000)
    world.concurrency = 32
    with world.serving():
        process = world.start("-q")
        world.wait_for_chats(5_000, process, within_s=100)
        before = _resident_bytes(process.pid)
        world.wait_for_chats(14_500, process, within_s=150)
        after = _resident_bytes(process.pid)
        world.end(process, {0}, within_s=100)
        if before is None or after is None:
            raise Unavailable("no /proc")
        if after > before + (12 << 20):
            world.verdict.blame("wrong", f"memory grew from {before >> 20} to {after >> 20} MiB over 9,500 prompts")


def _resident_bytes(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
