"""What a prompt costs stays within bounds: ratios of CPU seconds between child processes, never times on the clock.

Each figure is the least of its measurements, as a busy machine can only add to one, and measuring goes on until the bound
holds or the rounds are used up. The bounds leave room for noise; ``make bench`` tells the figures themselves.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from batchchat.forms import Conversion, convert
from batchchat.jsonl import dump_line
from tests.bench.canned import Behaviour
from tests.bench.measure import lean, measure, ours, run_command

ROUNDS = 10
# CPU of a prompt, without the start-up, to the lean loop's; 1.1 to 1.5 are usual.
COST_BOUND = 1.8
HELP_BOUND, FIRST_BOUND = 1.7, 2.3
GROWTH_BOUND_BYTES = 700
# CPU of a conversion, to that of parsing each line; 2.5 to 7.5 are usual.
CONVERT_BOUND = 9

pytestmark = pytest.mark.timeout(240)


def assert_ratio_within(bound: float, ours_s: Callable[[], float], yardstick_s: Callable[[], float]) -> None:
    """Takes turns until the least of ours is within the bound times the least of the yardstick's."""
    found: list[float] = []
    yardstick: list[float] = []
    for _ in range(ROUNDS):
        found.append(ours_s())
        yardstick.append(yardstick_s())
        if min(found) <= bound * min(yardstick):
            return
    pytest.fail(
        f"{min(found):.3f} s to {min(yardstick):.3f} s is {min(found) / min(yardstick):.2f}, not {bound} at most"
    )


def answered_cpu_s(command: list[str], folder: Path, behaviour: Behaviour, prompts: int) -> float:
    run = measure(command, folder, behaviour, prompts=prompts)
    assert run.fine, run
    return run.cost.cpu_s


@pytest.mark.parametrize("provider", ["openai", "ai-engine"])
def test_cpu_of_a_prompt_is_a_small_multiple_of_the_lean_loops(provider: str, tmp_path: Path) -> None:
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for name, command in {"ours": ours(provider), "lean": lean(provider)}.items():
            for prompts in (1, 5000):
                cost_s = answered_cpu_s(command, tmp_path, Behaviour(), prompts)
                found.setdefault((name, prompts), []).append(cost_s)
        least = {key: min(costs) for key, costs in found.items()}
        ratio = (least["ours", 5000] - least["ours", 1]) / (least["lean", 5000] - least["lean", 1])
        if ratio <= COST_BOUND:
            return
    pytest.fail(f"{ratio:.2f} times the lean loop's, not {COST_BOUND} at most: {least}")


def test_help_costs_little_more_than_the_import_of_click(tmp_path: Path) -> None:
    def cpu_s(*arguments: str) -> float:
        cost = run_command([sys.executable, *arguments], tmp_path)
        assert cost.exit == 0
        return cost.cpu_s

    assert_ratio_within(HELP_BOUND, lambda: cpu_s("-m", "batchchat", "--help"), lambda: cpu_s("-c", "import click"))


def test_run_of_one_prompt_costs_little_more_than_its_imports(tmp_path: Path) -> None:
    imports = [sys.executable, "-c", "import aiohttp, orjson, click, msgspec"]
    assert_ratio_within(
        FIRST_BOUND,
        lambda: answered_cpu_s(ours(), tmp_path, Behaviour(), 1),
        lambda: run_command(imports, tmp_path).cpu_s,
    )


def test_memory_hardly_grows_with_the_input(tmp_path: Path) -> None:
    """A few bytes for each finished id, not the prompts."""
    few, many = (measure(ours(), tmp_path, Behaviour(), prompts=prompts) for prompts in (1000, 6000))
    assert few.fine
    assert many.fine
    assert (many.cost.rss_mb - few.cost.rss_mb) * 1024 * 1024 / 5000 < GROWTH_BOUND_BYTES


@pytest.mark.parametrize("provider", ["openai", "ai-engine"])
def test_cost_of_a_long_answer_is_linear_in_its_pieces(provider: str, tmp_path: Path) -> None:
    """Twice the pieces: the second half costs what the first did, not three times as much."""

    def cpu_s(events: int) -> float:
        return answered_cpu_s(ours(provider), tmp_path, Behaviour(events=events), 1)

    found: dict[int, list[float]] = {2: [], 100_000: [], 200_000: []}
    for _ in range(ROUNDS):
        for events, costs in found.items():
            costs.append(cpu_s(events))
        short, half, whole = map(min, found.values())
        if whole - half <= 2 * (half - short):
            return
    pytest.fail(f"{short:.3f} s, then {half:.3f} s for 100,000 pieces and {whole:.3f} s for 200,000")


def result_line(number: int) -> bytes:
    """A result of some 1,000 bytes."""
    text = f"Line {number}, as it was asked for.\n" * 20
    result = {"id": f"q-{number}", "response": text, "error": None, "finish_reason": "stop", "model": "gpt-4o-mini"}
    result |= {"usage": {"input_tokens": 90 + number % 9, "output_tokens": 200}, "attempts": 1, "latency_s": 0.731}
    result |= {"first_delta_s": 0.2, "finished_at": "2026-11-25T10:03:11.120Z", "provider": "openai", "index": number}
    return dump_line(result | {"fingerprint": f"{number:016x}", "input": {"prompt": "Say it, please. " * 8}})


@pytest.mark.parametrize(
    ("source", "target", "form"),
    [
        ("results.jsonl", "out.jsonl", None),
        ("results.jsonl", "out.csv", None),
        ("results.jsonl", "out.jsonl", "openai-batch"),
        ("made.jsonl", "out.jsonl", "flat"),
        ("made.csv", "out.jsonl", None),
    ],
)
def test_results_are_converted_at_a_small_multiple_of_a_plain_read(
    source: str, target: str, form: str | None, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    results.write_bytes(b"".join(map(result_line, range(4000))))

    def convert_s(source: str, target: str, form: str | None) -> float:
        began = time.process_time()
        job = Conversion(source=str(tmp_path / source), target=str(tmp_path / target), to_form=form, force=True)
        assert convert(job, lambda *fault: None, lambda loss: None).lines == 4000
        return time.process_time() - began

    def read_s() -> float:
        began = time.process_time()
        for line in results.read_bytes().splitlines():
            orjson.loads(line)
        return time.process_time() - began

    if source != "results.jsonl":
        convert_s("results.jsonl", source, None if source.endswith(".csv") else "openai-batch")
    assert_ratio_within(CONVERT_BOUND, lambda: convert_s(source, target, form), read_s)
