"""What grows with the size of something: memory with the input, resuming with the results, time with one long answer."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.canned import Behaviour, expected_reply
from tests.bench.measure import Cost, lean, measure, ours, run_command, serving, write_prompts
from tests.bench.table import Table
from tests.bench.workloads import Plan, median, share

__all__ = ["long_answers", "memory", "resume", "start"]

_PROVIDER = ("--provider", "openai", "--model", "canned")
_READ = "import orjson, sys\nfor line in open(sys.argv[1], 'rb'): orjson.loads(line)"


def memory(plan: Plan) -> list[Table]:
    """The most memory of a run, by the number of prompts."""
    counts = (10_000, 100_000, 1_000_000) if plan.full else (10_000, 100_000)
    rows, first = [], {}
    for count in counts:
        for name, command in (("batchchat", ours()), ("lean loop", lean())):
            plan.tell(f"{name}, {count:,} prompts")
            run = measure(command, plan.folder, Behaviour(), prompts=count, limit_s=1800)
            rss_mb = run.cost.rss_mb
            smallest = first.setdefault(name, rss_mb)
            more = (rss_mb - smallest) * 1024 * 1024 / max(1, count - counts[0])
            grown = f"{more:.1f}" if count > counts[0] else ""
            rows.append([name, share(run.right, count), f"{rss_mb:.1f}", f"{rss_mb - smallest:.1f}", grown])
    note = "The most that the process held at any time."
    columns = ["client", "answered", "memory MB", "more than at first", "bytes a prompt more"]
    return [Table("Memory by the number of prompts, 64 in flight", note, columns, rows)]


def resume(plan: Plan) -> list[Table]:
    """Opening a results file, beside a plain read of it; both without their start-up."""
    count = 1_000_000 if plan.full else 100_000
    work = plan.folder / "resume"
    work.mkdir()
    try:
        prompts, results = write_prompts(work / "prompts.jsonl", count), work / "results.jsonl"
        one, few = write_prompts(work / "one.jsonl", 1), work / "few.jsonl"
        plan.tell(f"making {count:,} results")
        with serving(Behaviour(events=3, reply_bytes=600)) as server:
            where = ["--base-url", server.base_url, "--concurrency", "64"]
            run_command([*ours(), str(prompts), "-o", str(results), *where, "--fsync", "never"], work, 1800)
            run_command([*ours(), str(one), "-o", str(few), *where], work)
            size_mb = results.stat().st_size / 1e6
            jobs = _jobs(work, prompts, results, one, few, where)
            commands = {
                "": [sys.executable, "-c", _READ, str(few)],
                "read by orjson": [sys.executable, "-c", _READ, str(results)],
            }
            for name, (idle, command) in jobs.items():
                commands |= {f"{name}, of one line": idle, name: command}
            found = _in_turns(plan, commands, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    plain_s = found["read by orjson"][0] - found[""][0]
    rows = []
    for name in ("read by orjson", *jobs):
        idle = "" if name == "read by orjson" else f"{name}, of one line"
        spent_s = found[name][0] - found[idle][0]
        rows.append([name, f"{spent_s:.2f}", f"{spent_s / plain_s:.2f}", f"{found[name][1]:.0f}"])
    note = "CPU beyond that of the same with one line, beside a loop that parses each line; nothing is sent."
    columns = ["what", "CPU s", "to the plain read", "memory MB"]
    return [Table(f"Results of {count:,} answers, {size_mb:,.0f} MB, read again", note, columns, rows)]


def _jobs(
    work: Path, prompts: Path, results: Path, one: Path, few: Path, where: list[str]
) -> dict[str, tuple[list[str], list[str]]]:
    """What is done with results: the command for one line, and that for all."""
    batchchat, as_json = [sys.executable, "-m", "batchchat"], ["--format", "json"]

    def run(source: Path, stored: Path) -> list[str]:
        return [*ours(), str(source), "-o", str(stored), *where]

    def check(source: Path, stored: Path) -> list[str]:
        return [*batchchat, "check", str(source), "-o", str(stored), *where[:2], *_PROVIDER]

    def convert(source: Path | str, target: str, *more: str) -> tuple[list[str], list[str]]:
        little = few if source is results else work / f"few.{source}"
        return tuple(
            [*batchchat, "convert", "--quiet", "--force", *more, str(given), str(work / made)]
            for given, made in ((little, f"few.{target}"), (work / source, target))
        )  # type: ignore[return-value]

    return {
        "run, one prompt of these": (run(one, few), run(one, results)),
        "run, all prompts again": (run(one, few), run(prompts, results)),
        "check of the prompts": (check(one, work / "none.jsonl"), check(prompts, work / "none.jsonl")),
        "status": ([*batchchat, "status", str(few)], [*batchchat, "status", str(results)]),
        "report": ([*batchchat, "report", str(few), *as_json], [*batchchat, "report", str(results), *as_json]),
        "convert to CSV": convert(results, "table.csv"),
        "convert to Parquet": convert(results, "table.parquet"),
        "convert to OpenAI's batch form": convert(results, "batch.jsonl", "--to", "openai-batch"),
        "convert to prompts": convert(results, "prompts.jsonl.again", "--to", "prompts"),
        "convert from CSV": convert("table.csv", "from-table.jsonl"),
        "convert from Parquet": convert("table.parquet", "from-parquet.jsonl"),
        "convert from OpenAI's batch form": convert("batch.jsonl", "from-batch.jsonl", "--to", "flat"),
    }


def start(plan: Plan) -> list[Table]:
    """From nothing to the first words."""
    work = plan.folder / "start"
    work.mkdir()
    try:
        prompts = write_prompts(work / "prompts.jsonl", 1)
        with serving(Behaviour()) as server:
            one = [str(prompts), "--base-url", server.base_url, "-o", "-"]
            commands = {
                "python -c 'import click'": [sys.executable, "-c", "import click"],
                "batchchat --help": [sys.executable, "-m", "batchchat", "--help"],
                "python -c 'import aiohttp, orjson, click, msgspec'": [
                    sys.executable, "-c", "import aiohttp, orjson, click, msgspec"
                ],
                "batchchat run, one prompt": [*ours(), *one],
            }  # fmt: skip
            found = _in_turns(plan, commands, work, least=9)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    names = list(found)
    rows = [
        [name, f"{found[name][0]:.3f}", f"{found[name][0] / found[names[number // 2 * 2]][0]:.2f}"]
        for number, name in enumerate(names)
    ]
    note = "CPU seconds of the whole process; each command of ours beside the import that it cannot do without."
    return [Table("Start-up", note, ["what", "CPU s", "ratio"], rows)]


def long_answers(plan: Plan) -> list[Table]:
    """Answers of 3 MB, and answers in many pieces: CPU of one, beside the lean loop and a parse of the answer."""
    rows = []
    sizes = [(8, 3_000_000, 16), (1000, 0, 64), (10_000, 0, 16), (100_000, 0, 2)]
    for provider in ("openai", "ai-engine"):
        for events, reply_bytes, count in [*sizes, *([(1_000_000, 0, 1)] if plan.full else [])]:
            plan.tell(f"{provider}, answers in {events:,} pieces")
            behaviour = Behaviour(events=events, reply_bytes=reply_bytes)
            spent = {
                name: _each_s(plan, command, behaviour, count)
                for name, command in (("ours", ours(provider)), ("lean", lean(provider)))
            }
            text = expected_reply(0, behaviour)
            parsed = _parse_s(text)
            cells = [f"{1000 * each:,.2f}" for each in (spent["ours"], spent["lean"], parsed)]
            row = [provider, f"{events:,}", f"{len(text) / 1e6:,.2f} MB", *cells]
            rows.append([*row, f"{spent['ours'] * 1e6 / events:,.2f}"])
    note = "CPU of one answer beyond the start-up; what a piece costs must not grow with their number."
    columns = ["provider", "pieces", "text", "CPU ms", "lean loop", "json.loads of the text", "µs a piece"]
    return [Table("Long answers", note, columns, rows)]


def _each_s(plan: Plan, command: Sequence[str], behaviour: Behaviour, count: int) -> float:
    """CPU seconds of one answer more: the least of the rounds, as nothing can make a run cheaper than it is."""
    least = []
    for prompts in (1, 1 + count):
        runs = [
            measure(command, plan.folder, behaviour, prompts=prompts, concurrency=1)
            for _ in range(plan.rounds if plan.full else 2)
        ]
        least.append(min(run.cost.cpu_s for run in runs))
    return (least[1] - least[0]) / count


def _parse_s(text: str) -> float:
    """CPU seconds of parsing the text as a JSON string."""
    data = json.dumps({"reply": text})
    spent = []
    for _ in range(5):
        began = time.process_time()
        json.loads(data)
        spent.append(time.process_time() - began)
    return min(spent)


def _in_turns(
    plan: Plan, commands: dict[str, Sequence[str]], work: Path, least: int = 1
) -> dict[str, tuple[float, float]]:
    """Median CPU seconds and memory of each command."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(max(least, plan.rounds)):
        plan.tell(f"round {number + 1}")
        for name, command in commands.items():
            costs[name].append(run_command(command, work, 600, quiet=True))
            if costs[name][-1].exit:
                raise RuntimeError(f"{name} ended with {costs[name][-1].exit}: {(work / 'log.txt').read_text()[-500:]}")
    return {
        name: (median([cost.cpu_s for cost in found]), median([cost.rss_mb for cost in found]))
        for name, found in costs.items()
    }
