"""The benchmark itself: what it measures is what it says."""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.bench.__main__ import PAGE, PAGES, WORKLOADS
from tests.bench.canned import Behaviour, expected_reply, ideal_makespan_s, latency_s
from tests.bench.measure import lean, measure, ours, run_command, serving
from tests.bench.page import bars_of, draw_bars, write_section
from tests.bench.table import Table


@pytest.mark.parametrize("provider", ["openai", "ai-engine"])
@pytest.mark.parametrize("command", [ours, lean], ids=["ours", "lean"])
def test_every_answer_is_checked(command, provider: str, tmp_path: Path) -> None:
    run = measure(command(provider), tmp_path, Behaviour(latency_ms=1), prompts=50)
    assert run.fine
    assert run.server["requests"] == 50
    assert 1 <= run.server["peak"] <= 50
    assert run.cost.cpu_s > 0
    assert run.cost.rss_mb > 5


@pytest.mark.parametrize(
    ("written", "right", "faulty"),
    [
        ([0, 1, 2], 3, 0),
        ([0, 0, 2], 2, 1),
        ([0], 1, 0),
        ([], 0, 0),
    ],
)
def test_lines_that_are_missing_or_too_many_are_counted(
    written: list[int], right: int, faulty: int, tmp_path: Path
) -> None:
    lines = "".join(json.dumps({"id": f"{n:09d}", "reply": expected_reply(n, Behaviour())}) + "\n" for n in written)
    script = f"import sys; open(sys.argv[sys.argv.index('--output') + 1], 'w').write({lines!r})"
    run = measure([sys.executable, "-c", script], tmp_path, Behaviour(), prompts=3)
    assert (run.right, run.faulty) == (right, faulty)
    assert run.fine == (right == 3 and not faulty)


@pytest.mark.parametrize(
    "line", ['{"id": "000000001", "reply": "R000000002 alpha END"}', '{"reply": "R000000001 alp"}']
)
def test_answer_of_another_prompt_or_a_cut_one_is_faulty(line: str, tmp_path: Path) -> None:
    script = f"import sys; open(sys.argv[sys.argv.index('--output') + 1], 'w').write({line!r} + chr(10))"
    run = measure([sys.executable, "-c", script], tmp_path, Behaviour(), prompts=1)
    assert (run.right, run.faulty) == (0, 1)


def test_cpu_of_children_counts_and_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}], check=True)"
    assert run_command([sys.executable, "-c", child], tmp_path).cpu_s >= 0.3
    assert run_command([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, limit_s=0.2).exit == -9


def test_server_lets_in_what_its_rates_allow(tmp_path: Path) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "id=000000000"}]}).encode()
    with serving(Behaviour(rates=[(3, 100.0), (100, 1.0)])) as server:
        codes = []
        for _ in range(5):
            try:
                with urllib.request.urlopen(f"{server.base_url}/v1/chat/completions", body, timeout=10) as response:
                    codes.append(response.status)
            except urllib.error.HTTPError as error:
                codes.append(error.code)
                assert error.headers["Retry-After"] == "1"
                error.close()
        assert codes == [200, 200, 200, 429, 429]
        assert server.stats()["refused"] == 2


def test_latencies_are_the_same_for_everybody_and_of_the_mean_that_was_asked() -> None:
    behaviour = Behaviour(latency_ms=200)
    drawn = [latency_s(behaviour, number) for number in range(4000)]
    assert drawn == [latency_s(behaviour, number) for number in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.2, rel=0.03)
    assert ideal_makespan_s(behaviour, 4000, 1) == pytest.approx(sum(drawn))
    assert max(drawn) <= ideal_makespan_s(behaviour, 4000, 200) <= sum(drawn) / 200 + max(drawn)


def test_page_has_a_place_for_every_workload_and_only_that_is_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    table = Table("T", "Note.", ["client", "ms"], [["batchchat", "1.50"], ["lean", "1,000.25"]])
    for name in (name for name in WORKLOADS if name not in PAGES):
        before = page.read_text()
        write_section(page, name, [table])
        after = page.read_text()
        begin, end = after.index(f"<!-- bench:{name} -->"), after.index(f"<!-- end:{name} -->")
        assert after[:begin] == before[: before.index(f"<!-- bench:{name} -->")]
        assert after[end:] == before[before.index(f"<!-- end:{name} -->") :]
        assert bars_of(page, name, "ms") == [("batchchat", 1.5), ("lean", 1000.25)]
    with pytest.raises(ValueError, match="markers"):
        write_section(page, "nothing", [table])


def test_plot_has_a_bar_for_each_client_the_least_first(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    draw_bars(plot, "A & B", "ms", [("slow", 10.0), ("batchchat", 0.2)])
    text = plot.read_text()
    assert text.index(">batchchat<") < text.index(">slow<")
    assert text.count("<rect") == 2
    assert "A &amp; B" in text
    assert "prefers-color-scheme: dark" in text
