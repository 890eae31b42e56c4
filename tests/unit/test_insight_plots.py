"""Plots of a run: pictures that any reader of XML takes, whatever happened when."""

import math
import random
import re
import xml.etree.ElementTree as ElementTree
from datetime import timedelta

import pytest

from batchchat.insight.axes import TimeScale, ValueScale, render_number, render_seconds
from batchchat.insight.figures import Figures
from batchchat.insight.plots import build_plots
from batchchat.insight.series import cut_into_stretches
from batchchat.insight.svg import HEIGHT, PLOT_CSS, WIDTH
from batchchat.insight.timeline import Timeline
from batchchat.records import Failure
from batchchat.results.figures import figures_of
from tests.result_lines import FINISHED_AT, answered, failed

_KINDS = ("server", "timeout", "refused", "network", "rate_limit", "quota", "input", "protocol", "incomplete", "auth")


def figures(moments_s, *, kinds=(), latency_s=1.0, spread=1.0, share=0.2) -> Figures:
    made = Figures()
    draw = random.Random(3)
    for number, moment_s in enumerate(moments_s):
        at = FINISHED_AT + timedelta(seconds=moment_s)
        if kinds and draw.random() < share:
            error = Failure(type=draw.choice(kinds), message="<script>alert(1)</script>")
            made.add_failure(failed(f"q-{number}", error=error, finished_at=at, attempts=draw.randint(0, 30)))
        else:
            value = latency_s * draw.lognormvariate(0, spread)
            tried = [{"type": kind, "after_s": value / 2} for kind in kinds[: number % 4]] or None
            outcome = answered(f"q-{number}", latency_s=value, finished_at=at, failed_attempts=tried)
            made.add_answer(figures_of(outcome), lambda outcome=outcome: outcome)
    return made


def nights(count: int):
    """Runs of ten minutes, a day apart."""
    return [day * 86400 + second for day in range(count) for second in range(0, 600, 5)]


FAMILIES = {
    "nothing": figures([]),
    "one": figures([0]),
    "one failure": figures([0], kinds=_KINDS, share=1.1),
    "two": figures([0, 3]),
    "all at once": figures([7] * 500),
    "a minute": figures([n / 50 for n in range(3000)], kinds=_KINDS[:3]),
    "all types": figures([n / 5 for n in range(3000)], kinds=_KINDS),
    "only failures": figures(range(100), kinds=_KINDS[:2], share=1.1),
    "ten nights": figures(nights(10), kinds=_KINDS[:1]),
    "hundred lone prompts": figures([n * 86400 for n in range(100)]),
    "centuries": figures([n * 3e8 for n in range(300)]),
    "fast": figures([n / 1e4 for n in range(3000)], latency_s=0.002),
    "slow": figures([n * 600 for n in range(300)], latency_s=9000.0),
    "no latency": figures(range(50), latency_s=0.0),
    "wide": figures(range(500), spread=4.0),
}


@pytest.mark.parametrize("limit_per_s", [None, 5.0, 0.001, 1e9])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_plot_is_a_picture_within_its_bounds(family: str, limit_per_s: float | None) -> None:
    """Well-formed, with a name for those who do not see it, finite coordinates inside, and nothing a policy forbids."""
    for plot in build_plots(FAMILIES[family], limit_per_s=limit_per_s, limit_since_s=FINISHED_AT.timestamp()):
        root = ElementTree.fromstring(plot.svg)
        assert root.get("role") == "img"
        assert root.get("aria-label").startswith(f"{plot.title}: ")
        assert root.find("{http://www.w3.org/2000/svg}title").text == plot.title
        for element in root.iter():
            assert not {name for name in element.attrib if name.startswith("on") or name in ("style", "href")}
            assert element.tag.split("}")[1] in {"svg", "title", "line", "rect", "path", "text"}
            for name, most in (
                ("x", WIDTH),
                ("x1", WIDTH),
                ("x2", WIDTH),
                ("y", HEIGHT),
                ("y1", HEIGHT),
                ("y2", HEIGHT),
            ):
                if name in element.attrib:
                    assert -1 <= float(element.get(name)) <= most + 1
            for number in re.findall(r"-?[\d.]+(?:e[-+]?\d+)?|nan|inf", element.get("d", "")):
                assert -1 <= float(number) <= WIDTH + 1
            assert float(element.get("width", 0)) >= 0
        assert len(plot.svg) < 80_000
        assert all(len(row) == len(plot.head) for row in plot.rows)


