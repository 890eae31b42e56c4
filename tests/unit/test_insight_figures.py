"""Figures of a run: percentiles, time, failures; added up at once, in parts, or as the files grow."""

import copy
import random
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from batchchat.insight.figures import Figures, first_failures
from batchchat.insight.fold import RunFold
from batchchat.insight.histogram import Histogram
from batchchat.insight.reading import read_insight, read_latest_run
from batchchat.insight.timeline import Timeline
from batchchat.jsonl import dump_line
from batchchat.records import Failure, Usage
from batchchat.results import name_files, outcome_to_batch_object, outcome_to_object, read_status
from batchchat.results.figures import figures_of
from batchchat.results.scan import RawLine
from tests.result_lines import FINISHED_AT, answered, failed


def histogram(values) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value)
    return made


def figures(outcomes) -> Figures:
    made = Figures()
    for outcome in outcomes:
        if outcome.error is None:
            made.add_answer(figures_of(outcome), lambda outcome=outcome: outcome)
        else:
            made.add_failure(outcome)
    return made


def some_outcomes(count: int, seed: int = 0):
    """Answers and failures of a run in which everything varies."""
    draw = random.Random(seed)
    for number in range(count):
        at = FINISHED_AT + timedelta(milliseconds=number * 140 + draw.randrange(1000))
        if draw.random() < 0.1:
            kind = draw.choice(["server", "timeout", "refused"])
            error = Failure(type=kind, message="no", status=draw.choice([None, 500, 503]))
            yield failed(f"q-{number}", index=number, error=error, attempts=draw.randint(1, 6), finished_at=at)
        else:
            latency_s = draw.lognormvariate(0, 1)
            tried = [{"attempt": 1, "after_s": latency_s / 2, "type": "timeout", "status": None, "message": "late"}]
            yield answered(
                f"q-{number}",
                index=number,
                latency_s=latency_s,
                attempts=2 if number % 9 == 0 else 1,
                failed_attempts=tried if number % 9 == 0 else None,
                finished_at=at,
            )


