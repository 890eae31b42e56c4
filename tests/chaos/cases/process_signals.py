"""Signals at any moment, stops that last, and terminals that go away."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 60
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}


def send(process: subprocess.Popen[bytes], number: int, *, group: bool = False) -> None:
    """A signal to a run, or to its group; one that has ended is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number) if group else os.kill(process.pid, number)


def wait_until(condition: Callable[[], bool], within_s: float = 30) -> bool:
    """Waits until the condition holds; whether it does."""
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.002)
    return True


def _lines(world: World) -> int:
    return world.results.read_bytes().count(b"\n") if world.results.exists() else 0


def end_of_stopped(
    world: World, process: subprocess.Popen[bytes], sent: list[int], *, within_s: float = 60, resumes: bool = True
) -> None:
    """Judges a run that got these signals: all answers, or the code of a signal that it was sent.

    A signal that comes before the run minds signals, or after its end, kills as it kills any program; the shell tells
    that by the same number.

    Args:
        resumes: Whether what it says can be read.
    """
    try:
        code = process.wait(within_s)
    except subprocess.TimeoutExpired:
        world.end(process, {0}, within_s=0.01)
        return
    if code < 0 and -code in sent:
        world.note_death()
        # Python itself prints one for Ctrl-C while it starts, before any line of ours has run.
        if "Traceback" in world.said(process) and "/batchchat/cli" in world.said(process):
            world.verdict.blame("wrong", f"a traceback: {world.said(process)[-800:]}")
        return
    world.end(process, {0, *(CODES[number] for number in sent if number in CODES)}, resumes=resumes)


