"""Standard streams that are closed, full, blocked or gone."""

import os
import pty
import shlex
import signal
import struct
import subprocess
import termios
import time
from fcntl import ioctl

from tests.chaos.cases.process_signals import end_of_stopped, send, wait_until
from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 60


def _in_shell(world: World, words: str, *more: str) -> subprocess.Popen[bytes]:
    """A run with redirections of the shell."""
    return world.start_command(["sh", "-c", f"exec {shlex.join(world.command(*more))} {words}"])


@case("process", "standard streams closed, full or of the wrong direction, in every mixture", tries=3, in_test=0)
def streams_that_are_none(world: World) -> None:
    world.write_prompts(20)
    out = [">&-", ">/dev/full", ">/dev/null", "</dev/null 1<&0"]
    err = ["2>&-", "2>/dev/full", "2>/dev/null", "2</dev/null"]
    into = ["<&-", "</dev/full", "0>/dev/null"]
    with world.serving(latency_ms=2):
        for number in range(4):
            world.results.unlink(missing_ok=True)
            world.saved.clear()
            world.logs[0].write_bytes(b"")
            words = " ".join([world.rng.choice(out), world.rng.choice(err), world.rng.choice(into)])
            world.options = world.rng.choice([[], ["-vv"], ["--log-format", "json"]])
            code = world.end(_in_shell(world, words), {0})
            if code:
                world.verdict.blame("wrong", f"try {number} was {words}")
            world.judge()


@case(
    "process", "results as '-o -' into a closed, full or read-only standard output, or '| head -1'", tries=2, in_test=0
)
def output_that_is_none(world: World) -> None:
    """Nothing can be kept there; the run must end with 6, at once and without a traceback."""
    world.write_prompts(PROMPTS)
    errors = str(world.folder / "failed.jsonl")
    with world.serving(latency_ms=20):
        for words in (">&-", ">/dev/full", "1</dev/null"):
            world.end(_in_shell(world, words, "-o", "-", "--errors", errors), {6}, resumes=False)
        head = f"{{ {shlex.join(world.command('-o', '-'))}; echo $? >{world.folder}/code; }} | head -1"
        process = world.start_command(["sh", "-c", head])
        world.end(process, {0})
        if (code := (world.folder / "code").read_text().strip()) != "6":
            world.verdict.blame("wrong_exit", f"a run whose reader went away ended with {code}")
        if "batchchat" in world.said(process):
            words = world.said(process)
            if "Traceback" in words or "rror" in words:
                world.verdict.blame("wrong", f"not quiet: {words[-300:]}")


@case("process", "standard error into a pipe or a terminal that nobody reads", tries=2, in_test=0)
def error_stream_that_blocks(world: World) -> None:
    """More than a pipe holds is told; the job must not wait for a reader of its words."""
    world.write_prompts(1500)
    world.concurrency = 16
    with world.serving():
        if world.rng.random() < 0.5:
            reading, writing = os.pipe()
        else:
            reading, writing = pty.openpty()
        more = world.rng.choice([["-vv"], ["-vv", "--log-format", "json"]])
        process = world.start(*more, stderr=writing, environ={"TERM": "xterm"})
        os.close(writing)
        world.end(process, {0})
        os.close(reading)
        world.judge()


@case(
    "process",
    "a terminal: bar on, window resized all the time and 1 column wide, hang-up in mid-run",
    tries=4,
    in_test=1,
)
def terminal_hangs_up(world: World) -> None:
    world.write_prompts(PROMPTS)
    with world.serving(latency_ms=40):
        leader, follower = pty.openpty()
        sizes = [(1, 1), (2, 500), (24, 80), (0, 0), (24, 1), (65535, 65535)]
        _resize(follower, world.rng.choice(sizes))
        process = world.start(
            *world.rng.choice([[], ["-v"], ["-vv"]]),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            environ={"TERM": "xterm-256color"},
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        )
        hang_up = world.rng.random() < 0.6
        world.wait_for_chats(3, process)
        os.set_blocking(leader, False)
        until = world.rng.randrange(8, PROMPTS)

        def storm() -> bool:
            _resize(follower, world.rng.choice(sizes))
            _drain(leader)
            return process.poll() is not None or (hang_up and world.wait_for_chats(until, process, 0))

        wait_until(storm)
        os.close(follower)
        if not hang_up:
            os.close(leader)
            world.end(process, {0})
        else:
            os.close(leader)  # the kernel sends SIGHUP to the session
            end_of_stopped(world, process, [signal.SIGHUP], resumes=False)
        world.finish()


def _resize(terminal: int, size: tuple[int, int]) -> None:
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return


@case("process", "a terminal that is stopped by Ctrl-S in mid-run, and started again", tries=1, in_test=0)
def terminal_is_stopped(world: World) -> None:
    world.write_prompts(300)
    with world.serving(latency_ms=5):
        leader, follower = pty.openpty()
        process = world.start("-vv", stdin=follower, stdout=follower, stderr=follower, environ={"TERM": "xterm"})
        os.close(follower)
        world.wait_for_chats(5, process)
        termios.tcflow(leader, termios.TCOOFF)
        code = process.wait(60) if wait_until(lambda: process.poll() is not None, 45) else None
        if code != 0:
            world.verdict.blame("overdue" if code is None else "wrong_exit", f"a stopped terminal: {code}")
        send(process, signal.SIGKILL)
        time.sleep(0.01)
        os.close(leader)
        world.judge()