def test_every_class_that_is_drawn_has_a_look() -> None:
    drawn = {
        name
        for family in FAMILIES.values()
        for plot in build_plots(family, limit_per_s=5.0)
        for classes in re.findall(r'class="([^"]+)"', plot.svg)
        for name in classes.split()
    }
    assert drawn - set(re.findall(r"\.([a-z]+\d?)", PLOT_CSS)) == set()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("nothing", "centuries")])
def test_the_numbers_beside_a_plot_are_those_of_the_run(family: str) -> None:
    """No prompt is lost in the columns, the bars or the classes."""
    made = FAMILIES[family]
    columns = [column for stretch in cut_into_stretches(made.timeline) for column in stretch.columns]
    assert sum(column.bucket.answered for column in columns) == made.answered
    assert sum(column.bucket.ended for column in columns) == made.answered + made.failed
    plots = {plot.key: plot for plot in build_plots(made)}
    count = lambda key, place: sum(int(row[place].replace(",", "")) for row in plots[key].rows)  # noqa: E731
    assert count("latency", 2) == made.latency.total
    assert count("latency-over-time", 1) == made.latency.total
    assert count("attempts", 1) == made.answered + made.failed
    assert count("failures", 1) == made.failed
    attempts = sum(int(cell.replace(",", "")) for row in plots["failed-attempts"].rows for cell in row[1:])
    assert attempts == sum(made.failed_attempts.values())


def test_a_type_of_failure_has_one_colour_in_all_plots() -> None:
    plots = {plot.key: plot for plot in build_plots(FAMILIES["a minute"])}
    colours = dict(each[::-1] for each in plots["failures-over-time"].legend)
    assert len(set(colours.values())) == 3
    assert colours == dict(each[::-1] for each in plots["failed-attempts"].legend)


def test_a_run_without_failures_or_outcomes_says_so() -> None:
    plots = {plot.key: plot for plot in build_plots(FAMILIES["nothing"])}
    assert "no prompt failed" in plots["failures"].svg
    assert "no answer tells" in plots["latency"].svg
    assert all(plot.rows == [] for plot in plots.values())


@pytest.mark.parametrize(("runs", "idle"), [(2, 1), (10, 9)])
def test_nights_between_runs_are_cut_out_and_marked(runs: int, idle: int) -> None:
    """So ten minutes of ten days are the picture, not a row of needles."""
    stretches = cut_into_stretches(figures(nights(runs)).timeline)
    assert len(stretches) == runs
    assert [stretch.idle_before_s > 80_000 for stretch in stretches] == [False] + [True] * idle
    svg = build_plots(figures(nights(runs)))[0].svg
    assert svg.count('class="break"') == idle
    assert "23 h" in svg


def test_a_stall_within_a_run_stays_in_sight() -> None:
    """Two minutes of silence in a run of twenty are what the picture is for."""
    moments = [*range(600), *range(720, 1320)]
    stretches = cut_into_stretches(figures(moments).timeline)
    assert len(stretches) == 1
    assert any(not column.bucket.ended for column in stretches[0].columns)


def test_slow_runs_are_not_cut_into_pieces() -> None:
    assert len(cut_into_stretches(figures([n * 3600 for n in range(100)]).timeline)) == 1


@pytest.mark.parametrize("span_s", [1, 100, 10_000, 1e6, 1e9])
def test_there_are_no_more_columns_than_a_picture_can_show(span_s: float) -> None:
    draw = random.Random(1)
    timeline = Timeline()
    for _ in range(2000):
        timeline.at(1.7e9 + draw.random() * span_s).answered += 1
    columns = [column for stretch in cut_into_stretches(timeline) for column in stretch.columns]
    assert len(columns) <= 98
    assert len({round(column.end_s - column.start_s, 6) for column in columns}) == 1
    assert all(column.covered_s >= (column.end_s - column.start_s) / 2 for column in columns)


