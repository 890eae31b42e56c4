"""Power loss: the file calls of a real run are recorded, and every state that a disk may be left in is resumed."""

import json
import shutil
import sys
from pathlib import Path

from tests.chaos.disk_shim import Record, read_trace, shim_environ
from tests.chaos.lost_writes import Disk
from tests.chaos.registry import case
from tests.chaos.result_files import read_answers
from tests.chaos.world import World

PROMPTS = 40
STATES = 40
# How much later than a second after it was written an answer may be on the disk, on a busy machine.
_LATE_S = 3.0

RESUME = """
import json, sys
import batchchat
for name in sys.argv[2:]:
    job = json.loads(open(sys.argv[1]).read())
    job["output"]["path"] = name
    job_file = name + ".job.json"
    open(job_file, "w").write(json.dumps(job))
    report = batchchat.run_job_sync(batchchat.load_job(job_file))
    print(json.dumps({"code": report.exit_code, "before": report.answered_before}), flush=True)
"""


@case("power", "power lost, --fsync interval", tries=3, in_test=1)
def power_lost(world: World) -> None:
    _lose_power(world, "interval")


@case("power", "power lost, --fsync always", tries=3, in_test=1)
def power_lost_synced(world: World) -> None:
    _lose_power(world, "always")


@case("power", "power lost, --fsync never", tries=1)
def power_lost_never_synced(world: World) -> None:
    _lose_power(world, "never")


@case("power", "power lost with compressed results", tries=2)
def power_lost_compressed(world: World) -> None:
    world.suffix = world.rng.choice([".jsonl.gz", ".jsonl.zst"])
    _lose_power(world, world.rng.choice(["always", "interval"]))


@case("power", "power lost with results in OpenAI batch form", tries=1)
def power_lost_batch(world: World) -> None:
    world.form = "openai-batch"
    _lose_power(world, "always")


