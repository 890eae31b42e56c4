"""Deaths and stops of the children that speak to the service for a run."""

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 120


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    found: list[int] = []
    for told in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in told.read_text().split():
                if b"processes.child" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _no_child_left(world: World, children: set[int]) -> None:
    give_up = time.monotonic() + 10
    while (left := [pid for pid in children if _is_child(pid)]) and time.monotonic() < give_up:
        time.sleep(0.02)
    world.verdict.blame("wrong", f"{len(left)} worker processes outlived their run", len(left))


def _is_child(pid: int) -> bool:
    try:
        return b"processes.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _note_deaths(world: World, kills: int) -> None:
    """What a child had in flight may be asked again, and nothing else."""
    again = Counter({text: count - 1 for text, count in world.log().delivered().items() if count > 1})
    most = kills * world.concurrency
    world.verdict.blame("asked_twice_beyond", f"{again.total()} for {kills} kills", max(0, again.total() - most))
    world.in_flight_when_killed.update(again)


@case("process", "SIGKILL of worker processes, one after another (--processes)", tries=4, in_test=1)
def worker_processes_killed(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--processes", world.rng.choice(["2", "3"])]
    with world.serving(latency_ms=15, latency_jitter=1):
        process, seen, kills = world.start(), set(), 0
        for count in (10, 40, 70):
            if not world.wait_for_chats(count, process):
                break
            children = _children(process)
            seen |= set(children)
            if children:
                _send(world.rng.choice(children), signal.SIGKILL)
                kills += 1
        seen |= set(_children(process))
        world.end(process, {0})
        _no_child_left(world, seen)
        _note_deaths(world, kills)
        world.finish()


@case("process", "SIGKILL of a run with worker processes, some of them stopped (--processes)", tries=4, in_test=1)
def run_with_worker_processes_killed(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--processes", "2"]
    with world.serving(latency_ms=10, latency_jitter=1):
        for _ in range(3):
            begun = len(world.log().chats)
            process = world.start()
            world.wait_for_chats(begun + world.rng.randrange(1, PROMPTS // 3), process)
            children = _children(process)
            if children and world.rng.random() < 0.5:
                _send(children[0], signal.SIGSTOP)
            process.kill()
            process.wait()
            _no_child_left(world, set(children))
            world.note_death()
        world.finish()


@case("process", "a worker process is stopped for a while, or for good (--processes)", tries=2, in_test=0)
def worker_process_stopped(world: World) -> None:
    world.write_prompts(PROMPTS)
    for_good = world.rng.random() < 0.5
    world.options = ["--processes", "2", *(["--timeout", "3s"] if for_good else [])]
    with world.serving(latency_ms=15):
        process = world.start()
        world.wait_for_chats(20, process)
        children = _children(process)
        if children:
            _send(children[0], signal.SIGSTOP)
            if not for_good:
                time.sleep(1.0)
                _send(children[0], signal.SIGCONT)
        world.end(process, {0}, within_s=90)
        _no_child_left(world, set(children))
        world.finish()
