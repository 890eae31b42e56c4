"""What a run does alone: limits shared with other runs, outages, pauses from another shell, ends before the last prompt."""

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path

from tests.chaos.registry import case
from tests.chaos.result_files import read_answers
from tests.chaos.world import BATCHCHAT, World

PROMPTS = 60


@case(
    "unattended",
    "three runs under one host-wide rate, killed, stopped and started again",
    tries=4,
    in_test=1,
    limits=True,
)
def host_rate(world: World) -> None:
    """Each has its own part of the input; the server must never see more than the rate of all of them together."""
    rate = world.rng.choice([20, 30, 50])
    world.write_prompts(PROMPTS)
    world.environ["XDG_STATE_HOME"] = str(world.folder / "state")
    world.options = ["--rate-scope", "host", "--rate", f"{rate}/s"]
    parts = _parts(world, 3)
    with world.serving(latency_ms=5):
        runs = [_start_part(world, part) for part in parts]
        for _ in range(4):
            time.sleep(world.rng.uniform(0.1, 0.8))
            number = world.rng.randrange(3)
            if world.rng.random() < 0.5:
                _kill_part(world, runs[number], parts[number])
                runs[number] = _start_part(world, parts[number])
            else:
                _stop_for_a_while(world, runs[number])
        for run in runs:
            if run.wait(60):
                world.verdict.blame("wrong_exit", f"{run.returncode}: {world.said(run)[-400:]}")
        world.rates, world.concurrency = [(rate, 1.0)], 3 * world.concurrency
        _judge_parts(world, parts)
        world.judge_server()


def _parts(world: World, count: int) -> list[Path]:
    lines = world.input.read_text().splitlines(keepends=True)
    parts = []
    for number in range(count):
        part = world.folder / f"part-{number}.jsonl"
        part.write_text("".join(lines[number::count]))
        parts.append(part)
    return parts


def _results_of(part: Path) -> Path:
    return part.with_name(f"{part.stem}-results.jsonl")


def _start_part(world: World, part: Path) -> subprocess.Popen[bytes]:
    command = world.command("-o", str(_results_of(part)))
    return world.start_command([str(part) if argument == str(world.input) else argument for argument in command])


def _kill_part(world: World, run: subprocess.Popen[bytes], part: Path) -> None:
    """What was in flight may be asked again: every prompt of the part that is not in its results."""
    run.kill()
    run.wait()
    time.sleep(0.1)
    known, log = read_answers(_results_of(part)).texts, world.log().delivered()
    ids = [json.loads(line)["id"] for line in part.read_text().splitlines()]
    gone = [world.prompts[key] for key in ids if key not in known and log[world.prompts[key]]]
    world.verdict.blame("lost", f"{len(gone)} answers are gone", max(0, len(gone) - world.concurrency))
    for text in gone:
        world.in_flight_when_killed[text] = log[text]


