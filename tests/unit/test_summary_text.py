"""The lines at the end of a run."""

from datetime import UTC, datetime

import msgspec
import pytest

from batchchat.config import JobConfig, OutputConfig
from batchchat.observer import FailureGroup, RunReport
from batchchat.records import Usage
from batchchat.summary_text import render_summary

NOW = datetime(2026, 11, 25, tzinfo=UTC)
GOOD = RunReport(exit_code=0, reason="completed", message=None, total=10, answered_before=0, answered=10, failed=0, pending=0,
                 started_at=NOW, finished_at=NOW, duration_s=4.0, usage=Usage(), attempts={"answered": 10}, requests=11,
                 failures=(), first_answers=(("q-1", "One."), (2, "Two."), ("q-3", "Three.")))  # fmt: skip
JOB = JobConfig(output=OutputConfig(path="out.jsonl"))
SERVER = FailureGroup(type="server", count=3, message="HTTP 500", example_id="q-7")


def lines(report: RunReport, *, job: JobConfig = JOB, quiet: bool = False, answers: int = 0) -> list[str]:
    return list(render_summary(report, job, quiet=quiet, answers=answers))


def changed(**values) -> RunReport:
    return msgspec.structs.replace(GOOD, **values)


def test_good_run_is_two_lines() -> None:
    assert lines(GOOD) == ["batchchat: 10 of 10 answered, 0 failed, in 4s, 2.5/s", "batchchat: results in out.jsonl"]


def test_limit_of_all_runs_is_told() -> None:
    job = msgspec.structs.replace(JOB, rate_scope="host")
    assert lines(GOOD, job=job)[1] == "batchchat: limits held over all runs on this machine (rate_scope: host)"
    assert lines(GOOD, job=job, quiet=True) == []


def test_quiet_says_nothing_of_a_good_run() -> None:
    assert lines(GOOD, quiet=True, answers=3) == []


def test_answers_of_earlier_runs_are_told_apart() -> None:
    assert lines(changed(answered=4, answered_before=6))[0].startswith(
        "batchchat: 10 of 10 answered (6 before this run), 0 failed"
    )


def test_pending_prompts_are_counted() -> None:
    assert ", 0 failed, 7 pending, in 4s" in lines(changed(answered=3, pending=7))[0]


def test_total_that_is_not_known_is_left_out() -> None:
    assert lines(changed(total=None, pending=None))[0].startswith("batchchat: 10 answered, 0 failed, in 4s")


def test_failures_are_grouped_with_an_example_even_when_quiet() -> None:
    report = changed(answered=7, failed=3, failures=(SERVER,))
    sentence = "batchchat:   3 × server: HTTP 500 (first: q-7)"
    assert lines(report)[1] == sentence
    assert lines(report, quiet=True)[0] == sentence


def test_message_of_a_failure_keeps_its_advice() -> None:
    message = (
        "TLS with 127.0.0.1:8443 failed ([SSL: WRONG_VERSION_NUMBER] wrong version number); is it an https address?"
    )
    group = FailureGroup(type="network", count=1, message=message, example_id=1)
    assert message in lines(changed(exit_code=1, failed=1, failures=(group,)))[1]


def test_failures_are_told_where_they_are_and_what_to_do_even_when_quiet() -> None:
    report = changed(exit_code=1, answered=7, failed=3, failures=(SERVER,))
    sentence = "batchchat: failed prompts in out.errors.jsonl; the same command tries them again"
    assert lines(report)[-1] == lines(report, quiet=True)[-1] == sentence
    elsewhere = JobConfig(output=OutputConfig(path="-"), errors="bad.jsonl")
    assert lines(report, job=elsewhere)[-1] == sentence.replace("out.errors.jsonl", "bad.jsonl")


def test_faulty_lines_are_to_be_mended_and_not_tried_again() -> None:
    faulty = FailureGroup(type="input", count=2, message="in.jsonl:3: found an empty prompt", example_id="line-3")
    sentence = "batchchat: faulty lines are listed in out.errors.jsonl; mend the input and run the same command"
    assert lines(changed(exit_code=1, answered=8, failed=2, failures=(faulty,)))[-1] == sentence
    both = changed(exit_code=1, answered=5, failed=5, failures=(SERVER, faulty))
    assert "tries them again" in lines(both)[-1]


