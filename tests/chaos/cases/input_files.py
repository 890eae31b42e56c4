"""Inputs that change under a run, never end, are no text, or are no files at all."""

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.chaos.cases.process_signals import end_of_stopped, send
from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 60
ANY_END = {0, 1, 3}


def refused(
    world: World, path: str | Path, words: str, *more: str, codes: frozenset[int] = frozenset({3}), **how: object
) -> None:
    """A run that must not send anything for this input, and say why in one sentence."""
    before = len(world.log().chats)
    command = world.command(*more)
    command[command.index(str(world.input))] = str(path)
    process = world.start_command(command, **how)
    world.end(process, set(codes))
    if words not in world.said(process):
        world.verdict.blame("wrong", f"{path}: {words!r} is not in {world.said(process)[-300:]!r}")
    if len(world.log().chats) != before:
        world.verdict.blame("wrong", f"{path}: prompts were sent for a faulty input")


@case(
    "input",
    "the input grows, shrinks, is truncated, replaced or removed while its prompts are sent",
    tries=6,
    in_test=1,
)
def input_changes(world: World) -> None:
    """Every answer is that of a prompt that stood there at some time; the next run goes by what stands there then."""
    world.write_prompts(PROMPTS * 6)
    lines = world.input.read_bytes().splitlines(keepends=True)
    world.options = world.rng.choice([[], ["--order", "input"], ["--lenient"]])
    with world.serving(latency_ms=8):
        process = world.start()
        world.wait_for_chats(world.rng.randrange(3, PROMPTS * 4), process)
        how = world.rng.choice(["grow", "half a line", "empty", "cut", "replace", "remove", "scramble"])
        if how == "grow":
            with world.input.open("ab") as file:
                file.write(b'{"id": "new", "prompt": "question new"}\n')
            world.prompts["new"] = "question new"
        elif how == "half a line":
            with world.input.open("ab") as file:
                file.write(b'{"id": "half", "prom')
        elif how in ("empty", "cut"):
            os.truncate(world.input, 0 if how == "empty" else len(b"".join(lines)) * 2 // 3 + 7)
        elif how == "replace":
            other = world.folder / "other.jsonl"
            other.write_bytes(b"".join(reversed(lines)))
            other.replace(world.input)
        elif how == "remove":
            world.input.unlink()
        else:
            with world.input.open("r+b") as file:
                file.seek(len(b"".join(lines)) // 2)
                file.write(os.urandom(3000))
        world.end(process, ANY_END | {2})
        if world.verdict.failed:
            world.verdict.notes.append(f"({how})")
        world.input.write_bytes(b"".join(lines))
        if "new" in world.prompts:
            with world.input.open("ab") as file:
                file.write(b'{"id": "new", "prompt": "question new"}\n')
        world.finish()


@case(
    "input", "a pipe whose writer stalls, dies in the middle of a line, never writes or never ends", tries=3, in_test=1
)
def pipe_as_input(world: World) -> None:
    """What came is answered; a line that was not written to its end is a fault and no prompt."""
    world.write_prompts(PROMPTS)
    lines = world.input.read_bytes().splitlines(keepends=True)
    pipe = world.folder / "pipe.jsonl"
    os.mkfifo(pipe)
    with world.serving(latency_ms=5):
        command = world.command()
        command[command.index(str(world.input))] = world.rng.choice([str(pipe), "-"])
        reading = os.open(pipe, os.O_RDWR)
        given = os.open(pipe, os.O_RDONLY)
        process = world.start_command(command, stdin=given)
        os.close(given)
        writing = os.open(pipe, os.O_WRONLY)
        half = world.rng.randrange(1, PROMPTS)
        os.write(writing, b"".join(lines[:half]))
        world.wait_for_chats(half, process)
        how = world.rng.choice(["goes on", "dies in a line", "signal", "signal with half a line"])
        if how == "goes on":
            os.write(writing, b"".join(lines[half:]))
            os.close(writing)
            os.close(reading)
            world.end(process, {0})
        elif how == "dies in a line":
            os.write(writing, lines[half][:-9])
            os.close(writing)
            os.close(reading)
            world.end(process, {3})
        else:
            if "half" in how:
                os.write(writing, lines[half][:-9])
            number = world.rng.choice([signal.SIGINT, signal.SIGTERM])
            send(process, number)
            end_of_stopped(world, process, [number])
            os.close(writing)
            os.close(reading)
        world.finish()


ENDLESS = 'import itertools, json\nfor n in itertools.count(): print(json.dumps({"id": f"q-{n}", "prompt": f"question {n}"}))\n'


@case("input", "standard input from a generator that never ends, until a signal", tries=2, in_test=0)
def endless_input(world: World) -> None:
    """It is read as prompts are sent and never piles up."""
    world.prompts = {f"q-{n}": f"question {n}" for n in range(20_000)}
    with world.serving(latency_ms=2):
        generator = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        command = world.command()
        command[command.index(str(world.input))] = "-"
        process = world.start_command(command, stdin=generator.stdout)
        assert generator.stdout is not None
        generator.stdout.close()
        world.wait_for_chats(200, process)
        resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096
        if resident > 300 << 20:
            world.verdict.blame("wrong", f"{resident >> 20} MiB for a stream of short prompts")
        number = world.rng.choice([signal.SIGINT, signal.SIGTERM])
        send(process, number)
        end_of_stopped(world, process, [number])
        generator.kill()
        generator.wait()
        answers = world.look()
        if len(answers.texts) != len(world.log().delivered()):
            world.verdict.blame("lost", f"{len(world.log().delivered())} answers came, {len(answers.texts)} are stored")


@case(
    "input",
    "no text: a folder, a device, /proc, zero bytes, UTF-16, 1 GB of nothing, a line of 300 MB, a cut .gz",
    tries=3,
    in_test=0,
)
def no_text(world: World) -> None:
    world.write_prompts(PROMPTS)
    text = world.input.read_text()
    path = world.folder / "faulty.jsonl"
    with world.serving():
        chosen = world.rng.sample(["folder", "proc", "zeros", "utf-16", "cr", "sparse", "long", "gz"], 3)
        for what in chosen:
            path.unlink(missing_ok=True)
            if what == "folder":
                refused(world, world.folder, "folder", codes=frozenset({2, 3}))
            elif what == "proc":
                refused(world, world.rng.choice(["/proc/self/maps", "/proc/cpuinfo", "/proc/self/mem"]), "/proc/")
            elif what == "zeros":
                path.write_bytes(text.encode()[:500] + bytes(4096))
                refused(world, path, "faulty.jsonl")
            elif what == "utf-16":
                path.write_bytes(text.encode(world.rng.choice(["utf-16", "utf-16-be", "utf-16-le", "utf-32"])))
                refused(world, path, "faulty.jsonl:1")
            elif what == "cr":
                path.write_bytes(text.replace("\n", "\r").encode())
                refused(world, path, "faulty.jsonl:1")
            elif what == "sparse":
                path.touch()
                os.truncate(path, 1 << 30)
                refused(world, path, "faulty.jsonl", preexec_fn=_at_most_memory)
            elif what == "long":
                with path.open("wb") as file:
                    file.write(b'{"prompt": "')
                    for _ in range(300):
                        file.write(b"a" * (1 << 20))
                    file.write(b'"}\n')
                refused(world, path, "faulty.jsonl:1")
            else:
                packed = gzip.compress(text.encode())
                cut = world.rng.choice([packed[:-5], packed[: len(packed) // 2], packed + b"garbage"])
                (world.folder / "faulty.jsonl.gz").write_bytes(cut)
                refused(world, world.folder / "faulty.jsonl.gz", "faulty.jsonl.gz")
        if world.results.exists() and world.results.stat().st_size:
            world.verdict.blame("wrong", "a refused input left results")


def _at_most_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


@case("input", "no file where the input should be: gone, or a dead link", tries=1, in_test=0)
def no_file(world: World) -> None:
    world.write_prompts(5)
    with world.serving():
        (world.folder / "dead.jsonl").symlink_to(world.folder / "nowhere")
        (world.folder / "loop.jsonl").symlink_to(world.folder / "loop.jsonl")
        for name in ("dead.jsonl", "loop.jsonl", "nothing.jsonl", "x" * 300, "prompts.jsonl/x"):
            refused(world, world.folder / name, name[:40], codes=frozenset({2, 3}))