def shape(whole: Figures) -> object:
    """What two ways to the same figures agree in: all but the last digits of sums."""
    plain = msgspec.to_builtins(whole)
    sums = [
        plain["latency"],
        plain["first_delta"],
        *(each["latency"] for each in plain["timeline"]["buckets"].values()),
    ]
    for each in sums:
        each["sum_s"] = round(each["sum_s"], 6)
    return plain


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.003, 1.0, 5000.0])
def test_percentiles_are_right_within_two_percent(seed: int, scale: float) -> None:
    draw = random.Random(seed)
    values = sorted(draw.lognormvariate(0, 1.5) * scale + 0.001 for _ in range(5000))
    made = histogram(values)
    for percent in (1, 25, 50, 90, 99, 99.9):
        exact = values[max(0, -int(-len(values) * percent // 100) - 1)]
        assert made.percentile(percent) == pytest.approx(exact, rel=0.0201)
    assert made.percentile(100) == values[-1]
    assert (made.least_s, made.most_s) == (values[0], values[-1])
    assert made.mean() == pytest.approx(sum(values) / len(values))


def test_a_histogram_of_nothing_has_no_percentile_and_odd_values_are_none() -> None:
    made = histogram([-1.0, float("nan"), float("inf"), 1e300])
    assert (made.total, made.percentile(50), made.mean()) == (0, None, None)
    made.add(0.0)
    assert (made.total, made.percentile(50), made.classes()) == (1, 0.0, [(0.0, pytest.approx(0.00104), 1)])


@pytest.mark.parametrize("span_s", [0.1, 60, 86400, 3e10])
def test_a_timeline_has_at_most_200_buckets_whatever_its_span(span_s: float) -> None:
    """And every moment stays in the bucket that covers it."""
    draw = random.Random(7)
    moments = [1.7e9 + draw.random() * span_s for _ in range(3000)]
    timeline = Timeline()
    for moment in moments:
        timeline.at(moment).answered += 1
    assert len(timeline.buckets) <= 200
    assert (timeline.first_at, timeline.last_at) == (min(moments), max(moments))
    for number, bucket in timeline.buckets.items():
        begin = number * timeline.width_s
        assert bucket.answered == sum(begin <= moment < begin + timeline.width_s for moment in moments)


def test_a_pause_between_two_runs_costs_no_precision() -> None:
    timeline = Timeline()
    for number in range(100):
        timeline.at(1.7e9 + number * 0.25).answered += 1
        timeline.at(1.8e9 + number * 0.25).answered += 1
    assert timeline.width_s == 0.25


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_parts_add_up_to_those_of_the_whole(seed: int) -> None:
    outcomes = list(some_outcomes(2000, seed))
    whole, merged = figures(outcomes), Figures()
    for part in (outcomes[:37], outcomes[37:1500], outcomes[1500:]):
        made = figures(part)
        before = copy.deepcopy(made)
        merged.merge(made)
        assert made == before
    assert shape(merged) == shape(whole)
    assert (whole.answered, whole.failed) == (
        sum(outcome.error is None for outcome in outcomes),
        sum(outcome.error is not None for outcome in outcomes),
    )
    latencies = sorted((outcome.latency_s for outcome in outcomes), reverse=True)
    assert [one.latency_s for one in whole.slowest] == latencies[:50]


def test_figures_survive_json() -> None:
    whole = figures(some_outcomes(300))
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Figures) == whole


def test_figures_stay_small_whatever_comes() -> None:
    """Many models, statuses, attempts, types, long texts, and ids of any size."""
    made = Figures()
    text = "x\ud800" * 5_000
    for number in range(300):
        error = Failure(type="server", message=text, status=number * 10**6, partial=text)
        made.add_failure(failed(10**1000 + number, error=error, attempts=10**30, latency_s=float(number)))
        answer = answered(text + str(number), text, latency_s=float(number), line={"prompt": text}, attempts=number)
        answer = msgspec.structs.replace(
            answer, completion=msgspec.structs.replace(answer.completion, model=f"{number}{text}")
        )
        made.add_answer(figures_of(answer), lambda answer=answer: answer)
    encoded = msgspec.json.encode(made)
    assert len(encoded) < 2_000_000
    assert len(made.models) <= 31
    assert made.slowest[0].response.chars == 10_000
    assert made.slowest[0].response.cut == 10_000 - 400


def test_tokens_that_cannot_be_count_for_nothing() -> None:
    made = Figures()
    for usage in (None, Usage(input_tokens=10**40, output_tokens=-5), Usage(input_tokens=3, output_tokens=4)):
        outcome = answered(str(usage))
        outcome = msgspec.structs.replace(outcome, completion=msgspec.structs.replace(outcome.completion, usage=usage))
        made.add_answer(figures_of(outcome), lambda outcome=outcome: outcome)
    assert (made.input_tokens, made.output_tokens) == (3, 4)


def test_failed_attempts_count_when_they_failed() -> None:
    """Also those of prompts that were answered later; of a single attempt, the failure itself."""
    tried = [
        {"attempt": 1, "after_s": 2.0, "type": "server", "status": 503, "message": "no"},
        {"attempt": 2, "after_s": 50.0, "type": "timeout", "status": None, "message": "late"},
    ]
    made = figures(
        [
            answered("a", attempts=3, latency_s=100.0, failed_attempts=tried),
            failed("b", attempts=2, latency_s=50.0, failed_attempts=tried),
            failed("c", attempts=1),
            failed("d", attempts=0),
        ]
    )
    assert made.failed_attempts == {"server": 3, "timeout": 2}
    end = FINISHED_AT.timestamp()
    when = {}
    for number, bucket in made.timeline.buckets.items():
        for kind, count in bucket.failed_attempts.items():
            when[round(number * made.timeline.width_s - end), kind] = count
    assert when == {(-98, "server"): 1, (-50, "timeout"): 1, (-48, "server"): 1, (0, "timeout"): 1, (0, "server"): 1}


@pytest.mark.parametrize(
    "odd",
    [[{}], [{"type": 3}], ["x"], [None], [{"type": "x" * 9, "after_s": -1e18}], [{"type": "\ud800", "after_s": 1e18}]],
)
def test_odd_attempts_neither_stretch_time_nor_stop_anything(odd) -> None:
    made = figures([answered("a", failed_attempts=odd), failed("b", failed_attempts=odd)])
    assert (made.answered, made.failed) == (1, 1)
    assert set(made.failed_attempts) <= {"others", "server"}
    assert made.timeline.last_at - made.timeline.first_at <= 30 * 86400
    assert msgspec.json.encode(made)


def test_first_failures_are_shared_fairly_among_the_types() -> None:
    """A rare type is not crowded out by a frequent one."""
    made = Figures()
    for number in range(500):
        made.add_failure(failed(f"s-{number}"))
    for number in range(3):
        made.add_failure(failed(f"a-{number}", error=Failure(type="auth", message="no key")))
    shown = first_failures(made, 20)
    assert [one.id for one in shown] == [f"s-{number}" for number in range(17)] + ["a-0", "a-1", "a-2"]
    assert first_failures(made, 0) == []


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("to_object", [outcome_to_object, outcome_to_batch_object])
def test_counts_are_those_of_status(tmp_path: Path, ending: str, to_object) -> None:
    """Both forms, all compressions; with duplicates, torn lines, and a failure that has been answered since."""
    from batchchat.results.codec import Codec

    outcomes = list(some_outcomes(400))
    files = name_files(str(tmp_path / f"out.jsonl{ending}"))
    codec = Codec({"": None, ".gz": "gz", ".zst": "zst"}[ending])
    good = [dump_line(to_object(outcome)) for outcome in outcomes if outcome.error is None]
    lines = b"".join([*good, good[3], b"\0\0\0\n", b'{"id": "to', b"\n"])
    Path(files.results).write_bytes(codec.encode(lines))
    bad = [dump_line(to_object(outcome)) for outcome in outcomes if outcome.error is not None]
    answered_since = dump_line(to_object(failed(next(each.id for each in outcomes if each.error is None))))
    Path(files.errors).write_bytes(b"".join([*bad, answered_since]))
    found = read_insight(files)
    assert found.status == read_status(files)
    assert (found.status.duplicate_ids, found.status.torn_lines) == (1, 2)
    assert (found.figures.answered, found.figures.failed) == (len(good), len(bad))
    assert shape(found.figures) == shape(
        figures([*(o for o in outcomes if not o.error), *(o for o in outcomes if o.error)])
    )


def test_a_fold_goes_on_with_further_lines(tmp_path: Path) -> None:
    """After each line the figures are those of a file that ends there; a replaced errors file is read anew."""
    files = name_files(str(tmp_path / "out.jsonl"))
    outcomes = list(some_outcomes(60))
    fold = RunFold(files, running=True)
    for number, outcome in enumerate(outcomes):
        line = RawLine(number + 1, 0, dump_line(outcome_to_object(outcome))[:-1], True)
        assert (fold.add_failure_line if outcome.error else fold.add_answer_line)(line)
        assert not (fold.add_failure_line if outcome.error else fold.add_answer_line)(line)
        so_far = fold.figures()
        assert so_far.answered + so_far.failed == number + 1
    assert fold.status().failed == fold.figures().failed > 0
    fold.forget_failures()
    assert (fold.status().failed, fold.figures().failed) == (0, 0)
    assert fold.figures().answered == sum(outcome.error is None for outcome in outcomes)


@pytest.mark.parametrize(
    "summary",
    [
        "", "[]", "{}", '{"settings": 3, "attempts": [], "started_at": "yesterday", "total": "ten"}',
        '{"settings": {"rate": [3, null, "x", "5/s"], "provider": []}, "duration_s": 1e999, "exit_code": true}',
        '{"started_at": "0001-01-01T00:00:00+23:00", "finished_at": 7, "total": 1.5}',
    ],
)  # fmt: skip
def test_an_odd_summary_tells_nothing_and_stops_nothing(tmp_path: Path, summary: str) -> None:
    files = name_files(str(tmp_path / "out.jsonl"))
    Path(files.summary).write_text(summary)
    Path(files.results).write_bytes(dump_line(outcome_to_object(answered("a"))))
    assert read_insight(files).figures.answered == 1
    run = read_latest_run(files)
    assert run is None or (run.total, run.exit_code, run.started_at, run.finished_at) == (None, None, None, None)


def test_the_lowest_of_several_rates_is_the_limit(tmp_path: Path) -> None:
    files = name_files(str(tmp_path / "out.jsonl"))
    Path(files.summary).write_text('{"settings": {"rate": ["5/s", "60/min", "10000/d"]}}')
    assert read_latest_run(files).rate_per_s == pytest.approx(10000 / 86400)