@pytest.mark.parametrize("limit_per_s", [20.0, 49.0, 150.0])
def test_the_rate_limit_is_drawn_in(limit_per_s: float) -> None:
    made = figures([n / 50 for n in range(3000)])
    throughput = build_plots(made, limit_per_s=limit_per_s)[0]
    assert f"limit {limit_per_s:g}/s" in throughput.svg
    assert ("limit", "rate limit") in throughput.legend


def test_a_limit_far_above_is_told_in_words() -> None:
    throughput = build_plots(figures([n / 50 for n in range(3000)]), limit_per_s=5000.0)[0]
    assert 'class="limit"' not in throughput.svg
    assert "5,000/s is far above" in throughput.note


@pytest.mark.parametrize("most", [1e-9, 0.07, 0.9, 1, 3, 7, 49, 50, 51, 999, 12345, 1e12])
def test_value_axes_have_few_round_ticks_and_reach_the_most(most: float) -> None:
    scale = ValueScale.linear(most, 200, 0)
    assert 3 <= len(scale.ticks) <= 6
    assert scale.high >= most * 0.9999
    step = scale.ticks[1]
    digits = step / 10 ** math.floor(math.log10(step * 1.0001))
    assert min(abs(digits - round_one) for round_one in (1, 2, 2.5, 5)) < 1e-6
    assert scale.at(scale.high) == 0
    assert scale.at(0) == 200


@pytest.mark.parametrize("most", [0.002, 3, 59, 61, 100, 3000, 90_000, 1e7])
def test_ticks_of_latencies_are_read_at_a_glance(most: float) -> None:
    """``2 min`` and not ``1 min 40 s``, so that they fit beside the axis."""
    for scale in (ValueScale.linear(most, 200, 0, seconds=True), ValueScale.log_seconds(most / 100, most, 200, 0)):
        assert 1 <= len(scale.ticks) <= 12
        assert all(len(render_seconds(tick)) <= 7 for tick in scale.ticks)


@pytest.mark.parametrize("least", [0.001, 0.3, 5, 4000])
@pytest.mark.parametrize("ratio", [1.0, 1.05, 3, 40, 1e5])
def test_logarithmic_axes_have_at_least_one_tick_and_few(least: float, ratio: float) -> None:
    scale = ValueScale.log_seconds(least, least * ratio, 0, 400)
    assert 1 <= len(scale.ticks) <= 12
    assert 0 <= scale.at(least) <= scale.at(least * ratio) <= 400


@pytest.mark.parametrize("family", FAMILIES)
def test_times_stand_apart_on_their_axis(family: str) -> None:
    stretches = cut_into_stretches(FAMILIES[family].timeline)
    if not stretches:
        return
    scale = TimeScale(stretches, 50, 508)
    places = [x for x, _ in scale.ticks]
    assert 1 <= len(places) <= 9
    assert all(later - earlier >= 60 for earlier, later in zip(places, places[1:], strict=False))
    assert len({text for _, text in scale.ticks}) == len(places)


def test_numbers_and_times_are_short() -> None:
    assert [render_number(value) for value in (0, 0.25, 9.994, 12, 1000, 9999, 12_345, 3.2e6, 4e9, 7e15)] == [
        "0", "0.25", "9.99", "12", "1,000", "9,999", "12.3k", "3.2M", "4G", "7,000T",
    ]  # fmt: skip
    assert [render_seconds(value) for value in (0, 0.0123, 0.84, 12.34, 90.04, 119.7, 125, 3720, 180_000)] == [
        "0 s", "12.3 ms", "0.84 s", "12.3 s", "90 s", "2 min", "2 min 5 s", "1 h 2 min", "2 d 2 h",
    ]  # fmt: skip
