"""Several runs on one file, processes that come and go beside a run, and a library that is forked."""

import os
import signal
import subprocess
import sys
import time

from batchchat.results.lock import is_locked
from tests.chaos.cases.process_signals import send
from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 60


def _names(world: World) -> list[str]:
    """One file under many names."""
    other = world.folder / "elsewhere"
    other.mkdir()
    world.results.touch()
    (other / "linked.jsonl").symlink_to(world.results)
    os.link(world.results, other / "hard.jsonl")
    (world.folder / "up").symlink_to(world.folder)
    relative = os.path.relpath(world.results)
    ways = [world.results, other / "linked.jsonl", other / "hard.jsonl", world.folder / "up" / world.results.name]
    return [*map(str, ways), relative, f"{other}/../{world.results.name}"]


@case(
    "process", "five runs at once on one file, by its name, links, a hard link and relative paths", tries=3, in_test=0
)
def five_at_once(world: World) -> None:
    """Exactly one works; those that find the file locked end with 75; nothing is asked for twice."""
    world.write_prompts(PROMPTS)
    names = _names(world)
    with world.serving(latency_ms=60):
        for _ in range(2):
            processes = []
            for name in world.rng.sample(names, 5):
                beside = str(world.folder / f"beside-{len(processes)}")
                more = ("-o", name, "--errors", f"{beside}.errors.jsonl", "--summary", f"{beside}.run.json")
                processes.append(world.start(*more))
                time.sleep(world.rng.choice([0, 0, 0.1]))
            for process in processes:
                world.end(process, {0, 75})
            if not any(process.returncode == 0 for process in processes):
                world.verdict.blame("wrong_exit", "none of five runs did the job")
        world.finish()


@case(
    "process",
    "cron overlaps: a start every 0.3 s while the job is at work, each killed, stopped or left alone",
    tries=2,
    in_test=0,
)
def cron_overlaps(world: World) -> None:
    world.write_prompts(PROMPTS * 3)
    with world.serving(latency_ms=100):
        processes: list[subprocess.Popen[bytes]] = []
        until = time.monotonic() + 8
        while time.monotonic() < until:
            processes.append(world.start())
            if world.rng.random() < 0.2:
                send(world.rng.choice(processes), world.rng.choice([signal.SIGTERM, signal.SIGINT]))
            time.sleep(0.3)
        for process in processes:
            code = process.wait(60)
            if code not in (0, 75, 130, 143, -signal.SIGINT, -signal.SIGTERM):
                world.verdict.blame("wrong_exit", f"{code} beside another run: {world.said(process)[-300:]}")
        world.look()
        world.finish()


@case(
    "process",
    "two runs with different inputs on one file, at the same time and one after the other",
    tries=1,
    in_test=0,
)
def two_inputs(world: World) -> None:
    world.write_prompts(PROMPTS)
    lines = world.input.read_text().splitlines(keepends=True)
    half = world.folder / "half.jsonl"
    half.write_text("".join(lines[: PROMPTS // 2]))
    with world.serving(latency_ms=30):
        first = world.start()
        command = world.command()
        command[command.index(str(world.input))] = str(half)
        second = world.start_command(command)
        world.end(first, {0, 75})
        world.end(second, {0, 75})
        world.end(world.start_command(command), {0})
        world.finish()


@case("process", "hundreds of processes are forked and end while a run is at work", tries=1, in_test=0)
def forks_beside(world: World) -> None:
    world.write_prompts(PROMPTS)
    storm = (
        "import os\nfor _ in range(400):\n    pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)\n"
    )
    with world.serving(latency_ms=20):
        process = world.start()
        storms = [subprocess.Popen([sys.executable, "-c", storm]) for _ in range(2)]
        world.end(process, {0})
        for each in storms:
            each.wait(60)
        world.judge()


FORKING = """
import multiprocessing, os, sys, time
import batchchat

class Forking:
    seen = 0
    def prompt_finished(self, outcome):
        self.seen += 1
        if self.seen % 5 == 0:
            how = self.seen // 5 % 3
            if how == 0:
                pid = os.fork()
                if not pid:
                    time.sleep(60)
                    os._exit(0)
            elif how == 1:
                process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
                process.start()
                pid = process.pid
            else:
                pid = os.fork()
                if not pid:
                    os.execvp("sleep", ["sleep", "60"])
            print(pid, flush=True)
    def __getattr__(self, name):
        return lambda *given: None

batchchat.run_job_sync(batchchat.load_job(sys.argv[1]), observers=[Forking()])
"""


@case("process", "a Python program forks while its job runs, and is killed; its children live on", tries=2, in_test=0)
def forked_in_mid_run(world: World) -> None:
    world.write_prompts(PROMPTS)
    job = world.folder / "job.yaml"
    with world.serving(latency_ms=30):
        model = ", model: m" if world.provider == "openai" else ""
        job.write_text(
            f"version: 1\ninput: [{world.input}]\noutput: {{path: {world.results}}}\nconcurrency: {world.concurrency}\n"
            f'provider: {{name: {world.provider}, base_url: "{world.base_url}"{model}}}\n'
        )
        process = world.start_command([sys.executable, "-W", "ignore", "-c", FORKING, str(job)])
        world.wait_for_chats(world.rng.randrange(15, PROMPTS), process)
        send(process, signal.SIGKILL)  # it alone: its children go on
        process.wait()
        world.note_death()
        try:
            world.finish()
        finally:
            send(process, signal.SIGKILL, group=True)


@case("process", "'batchchat serve -- run' whose server is stopped for a while, or killed", tries=2, in_test=0)
def server_around_a_run(world: World) -> None:
    world.write_prompts(PROMPTS)
    log = world.folder / "around.log"
    world.logs.append(log)
    world.base_url = "http://127.0.0.1:1"
    command = world.command("--retries", "0", "--connect-timeout", "1s", "--timeout", "5s")
    at = command.index("--base-url")
    del command[at : at + 2]
    around = [*command[:3], "serve", "--port", "0", "--log", str(log), "--log-ends", "--set", "latency_ms=60", "--"]
    process = world.start_command([*around, *command])
    world.wait_for_chats(world.rng.randrange(3, 30), process)
    if world.rng.random() < 0.5:
        send(process, signal.SIGSTOP)
        time.sleep(1)
        send(process, signal.SIGCONT)
        world.end(process, {0})
    else:
        send(process, signal.SIGKILL)
        process.wait()
        _wait_for_run(world)
        world.look()
        for key in world.prompts:
            world.in_flight_when_killed[world.prompts[key]] = 1
    with world.serving():
        world.finish()


def _wait_for_run(world: World, within_s: float = 60) -> None:
    """Waits until the run that lost its server has ended by itself, as its lock tells."""
    give_up = time.monotonic() + within_s
    while is_locked(str(world.results)):
        if time.monotonic() > give_up:
            world.verdict.blame("overdue", "the run that lost its server did not end")
            return
        time.sleep(0.05)
