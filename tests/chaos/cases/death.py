"""Death without a word: SIGKILL at any moment, and files as a crash may leave them."""

import json
import subprocess
import sys
import time

from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 80


def _kill_somewhere(world: World, process: subprocess.Popen[bytes], begun: int) -> None:
    """Kills by the clock, from the start-up on, or by what the server has met; a run that is done is fine too."""
    if world.rng.random() < 0.5:
        time.sleep(world.rng.uniform(0.0, 1.2))
    else:
        world.wait_for_chats(begun + world.rng.randrange(1, PROMPTS // 2), process)
        time.sleep(world.rng.uniform(0.0, 0.01))
    world.kill(process)


def _killed_four_times(world: World, *again: str) -> None:
    for number in range(4):
        begun = len(world.log().chats)
        more = again if number else ()
        _kill_somewhere(world, world.start(*more), begun)


@case("death", "SIGKILL at any moment, and again while resuming", tries=20, in_test=1)
def killed_anywhere(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--fsync", world.rng.choice(["interval", "always", "never"])]
    with world.serving(latency_ms=8, latency_jitter=1, seed=world.seed % 1000):
        _killed_four_times(world)
        world.finish()


@case("death", "SIGKILL under a rate", tries=4, in_test=1, limits=True)
def killed_under_a_rate(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.rates = [(world.rng.choice([30, 40, 60]), 1.0)]
    with world.serving(latency_ms=8):
        for _ in range(4):
            begun = len(world.log().chats)
            # A new run knows nothing of the requests of the one that was killed; only each by itself keeps the rate.
            _kill_somewhere(world, world.start(), begun)
            time.sleep(1.0)
        world.finish()


@case("death", "SIGKILL with compressed results", tries=8, in_test=1)
def killed_with_compressed_results(world: World) -> None:
    world.suffix = world.rng.choice([".jsonl.gz", ".jsonl.zst"])
    world.write_prompts(PROMPTS)
    world.options = ["--fsync", world.rng.choice(["interval", "always"])]
    with world.serving(latency_ms=8, latency_jitter=1):
        _killed_four_times(world)
        world.finish()


@case("death", "SIGKILL with results in OpenAI batch form", tries=5, in_test=1)
def killed_with_batch_results(world: World) -> None:
    world.form = "openai-batch"
    world.write_prompts(PROMPTS)
    with world.serving(latency_ms=8, latency_jitter=1):
        _killed_four_times(world)
        world.finish()


@case("death", "SIGKILL with --order input", tries=4, in_test=1)
def killed_with_ordered_results(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--order", "input"]
    with world.serving(latency_ms=8, latency_jitter=1):
        _killed_four_times(world)
        world.finish()


@case("death", "SIGKILL while --on-change redo rewrites the results", tries=6, in_test=1)
def killed_while_redoing(world: World) -> None:
    """Half of the prompts change; their old answers are put aside and they are asked again."""
    world.write_prompts(PROMPTS)
    with world.serving():
        world.run()
        changed = world.rng.sample(sorted(world.prompts), PROMPTS // 2)
        world.prompts |= {key: f"{world.prompts[key]} please" for key in changed}
        lines = [f'{{"id": "{key}", "prompt": "{text}"}}\n' for key, text in world.prompts.items()]
        world.input.write_text("".join(lines))
        for key in changed:
            world.saved.pop(key, None)
        world.stale = {key: f"Echo: {text.removesuffix(' please')}" for key, text in world.prompts.items()}
        _redo_killed(world)
        world.stale = {}
        world.judge()


def _redo_killed(world: World) -> None:
    for _ in range(4):
        process = world.start("--on-change", "redo")
        time.sleep(world.rng.uniform(0.15, 0.8))
        world.kill(process)
    world.run("--on-change", "redo")


@case("death", "SIGKILL while a torn tail is cut off", tries=6, in_test=1)
def killed_while_mending(world: World) -> None:
    """The results end in a torn line and hold a garbled one; the run that moves them aside is killed too."""
    world.write_prompts(PROMPTS)
    with world.serving(latency_ms=2):
        process = world.start()
        world.wait_for_chats(PROMPTS // 2, process)
        world.kill(process)
        lines = world.results.read_bytes().splitlines(keepends=True)
        if len(lines) > 4:
            torn, garbled = lines[-1], world.rng.randrange(1, len(lines) - 1)
            for line in (torn, lines[garbled]):
                world.forget(_id_of(line))
            lines[-1] = torn[: world.rng.randrange(1, len(torn))]
            lines[garbled] = bytes(len(lines[garbled]) - 1) + b"\n"
            world.results.write_bytes(b"".join(lines))
            world.mending = True
        for _ in range(4):
            process = world.start()
            time.sleep(world.rng.uniform(0.15, 0.7))
            world.kill(process)
        world.finish()


def _id_of(line: bytes) -> str:
    return json.loads(line)["id"]


@case("death", "one of several runs on one file is killed, another takes over", tries=4, in_test=1)
def killed_while_others_wait(world: World) -> None:
    world.write_prompts(PROMPTS)
    with world.serving(latency_ms=10):
        for _ in range(4):
            processes = [world.start() for _ in range(3)]
            begun = len(world.log().chats)
            world.wait_for_chats(begun + world.rng.randrange(1, 12), within_s=2)
            for process in processes:
                if process.poll() is None:
                    world.kill(process)
                elif process.returncode not in (0, 75):
                    world.verdict.blame("wrong_exit", f"{process.returncode} beside another run")
        world.finish()


CUTS = """
import os, sys
import batchchat
whole = open(sys.argv[1], "rb").read()
lines = whole.splitlines(keepends=True)
tail = len(lines[-1]) + len(lines[-2])
for cut in range(1, tail + 1):
    with open(sys.argv[1], "r+b") as file:
        file.truncate(len(whole) - cut)
    job = batchchat.load_job(sys.argv[2])
    report = batchchat.run_job_sync(job)
    now = open(sys.argv[1], "rb").read().splitlines(keepends=True)
    assert report.exit_code == 0, report
    assert len(now) == len(lines) == len({line[:12] for line in now}), (cut, len(now))
    print(cut, flush=True)
"""


@case("death", "results cut at every byte of their last two lines", tries=1, in_test=0)
def cut_at_every_byte(world: World) -> None:
    """One child process for all cuts, each followed by a whole run."""
    world.write_prompts(4)
    world.options = ["--order", "input"]
    with world.serving():
        world.run()
        job = world.folder / "job.yaml"
        model = ", model: m" if world.provider == "openai" else ""
        job.write_text(
            f"version: 1\ninput: [{world.input}]\noutput: {{path: {world.results}, order: input}}\n"
            f'provider: {{name: {world.provider}, base_url: "{world.base_url}"{model}}}\n'
        )
        size = sum(len(line) for line in world.results.read_bytes().splitlines(keepends=True)[-2:])
        process = world.start_command([sys.executable, "-c", CUTS, str(world.results), str(job)])
        world.end(process, {0}, within_s=110)
        done = world.printed(process).count(b"\n")
        world.verdict.tries = done
        world.verdict.blame("wrong", f"{done} of {size} cuts were resumed", size - done)
        for key in ("q-2", "q-3"):
            world.in_flight_when_killed[world.prompts[key]] += size
        world.judge()
