"""How fast prompts finish lately, and what that and the rates say of the time left."""

import pytest

from batchchat.durations import limit_per_s, parse_rate
from batchchat.pace import Pace, time_left_s


class Clock:
    """Seconds at work, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def finish(pace: Pace, clock: Clock, count: int, every_s: float) -> None:
    for _ in range(count):
        clock.now += every_s
        pace.note()


def test_nothing_finished_is_no_pace(pace: Pace, clock: Clock) -> None:
    assert pace.per_s == 0.0
    clock.now += 60
    assert pace.per_s == 0.0


@pytest.mark.parametrize("every_s", [0.001, 0.1, 1.0, 15.0, 120.0])
def test_steady_pace_is_told_whatever_it_is(pace: Pace, clock: Clock, every_s: float) -> None:
    finish(pace, clock, 200, every_s)
    assert pace.per_s == pytest.approx(1 / every_s, rel=0.1)


@pytest.mark.parametrize(("before_s", "now_s"), [(0.05, 1.0), (1.0, 0.05)])
def test_pace_of_late_counts_not_that_since_the_start(pace: Pace, clock: Clock, before_s: float, now_s: float) -> None:
    finish(pace, clock, 600, before_s)
    finish(pace, clock, int(90 / now_s), now_s)
    assert pace.per_s == pytest.approx(1 / now_s, rel=0.1)


def test_pace_falls_while_nothing_finishes(pace: Pace, clock: Clock) -> None:
    finish(pace, clock, 400, 0.1)
    seen = []
    for _ in range(5):
        seen.append(pace.per_s)
        clock.now += 60
    assert seen == sorted(seen, reverse=True)
    assert 0 < seen[-1] < seen[0] / 5


def test_time_in_which_the_clock_stands_changes_nothing(pace: Pace, clock: Clock) -> None:
    finish(pace, clock, 100, 0.5)
    assert pace.per_s == pace.per_s == pytest.approx(2, rel=0.1)


def test_pace_begins_with_the_first_request(pace: Pace, clock: Clock) -> None:
    clock.now += 500  # a big input is looked at
    pace.begin()
    finish(pace, clock, 20, 0.5)
    assert pace.per_s == pytest.approx(2, rel=0.1)


def test_memory_is_bounded_over_days(pace: Pace, clock: Clock) -> None:
    finish(pace, clock, 5000, 40.0)
    assert len(pace._seconds) == 900
    assert pace.per_s == pytest.approx(1 / 40, rel=0.1)


@pytest.mark.parametrize(
    ("rates", "most"), [((), None), (("60/min",), 1.0), (("10/s", "3600/h"), 1.0), (("10/s", "1000000/h"), 10.0)]
)
def test_tightest_rate_is_the_limit(rates: tuple[str, ...], most: float | None) -> None:
    assert limit_per_s([parse_rate(text) for text in rates]) == most


def left(prompts: int = 100, per_s: float = 10.0, **more: float | None) -> float | None:
    given = {"requests_each": 1.0, "most_per_s": None, "wait_s": 0.0, "last_wait_s": 0.0} | more
    return time_left_s(prompts, per_s, **given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 10.0),
        ({"per_s": 0.0}, None),
        ({"prompts": 0, "per_s": 0.0}, 0.0),
        ({"prompts": -3}, 0.0),
        ({"per_s": 0.0, "most_per_s": 5.0}, 20.0),
        ({"most_per_s": 5.0}, 20.0),
        ({"most_per_s": 50.0}, 10.0),
        ({"most_per_s": 5.0, "requests_each": 1.5}, 30.0),
        ({"most_per_s": 5.0, "requests_each": 0.0}, 20.0),
        ({"wait_s": 60.0}, 70.0),
        ({"prompts": 1, "last_wait_s": 45.0}, 45.0),
        ({"last_wait_s": 3.0}, 10.0),
    ],
)
def test_time_left_knows_pace_rate_attempts_and_waits(given: dict, expected: float | None) -> None:
    assert left(**given) == expected
