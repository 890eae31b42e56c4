"""Where a prompt's time goes: W1 under py-spy, by the part of the program that runs; skipped where there is no py-spy."""

import shutil
from collections import Counter

from tests.bench.canned import Behaviour
from tests.bench.measure import ours, run_command, serving, write_prompts
from tests.bench.table import Table
from tests.bench.workloads import Plan

__all__ = ["where"]

# The first that stands in the path of a frame's file names its part.
_PARTS = (
    ("aiohttp/", "aiohttp, yarl, multidict"),
    ("yarl/", "aiohttp, yarl, multidict"),
    ("multidict/", "aiohttp, yarl, multidict"),
    ("batchchat/providers/", "requests and answers (providers)"),
    ("batchchat/sse.py", "requests and answers (providers)"),
    ("batchchat/patience.py", "requests and answers (providers)"),
    ("batchchat/deadlines.py", "requests and answers (providers)"),
    ("batchchat/results/", "results"),
    ("batchchat/run_output.py", "results"),
    ("batchchat/delivery.py", "results"),
    ("batchchat/records.py", "results"),
    ("batchchat/admission.py", "admission, limits, tokens and cost"),
    ("batchchat/limits.py", "admission, limits, tokens and cost"),
    ("batchchat/meter.py", "admission, limits, tokens and cost"),
    ("batchchat/tokens.py", "admission, limits, tokens and cost"),
    ("batchchat/prompts.py", "input"),
    ("batchchat/jsonl.py", "input"),
    ("batchchat/input_lines.py", "input"),
    ("batchchat/fingerprints.py", "input"),
    ("batchchat/survey.py", "input"),
    ("batchchat/", "a prompt's life (worker, pool, retries, counts)"),
    ("asyncio/", "event loop (asyncio, uvloop, the system's calls)"),
    ("uvloop", "event loop (asyncio, uvloop, the system's calls)"),
)
_IDLE = ("threading.py", "concurrent/futures/thread.py", "queue.py", "selectors.py")


def where(plan: Plan) -> list[Table]:
    """Shares of the samples, without start-up and threads that wait."""
    spy = shutil.which("py-spy")
    if spy is None:
        plan.tell("no py-spy on the PATH, left out")
        return []
    count, parts = 20_000, {}
    for provider in ("openai", "ai-engine"):
        plan.tell(provider)
        record = [spy, "record", "--rate", "250", "--format", "raw", "--output", str(plan.folder / "stacks"), "--"]
        prompts = write_prompts(plan.folder / "prompts.jsonl", count)
        with serving(Behaviour()) as server:
            paths = [str(prompts), "-o", str(plan.folder / f"{provider}.jsonl"), "--base-url", server.base_url]
            cost = run_command([*record, *ours(provider), *paths, "--concurrency", "64"], plan.folder)
        if cost.exit or not (plan.folder / "stacks").exists():
            plan.tell(f"py-spy cannot look into processes here (exit {cost.exit}), left out")
            return []
        parts[provider] = _shares((plan.folder / "stacks").read_text().splitlines())
    names = sorted(set(parts["openai"]) | set(parts["ai-engine"]), key=lambda name: -parts["openai"][name])
    rows = [[name, *(f"{found[name]:.0%}" for found in parts.values())] for name in names]
    note = f"Samples of {count:,} prompts without latency, by the part whose code ran; what C code does counts for its caller."
    return [Table("Where a prompt's time goes", note, ["part", *parts], rows)]


def _shares(stacks: list[str]) -> Counter[str]:
    """Share of each part."""
    found: Counter[str] = Counter()
    for stack, samples in map(_split, stacks):
        if "_find_and_load" in stack:
            continue
        last = stack.rpartition(";")[2]
        if not any(idle in last for idle in _IDLE):
            found[_part(last)] += samples
    total = sum(found.values()) or 1
    return Counter({name: samples / total for name, samples in found.items()})


def _split(line: str) -> tuple[str, int]:
    stack, _, samples = line.rpartition(" ")
    return stack, int(samples)


def _part(frame: str) -> str:
    return next((name for path, name in _PARTS if path in frame), "the rest (standard library, other packages)")
