"""Tries of cases, one after another or several at a time, and what came of them."""

import os
import shutil
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.registry import Case, Unavailable, all_cases
from tests.chaos.verdict import Verdict
from tests.chaos.world import World

__all__ = ["Tried", "seed_of", "try_case", "try_cases"]


@dataclass
class Tried:
    """One try of a case.

    Attributes:
        unavailable: Why the fault could not be made here, or None.
        folder: Where its files are, kept when a promise was broken.
    """

    case: str
    seed: int
    verdict: Verdict
    seconds: float
    unavailable: str | None = None
    folder: Path | None = None


def seed_of(master: int, name: str, number: int) -> int:
    """The seed of one try; it depends on nothing but the suite's seed, the case's name and the try's number."""
    return zlib.crc32(f"{master}/{name}/{number}".encode())


def try_case(case: Case, seed: int, *, keep: bool = True) -> Tried:
    """Does the fault once, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{case.name}-"))
    world = World(folder, seed)
    began, unavailable = time.monotonic(), None
    try:
        case.attack(world)
        world.judge_secrets()
    except Unavailable as why:
        unavailable = str(why)
    except Exception:  # the suite itself, or something that no check foresaw
        world.verdict.blame("wrong", traceback.format_exc(limit=-4))
    finally:
        world.close()
    seconds = time.monotonic() - began
    if seconds > case.within_s:
        world.verdict.blame("overdue", f"the try took {seconds:.0f} s, {case.within_s:g} s are its bound")
    if world.verdict.failed and keep:
        return Tried(case.name, seed, world.verdict, seconds, unavailable, folder)
    for path in folder.rglob("*"):  # a case may have taken rights away
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
    return Tried(case.name, seed, world.verdict, seconds, unavailable)


def _try_named(name: str, seed: int) -> Tried:
    return try_case(next(case for case in all_cases() if case.name == name), seed)


def try_cases(
    tries: Iterable[tuple[Case, int]], *, at_a_time: int | None = None, told: Callable[[Tried], None] = lambda _: None
) -> list[Tried]:
    """Does many tries, several at a time, each in a process of its own."""
    workers = at_a_time or 2 * (os.cpu_count() or 1) + 1
    done: list[Tried] = []
    with ProcessPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(_try_named, case.name, seed) for case, seed in tries]
        for future in as_completed(futures):
            done.append(future.result())
            told(done[-1])
    return done
