"""Clocks that step and threads that cannot be had, by a small library that is loaded before all others."""

import json
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from tests.chaos.registry import Unavailable, case
from tests.chaos.world import World

PROMPTS = 40
_SOURCE = Path(__file__).parent.parent / "shim.c"


def shim(world: World) -> dict[str, str]:
    """The environment that loads it."""
    if shutil.which("gcc") is None:
        raise Unavailable("needs gcc, to build the library that steps clocks and refuses threads")
    library = world.folder / "shim.so"
    if not library.exists():
        command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise Unavailable("gcc cannot build the library that steps clocks and refuses threads")
    return {"LD_PRELOAD": str(library)}


@case(
    "process",
    "the wall clock steps by hours and days, to 1970 and to 2100, at the start and in mid-run",
    tries=3,
    in_test=0,
)
def wall_clock_steps(world: World) -> None:
    """Waits, rates and limits go by another clock; a Retry-After date is measured against the answer's own Date."""
    world.write_prompts(PROMPTS)
    world.rates, world.concurrency = [(40, 1.0)], 4
    in_a_moment = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
    refusing = {"fail_first": 1, "fail_with": "error_429", "retry_after": in_a_moment}
    with world.serving(latency_ms=20, **world.rng.choice([{}, refusing])):
        for step in world.rng.sample([-1.7e9, -86400, -3600, 3600, 86400 * 30, 2.3e9], 2):
            environ = {**shim(world), "STEP_AT": str(world.rng.choice([0.0, 0.6])), "STEP": str(step)}
            began = time.monotonic()
            world.run("--limit", str(world.rng.randrange(10, PROMPTS)), environ=environ)
            if time.monotonic() - began > 45:
                world.verdict.blame("overdue", f"a clock that stepped by {step} made the run wait")
            told = json.loads(world.beside(".run.json").read_bytes())
            if not 0 <= told["duration_s"] < 100:
                world.verdict.blame("wrong", f"the summary tells a duration of {told['duration_s']} s")
            time.sleep(1.0)  # each run by itself keeps the rate
        world.finish()


@case(
    "process",
    "the monotonic clock leaps by an hour in mid-run, as it does on some systems after a sleep",
    tries=2,
    in_test=1,
)
def monotonic_clock_leaps(world: World) -> None:
    """No answer that is on its way is thrown away, none is asked for twice."""
    world.write_prompts(PROMPTS)
    world.concurrency = 4
    world.options = ["--timeout", "60s", "--idle-timeout", "20s", "--prompt-deadline", "2m"]
    with world.serving(latency_ms=300, **world.rng.choice([{}, {"chunk_bytes": 10, "delta_interval_ms": 50}])):
        environ = {**shim(world), "STEP_AT": str(world.rng.uniform(0.5, 2.0)), "STEP": "3600", "LEAP": "3600"}
        world.run(environ=environ)
        world.judge()


@case(
    "process",
    "no thread can be started: from the start on, with few of them, or from some moment on",
    tries=3,
    in_test=1,
)
def no_threads(world: World) -> None:
    """A run that cannot have its threads says so in a sentence; whatever is stored stays, and the next run goes on."""
    world.write_prompts(PROMPTS)
    world.options = world.rng.choice([[], ["-vv"], ["--order", "input"], ["--dedup"]])
    with world.serving(latency_ms=5):
        for threads in (0, world.rng.randrange(1, 16), world.rng.randrange(16, 24)):
            world.run(environ={**shim(world), "THREADS": str(threads)}, codes={0} if threads >= 16 else {2})
            _begin_anew(world)
        for _ in range(3):
            moment = world.rng.uniform(0.1, 0.6)
            process = world.start(environ={**shim(world), "THREADS": "0", "STEP_AT": str(moment)})
            # libuv, below the event loop, aborts the process where it cannot have one.
            code = world.end(process, {0, 2, -signal.SIGABRT})
            if code:
                world.note_death()
        world.finish()


def _begin_anew(world: World) -> None:
    world.results.unlink(missing_ok=True)
    world.saved.clear()
    world.logs[0].write_bytes(b"")