def _stop_for_a_while(world: World, run: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        run.send_signal(signal.SIGSTOP)
        time.sleep(world.rng.uniform(0.1, 1.5))
        run.send_signal(signal.SIGCONT)


def _judge_parts(world: World, parts: list[Path]) -> None:
    texts: dict[str, list[str | None]] = {}
    for part in parts:
        answers = read_answers(_results_of(part))
        world.verdict.blame("wrong", f"{answers.faults[:2]}", len(answers.faults))
        for key, found in answers.texts.items():
            texts.setdefault(key, []).extend(found)
    world.verdict.blame("duplicated", "lines", sum(len(found) - 1 for found in texts.values()))
    missing = world.prompts.keys() - texts.keys()
    world.verdict.blame("lost", f"{sorted(missing)[:3]} have no line", len(missing))
    wrong = [key for key, found in texts.items() if found[0] != world.expected(world.prompts[key])]
    world.verdict.blame("wrong", f"{wrong[:3]}", len(wrong))


@case("unattended", "the service is dead for longer than all retries of a prompt last", tries=3, in_test=1)
def service_dead(world: World) -> None:
    """The breaker opens, no prompt fails, one request at a time probes; then everything is answered once."""
    world.write_prompts(PROMPTS)
    job = world.folder / "job.yaml"
    job.write_text("version: 1\nbreaker: {failures: 8, after: 300ms, max_open: 60s}\nretry: {retries: 1}\n")
    world.options = ["--job", str(job)]
    server = world.start_server(latency_ms=30)
    port = int(world.base_url.rsplit(":", 1)[1])
    process = world.start()
    world.wait_for_chats(world.rng.randrange(2, 20), process)
    world.stop_server(server, world.rng.choice([signal.SIGTERM, signal.SIGKILL]))
    # What was on its way was not delivered, or was: the log of the server tells.
    time.sleep(world.rng.uniform(6, 9))
    server = world.start_server(port=port, latency_ms=10)
    world.end(process, {0}, within_s=90)
    if "Connect" in world.said(process) and "--max-outage" not in world.said(process):
        world.verdict.notes.append("the breaker was not told")
    world.judge()
    world.stop_server(server)


@case("unattended", "an outage lasts longer than --max-outage", tries=1, in_test=1)
def service_dead_too_long(world: World) -> None:
    world.write_prompts(PROMPTS)
    job = world.folder / "job.yaml"
    job.write_text("version: 1\nbreaker: {failures: 8, after: 200ms, max_open: 3s}\n")
    world.options = ["--job", str(job)]
    with world.serving(error_503=1, retry_after=0):
        world.run(codes={4}, within_s=60)
        world.judge_errors(set())
    with world.serving():
        world.finish()


@case(
    "unattended",
    "paused, resumed and given other rates from another shell, killed in between",
    tries=3,
    in_test=1,
    limits=True,
)
def controlled(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.environ["XDG_RUNTIME_DIR"] = str(world.folder)
    with world.serving(latency_ms=10):
        process = world.start("--rate", "40/s")
        world.wait_for_chats(5, process)
        _control(world, "pause")
        time.sleep(0.5)  # what was let out before the pause has come to the server by then
        before = len(world.log().chats)
        time.sleep(world.rng.uniform(0.3, 1.0))
        asked = len(world.log().chats) - before
        world.verdict.blame("limit_broken", f"{asked} prompts were asked during the pause", asked)
        if world.rng.random() < 0.4:
            world.kill(process)
            process = world.start("--rate", "40/s")
            world.wait_for_chats(before + 1, process)
        else:
            _control(world, "set-rate", "20/s")
            _control(world, "resume")
        for rate in world.rng.sample(["10/s", "25/s", "35/s", "40/s"], 2):
            time.sleep(world.rng.uniform(0.0, 0.7))
            if process.poll() is None:
                _control(world, "set-rate", rate, allowed={0, 2})
        world.end(process, {0})
        world.rates = [(40, 1.0)]
        world.options = ["--rate", "40/s"]
        world.judge()


def _control(world: World, command: str, *more: str, allowed: frozenset[int] | set[int] = frozenset({0})) -> None:
    done = subprocess.run(
        [*BATCHCHAT, command, str(world.results), *more],
        env=world.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode not in allowed or "Traceback" in done.stderr:
        world.verdict.blame("wrong_exit", f"{command} {more} ended with {done.returncode}: {done.stderr[-300:]}")


ENDS: dict[str, tuple[list[str], dict[str, object], int]] = {
    "deadline": (["--deadline", "1500ms"], {"latency_ms": 250}, 5),
    "failures": (["--max-failures", "3", "--retries", "0"], {"error_500": 0.4, "latency_ms": 40}, 5),
    "budget": (["--budget", "0.001", "--param", "max_tokens=10", "--job", "prices.yaml"], {"latency_ms": 20}, 5),
    "quota": ([], {"quota_exhausted_after": 20, "latency_ms": 20}, 4),
    "auth": ([], {"auth_refused": "true"}, 4),
}


@case("unattended", "ends early: deadline, failures, budget, quota, a refused key", tries=5, in_test=2)
def ends_early(world: World) -> None:
    """Each try takes another end; what was answered stays, the rest is pending, and the next run does it."""
    name = sorted(ENDS)[world.seed % len(ENDS)]
    more, scenario, code = ENDS[name]
    if name == "budget":
        world.provider = "openai"
        job = world.folder / "prices.yaml"
        job.write_text("version: 1\nprices: {m: {input: 1, output: 1}}\n")
        more = [str(job) if argument == "prices.yaml" else argument for argument in more]
    world.write_prompts(200)
    with world.serving(seed=world.seed % 1000, **scenario):
        world.run(*more, codes={code})
    param = more[more.index("--param") : more.index("--param") + 2] if "--param" in more else []
    with world.serving():
        world.finish(*param)


@case("unattended", "a second request for slow prompts (--second-attempt)", tries=2, in_test=1)
def second_attempts(world: World) -> None:
    """Answers that are asked for twice on purpose: one line each, and never more at a time than allowed."""
    world.write_prompts(20)
    world.options = ["--second-attempt", "300ms", "--timeout", "20s"]
    with world.serving(stall_before=0.2, seed=world.seed % 1000, latency_ms=20):
        process = world.start()
        world.end(process, {0})
        for text, paid in world.log().delivered().items():
            world.in_flight_when_killed[text] = paid - 1  # as asked for
        world.judge()