@pytest.mark.parametrize(
    ("report", "path"),
    [
        (GOOD, "out.jsonl"),
        (changed(exit_code=1, failed=3, failures=(SERVER,)), "-"),
        (changed(exit_code=6, reason="results", message="full", failed=3, failures=(SERVER,)), "out.jsonl"),
    ],
)
def test_no_errors_file_is_named_where_there_is_none_to_read(report: RunReport, path: str) -> None:
    assert "failed prompts in" not in "\n".join(lines(report, job=JobConfig(output=OutputConfig(path=path))))


def test_what_stopped_the_run_is_told_when_quiet_too() -> None:
    """Otherwise it was told when it happened."""
    report = changed(exit_code=4, reason="service", message="no access")
    assert lines(report, quiet=True) == ["batchchat: no access"]
    assert "no access" not in "\n".join(lines(report))


@pytest.mark.parametrize(
    ("attempts", "failed", "words"),
    [
        ({"answered": 10}, 0, None),
        ({"answered": 10, "server": 1}, 0, "; 1 of 11 attempts failed"),
        ({"answered": 7, "server": 16, "timeout": 2}, 3, "; 18 of 25 attempts failed"),
        ({"answered": 7, "server": 3}, 3, None),
    ],
)
def test_failed_attempts_are_told_where_the_failed_prompts_do_not_tell_them(attempts, failed, words) -> None:
    line = lines(changed(attempts=attempts, failed=failed))[0]
    assert line.endswith(words) if words else ("attempt" not in line)


def test_large_speed_has_no_exponent() -> None:
    assert lines(changed(duration_s=0.005))[0].endswith(", 2,000/s")


def test_usage_is_told_where_the_service_counts() -> None:
    assert lines(changed(usage=Usage(input_tokens=5, output_tokens=70)))[0].endswith("; 5 tokens in, 70 out")
    assert lines(changed(usage=Usage(output_tokens=70)))[0].endswith("; 0 tokens in, 70 out")


def test_first_answers_are_shown_as_many_as_asked_for() -> None:
    assert lines(GOOD, answers=2)[1:3] == ["  q-1: One.", "  2: Two."]
    assert len(lines(GOOD, answers=3)) == 5


def test_long_and_odd_texts_fit_on_one_line() -> None:
    report = changed(first_answers=(("id " * 40, "a\n\tb\x1b[2J\u2028" + "c" * 500),))
    (_, shown, _) = lines(report, answers=1)
    assert shown.isprintable()
    assert len(shown) <= 130
    assert shown.endswith("ccc…")


def test_standard_output_is_no_place_to_look() -> None:
    assert len(lines(GOOD, job=JobConfig(output=OutputConfig(path="-")))) == 1


def test_run_that_did_nothing_has_no_speed() -> None:
    assert lines(changed(answered=0, answered_before=10, duration_s=0.0, attempts={}))[0] == (
        "batchchat: 10 of 10 answered (10 before this run), 0 failed, in 0ms"
    )


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ({"usage": Usage()}, "2.5/s"),
        ({}, "; 900 tokens in, 80 out"),
        ({"cost_usd": 0.0123456, "price_sources": ("the job",)}, "; 900 tokens in, 80 out; cost $0.0123"),
        (
            {"cost_usd": 12.0, "price_sources": ("genai-prices 1.0", "the job")},
            "; 900 tokens in, 80 out; cost $12.00 (genai-prices 1.0)",
        ),
        ({"unpriced": {"x": 3}}, "; 900 tokens in, 80 out"),
        (
            {"unpriced": {"x": 3, "": 1}, "price_sources": ("the job",)},
            "; cost unknown, no price for a model that nobody names, x",
        ),
        ({"estimated_requests": 4}, "; 900 tokens in, 80 out, estimated for 4 requests"),
        (
            {"usage": Usage(input_tokens=900, output_tokens=80, cached_tokens=512, reasoning_tokens=64)},
            "; 900 tokens in, 80 out (512 cached, 64 reasoning)",
        ),
    ],
)
def test_tokens_and_cost_are_told_as_far_as_they_are_known(values, end) -> None:
    report = changed(**({"usage": Usage(input_tokens=900, output_tokens=80)} | values))
    assert lines(report)[0].endswith(end)


def test_names_of_models_without_a_price_are_cut_and_hold_no_control_characters() -> None:
    report = changed(
        usage=Usage(input_tokens=1), unpriced={f"model-{n}\x1b[2J": 1 for n in range(99)}, price_sources=("the job",)
    )
    assert len(lines(report)[0]) < 300
    assert "\x1b" not in lines(report)[0]
