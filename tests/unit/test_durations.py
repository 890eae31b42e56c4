"""Durations and rates as people write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.durations import Rate, parse_duration, parse_rate, render_duration, render_speed


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("6h", 21600),
        ("1d", 86400),
        ("1d2h3m4s5ms", 93784.005),
        ("1.5h", 5400),
        ("0", 0),
        ("2.5", 2.5),
        ("30S", 30),
        (0, 0),
        (90, 90),
        (0.25, 0.25),
    ],
)
def test_duration_is_read_in_every_form(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1",
        "-5s",
        "5x",
        "1m1h",
        "5m5m",
        "1:30",
        "1e3",
        "٣s",
        True,
        -1,
        math.nan,
        math.inf,
        "9" * 400,
        10**12,
    ],
)
def test_duration_that_is_none_is_refused_with_what_was_found(text):
    with pytest.raises(
        ValueError, match=r"^expected a grace time such as 500ms, 30s, 5m or 1h30m \(0 for none\), found "
    ):
        parse_duration(text, what="grace time")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250ms"),
        (0.9999, "1s"),
        (3.2, "3.2s"),
        (59.96, "1m"),
        (60, "1m"),
        (3720, "1h 2m"),
        (3599.7, "1h"),
        (90000, "1d 1h"),
    ],
)
def test_duration_is_shown_in_its_two_largest_units(seconds, text):
    assert render_duration(seconds) == text


@given(st.integers(min_value=1, max_value=59), st.sampled_from(["s", "m", "h"]))
def test_shown_duration_can_be_read_back(count, unit):
    if unit == "h":
        count = min(count, 23)
    assert parse_duration(render_duration(parse_duration(f"{count}{unit}"))) == parse_duration(f"{count}{unit}")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("200/s", Rate(200, 1)),
        ("200/sec", Rate(200, 1)),
        ("1/second", Rate(1, 1)),
        ("60/min", Rate(60, 60)),
        ("60/m", Rate(60, 60)),
        ("60 / minute", Rate(60, 60)),
        ("1000/h", Rate(1000, 3600)),
        ("1000/HOUR", Rate(1000, 3600)),
        ("10000/d", Rate(10000, 86400)),
        ("10000/day", Rate(10000, 86400)),
    ],
)
def test_rate_is_read_with_every_unit_and_gives_its_text_back(text, rate):
    assert parse_rate(text) == rate
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["", "5", "5/", "/s", "0/s", "-5/s", "5/week", "5.5/s", "5/s/s", "9" * 13 + "/s", "٣/s"]
)
def test_rate_that_is_none_is_refused_with_what_was_found(text):
    with pytest.raises(ValueError, match=r"^expected a rate such as 200/s, 60/min, 1000/h or 10000/d, found "):
        parse_rate(text)


@pytest.mark.parametrize(
    ("per_s", "text"),
    [(0.0, "0/s"), (0.1333, "0.133/s"), (16.84, "16.8/s"), (999.4, "999/s"), (999.6, "1,000/s"), (1995.46, "1,995/s")],
)
def test_speed_is_three_digits_without_an_exponent(per_s: float, text: str) -> None:
    assert render_speed(per_s) == text