@case(
    "process",
    "SIGINT, SIGTERM, SIGHUP, mixed, once to ten times, at any moment from the start-up on",
    tries=10,
    in_test=1,
)
def signalled_anywhere(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.suffix = world.rng.choice([".jsonl", ".jsonl", ".jsonl.gz"])
    world.options = ["--grace", world.rng.choice(["0.5s", "30s"])]
    with world.serving(latency_ms=20, latency_jitter=1):
        for _ in range(4):
            begun = len(world.log().chats)
            process = world.start()
            if world.rng.random() < 0.5:
                time.sleep(world.rng.uniform(0.0, 0.8))
            else:
                world.wait_for_chats(begun + world.rng.randrange(1, PROMPTS), process)
            sent = [world.rng.choice(_STOPS) for _ in range(world.rng.choice([1, 1, 2, 3, 10]))]
            group = world.rng.random() < 0.3
            for number in sent:
                send(process, number, group=group)
                time.sleep(world.rng.choice([0.0, 0.0, 0.01, 0.05]))
            end_of_stopped(world, process, sent)
            if len(sent) > 1:
                world.note_death()  # the second signal gives up what is on the wire
        world.finish()


@case(
    "process",
    "a signal while the run waits: for a connection, a nonce, a rate, a pause, the next attempt",
    tries=3,
    in_test=0,
)
def signalled_while_waiting(world: World) -> None:
    """The server's part is played by a socket that takes connections and says nothing, or by one that asks to wait."""
    world.write_prompts(20)
    world.concurrency = 4
    number = world.rng.choice(_STOPS)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        world.base_url = "http://127.0.0.1:%d" % silent.getsockname()[1]
        process = world.start("--grace", "500ms")
        silent.settimeout(30)
        connection, _ = silent.accept()
        send(process, number)
        world.end(process, {CODES[number]})
        connection.close()
    waits = [
        ({"error_429": 1, "retry_after": 3000}, ["--max-retry-wait", "2h"]),
        ({"error_503": 1}, []),
        ({"down_until_request": 10_000, "retry_after": 100}, []),
    ]
    scenario, more = world.rng.choice(waits)
    with world.serving(**scenario):
        process = world.start("-v", "--retries", "9", *more)
        world.wait_until_said(process, "attempt 1")
        send(process, number)
        world.end(process, {CODES[number]})
    with world.serving():
        process = world.start("--rate", "2/h")
        wait_until(lambda: world.logs[-1].exists() and bool(world.logs[-1].read_bytes()))
        send(process, number)
        world.end(process, {CODES[number]})
        world.finish()


@case("process", "a signal while 200,000 prompts are counted, and while the last lines are written", tries=2, in_test=0)
def signalled_before_and_after(world: World) -> None:
    world.write_prompts(200_000)
    few = world.folder / "few.jsonl"
    few.write_text("".join(world.input.read_text().splitlines(keepends=True)[:PROMPTS]))
    with world.serving(latency_ms=5):
        process = world.start()
        wait_until(world.results.exists)
        time.sleep(world.rng.uniform(0, 0.05))
        sent = [world.rng.choice(_STOPS)]
        send(process, sent[0])
        world.end(process, {CODES[sent[0]]})
        if world.log().chats:
            world.verdict.blame("wrong", "prompts were sent after a signal that came before the first")
        world.write_prompts(PROMPTS)
        for _ in range(3):
            world.results.unlink(missing_ok=True)
            world.saved.clear()
            world.logs[0].write_text("")
            process = world.start()
            wait_until(lambda: process.poll() is not None or _lines(world) == PROMPTS)  # noqa: B023
            time.sleep(world.rng.uniform(0, 0.02))
            sent = [world.rng.choice(_STOPS) for _ in range(2)]
            for number in sent:
                send(process, number)
            end_of_stopped(world, process, sent)
        world.finish()


@case("process", "SIGSTOP for longer than every time limit, then SIGCONT; answers came meanwhile", tries=4, in_test=0)
def stopped_for_long(world: World) -> None:
    """What has arrived while the run was stopped must be kept and not be asked for again; the rate must hold."""
    world.write_prompts(30)
    world.concurrency = 6
    world.rates = [(20, 1.0)]
    world.options = ["--timeout", "1s", "--idle-timeout", "500ms", "--connect-timeout", "500ms"]
    with world.serving(latency_ms=250, **world.rng.choice([{}, {"chunk_bytes": 20, "delta_interval_ms": 20}])):
        process = world.start()
        for _ in range(3):
            world.wait_for_chats(len(world.log().chats) + world.rng.randrange(2, 7), process)
            send(process, signal.SIGSTOP, group=True)
            time.sleep(1.6)  # the time that passes for the run is what is tested
            send(process, signal.SIGCONT, group=True)
        world.end(process, {0})
        world.judge()


@case(
    "process",
    "signals that no program expects: SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGPIPE, SIGTSTP, SIGWINCH",
    tries=3,
    in_test=0,
)
def other_signals(world: World) -> None:
    world.write_prompts(PROMPTS)
    deadly = [signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU, signal.SIGABRT]
    harmless = [signal.SIGPIPE, signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGTSTP, signal.SIGCONT]
    with world.serving(latency_ms=15):
        for number in world.rng.sample(deadly, 3):
            begun = len(world.log().chats)
            process = world.start()
            world.wait_for_chats(begun + world.rng.randrange(1, 16), process)
            send(process, number)
            end_of_stopped(world, process, [number])
        process = world.start()
        for _ in range(20):
            send(process, world.rng.choice(harmless))
            time.sleep(0.01)
        send(process, signal.SIGCONT)
        world.end(process, {0})
        world.judge()


ORPHAN = """
import subprocess, sys
process = subprocess.Popen(sys.argv[1:])
print(process.pid, flush=True)
sys.stdin.read()
"""


@case("process", "the parent dies: by SIGKILL, 'timeout', nohup, a shell that ends", tries=2, in_test=0)
def parent_dies(world: World) -> None:
    world.write_prompts(PROMPTS)
    with world.serving(latency_ms=30):
        parent = world.start_command(["timeout", "-k", "30", "0.7", *world.command()])
        code = parent.wait(60)
        if code not in (0, 124):
            world.verdict.blame("wrong_exit", f"timeout ended with {code}")
        world.look()
        ignored = world.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
        world.wait_for_chats(len(world.log().chats) + 2, ignored)
        send(ignored, signal.SIGHUP)
        time.sleep(0.1)
        if ignored.poll() not in (None, 0):
            world.verdict.blame("wrong_exit", "a run under nohup ended by SIGHUP")
        send(ignored, signal.SIGTERM)
        world.end(ignored, {0, 143})
        parent = world.start_command([sys.executable, "-c", ORPHAN, *world.command()], stdin=subprocess.PIPE)
        world.wait_for_chats(len(world.log().chats) + 2, parent)
        send(parent, signal.SIGKILL)
        parent.wait(30)
        assert parent.stdin is not None
        parent.stdin.close()
        _wait_for_end(world, int(world.printed(parent)))  # it goes on without a parent
        world.judge()


def _wait_for_end(world: World, pid: int, within_s: float = 60) -> None:
    """Waits for the end of a process that is not our child."""
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    world.verdict.blame("overdue", "the run without a parent did not end")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