@case("power", "power lost while --on-change redo rewrites the results", tries=2, in_test=1)
def power_lost_redoing(world: World) -> None:
    world.write_prompts(PROMPTS)
    _move_results(world)
    with world.serving():
        world.run()
        changed = world.rng.sample(sorted(world.prompts), PROMPTS // 2)
        old = {key: f"Echo: {world.prompts[key]}" for key in changed}
        world.prompts |= {key: f"{world.prompts[key]} please" for key in changed}
        lines = [f'{{"id": "{key}", "prompt": "{text}"}}\n' for key, text in world.prompts.items()]
        world.input.write_text("".join(lines))
        world.saved = {key: text for key, text in world.saved.items() if key not in old}
        disk, records = _recorded_run(world, "--on-change", "redo")
        kept = set(world.prompts) - set(changed)
        _resume_states(world, disk, records, "always", kept=kept, old=old)


def _move_results(world: World) -> None:
    world.results_folder = world.folder / "made" / "out"


def _lose_power(world: World, fsync: str) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--fsync", fsync]
    world.concurrency = 4
    _move_results(world)
    slow = 60 if fsync == "interval" else 10  # so that a run lasts through some of its intervals of a second
    with world.serving(latency_ms=slow, latency_jitter=1):
        disk, records = _recorded_run(world)
    with world.serving():
        _resume_states(world, disk, records, fsync)


def _recorded_run(world: World, *more: str) -> tuple[Disk, list[Record]]:
    """A whole run; the disk as it was before, and every change that the run made."""
    made, trace = world.folder / "made", world.folder / "trace"
    made.mkdir(exist_ok=True)
    disk = Disk.of(made)
    world.run(*more, environ=shim_environ(made, trace=trace))
    return disk, list(read_trace(trace))


def _resume_states(
    world: World,
    disk: Disk,
    records: list[Record],
    fsync: str,
    *,
    kept: set[str] | None = None,
    old: dict[str, str] | None = None,
) -> None:
    """Cuts the power at many moments, resumes from what is left, and judges each result."""
    moments = sorted(world.rng.randrange(1, len(records) + 1) for _ in range(STATES))
    states, durable_at, done = [], [], 0
    durable: set[str] = set(kept or ())
    for number, moment in enumerate(moments):
        for record in records[done:moment]:
            disk.apply(record)
            if record.call == "S" and record.path == str(world.results) and kept is None:
                durable = _ids(world, disk.content(record.path))
        done = moment
        folder = world.folder / f"state-{number}"
        folder.mkdir()
        disk.lay_out(world.folder / "made", folder, world.rng)
        states.append(folder / "out" / world.results.name)
        durable_at.append(set(durable))
        if kept is None and fsync != "never":
            late_s = 0.0 if fsync == "always" else 1.0 + _LATE_S
            _judge_durable(world, durable, records[moment - 1].at_s - late_s)
    _resume(world, states, durable_at, fsync, old or {})


def _ids(world: World, content: bytes) -> set[str]:
    path = world.folder / f"durable{world.suffix}"
    path.write_bytes(content)
    return set(read_answers(path).texts)


def _judge_durable(world: World, durable: set[str], before_s: float) -> None:
    """Answers that had arrived long enough before are on the disk, but for those in flight."""
    log = world.log()
    ends = {chat["prompt"]: log.ends.get((chat["log"], chat["number"])) for chat in log.chats}
    arrived = {key for key, text in world.prompts.items() if (end := ends.get(text)) and end["time_s"] < before_s}
    missing = arrived - durable
    note = f"{len(missing)} answers that had arrived were not on the disk, {world.concurrency} may be in flight"
    world.verdict.blame("lost", note, max(0, len(missing) - world.concurrency))


def _resume(world: World, states: list[Path], durable_at: list[set[str]], fsync: str, old: dict[str, str]) -> None:
    base = {"version": 1, "input": [str(world.input)], "output": {"format": world.form, "fsync": "never"}}
    provider = {"name": world.provider, "base_url": world.base_url}
    if world.provider == "openai":
        provider["model"] = "m"
    job = world.folder / "resume.json"
    job.write_text(json.dumps({**base, "provider": provider, "on_change": "redo" if old else "error"}))
    for state in states:
        state.parent.mkdir(parents=True, exist_ok=True)
    process = world.start_command([sys.executable, "-c", RESUME, str(job), *map(str, states)])
    world.end(process, {0}, within_s=90)
    told = [json.loads(line) for line in world.printed(process).splitlines()]
    world.verdict.tries = len(told)
    world.verdict.blame("wrong", f"{len(states) - len(told)} states were not resumed", len(states) - len(told))
    for state, durable, report in zip(states, durable_at, told, strict=False):
        _judge_state(world, state, durable if fsync != "never" else set(), report, old)
        shutil.rmtree(state.parents[1], ignore_errors=True)


def _judge_state(world: World, state: Path, durable: set[str], report: dict, old: dict[str, str]) -> None:
    answers = read_answers(state)
    verdict, name = world.verdict, state.parents[1].name
    if report["code"]:
        verdict.blame("wrong_exit", f"{name}: resuming ended with {report['code']}")
    verdict.blame(
        "lost",
        f"{name}: {report['before']} of {len(durable)} synced answers are there",
        max(0, len(durable) - report["before"]),
    )
    verdict.blame("duplicated", name, answers.duplicates)
    verdict.blame(
        "wrong", f"{name}: {answers.faults[:2]}, {answers.torn} torn bytes", len(answers.faults) + int(answers.torn > 0)
    )
    missing = world.prompts.keys() - answers.texts.keys()
    verdict.blame("lost", f"{name}: no line for {sorted(missing)[:3]}", len(missing))
    wrong = [key for key, texts in answers.texts.items() if texts[0] != world.expected(world.prompts.get(key, ""))]
    verdict.blame("wrong", f"{name}: {wrong[:3]}", len(wrong))
    torn = state.with_name("results.torn")
    kept = torn.read_text(errors="replace") if torn.exists() else ""
    gone = [key for key, text in old.items() if f'"{text}"' not in kept]
    verdict.blame("lost", f"{name}: replaced answers are not in the torn file: {gone[:3]}", len(gone))
