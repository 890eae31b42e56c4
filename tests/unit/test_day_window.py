"""Windows of the day: what is written, what is open when, and both changes of the clock."""

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.day_window import DayWindow, DayWindows, parse_window, parse_zone
from batchchat.errors import ConfigError
from tests.cli.test_run_command import job_of

ZONE = "Europe/Berlin"
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kolkata", "UTC", "Africa/Cairo"]  # fmt: skip


def at(text: str, zone: str = ZONE, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def windows(*texts: str, zone: str | None = ZONE) -> DayWindows:
    return DayWindows([parse_window(text) for text in texts], zone)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("22:00-06:00", "22:00-06:00"),
        (" 9:30 - 17:05 ", "09:30-17:05"),
        ("Mon-Fri 20:00-06:00", "Mon,Tue,Wed,Thu,Fri 20:00-06:00"),
        ("Sat,Sun 00:00-24:00", "Sat,Sun 00:00-24:00"),
        ("sat, sun 00:00-00:00", None),
        ("Fri-Mon 01:00-02:00", "Mon,Fri,Sat,Sun 01:00-02:00"),
        ("monday 01:00-02:00", "Mon 01:00-02:00"),
        ("Mon-Sun 01:00-02:00", "01:00-02:00"),
        ("22:00-00:00", "22:00-24:00"),
    ],
)
def test_windows_are_read_as_people_write_them(text: str, shown: str | None) -> None:
    if shown is None:
        with pytest.raises(ValueError, match="two different times"):
            parse_window(text)
    else:
        assert str(parse_window(text)) == shown
        assert str(parse_window(shown)) == shown


@pytest.mark.parametrize("text", ["", " ", "25:00-26:00", "22:00", "22:00-", "-06:00", "22-06", "22:60-23:00", "24:01-06:00", "24:00-06:00",
                                  "06:00-06:00", "Xyz 01:00-02:00", "Mon- 01:00-02:00", ", 01:00-02:00", "Mon,,Tue 1:00-2:00",
                                  "22:00-06:00 Mon", "22:00-06:00,07:00-08:00", "２２:00-06:00", "22:00:00-06:00", "always"])  # fmt: skip
def test_what_is_no_window_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*, found"):
        parse_window(text)
    with pytest.raises(ConfigError, match=r"^--window: expected ") as caught:
        job_of("--window", text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("run: {window: 25:00-06:00}", 1, "run.window: expected times from 00:00 to 24:00"),
        ("run:\n  window: [\"22:00-06:00\", '']", 2, "run.window[1]: expected a window of the day"),
        ("run:\n  window: 06:00-06:00", 2, "run.window: expected two different times"),
        ("run:\n  window: 1:30", 2, "run.window: YAML reads 1:30 as a number in base 60"),
        ("run:\n  window: 22", 2, "run.window: expected a window of the day"),
        ("run:\n  window:", 2, "run.window: expected a value, found nothing"),
        ("run:\n  window: 22:00-06:00\n  timezone: Berlin", 3, "run.timezone: expected the name of a time zone"),
        ("run:\n  timezone: ../../etc/passwd", 2, "run.timezone: expected the name of a time zone"),
        ("run:\n  timezone: Europe", 2, "run.timezone: expected the name of a time zone"),
        ("run:\n  timezone: 3", 2, "run.timezone: expected the name of a time zone"),
        ("run:\n  windows: 22:00-06:00", 2, "run.windows: unknown key 'windows'; did you mean window?"),
    ],
)
def test_faulty_window_of_a_job_file_is_told_with_its_place(tmp_path, text: str, line: int, words: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        job_of("-j", str(path))
    assert str(caught.value).startswith(f"{path}:{line}: {words}"), caught.value


def test_windows_come_from_every_place(tmp_path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("run: {window: 22:00-06:00, timezone: Asia/Tokyo}\n")
    assert job_of("-j", str(path)).run.window == ["22:00-06:00"]
    assert str(job_of("-j", str(path)).run.windows()) == "22:00-06:00 (Asia/Tokyo)"
    assert job_of(environ={"BATCHCHAT_WINDOW": "Sat 1:00-2:00\n22:00-06:00"}).run.window == ["Sat 01:00-02:00", "22:00-06:00"]  # fmt: skip
    assert job_of().run.windows() is None


def test_every_zone_of_this_machine_is_known() -> None:
    assert parse_zone("Europe/Berlin") == "Europe/Berlin"
    for text in ("Mars/Olympus", "", None, 5, "Europe/", "\0"):
        with pytest.raises(ValueError, match="expected the name of a time zone"):
            parse_zone(text)


@pytest.mark.parametrize(
    ("texts", "now", "opens", "closes"),
    [
        (["22:00-06:00"], "2026-06-10T21:59:59", "2026-06-10T22:00", None),
        (["22:00-06:00"], "2026-06-10T22:00", "2026-06-10T22:00", "2026-06-11T06:00"),
        (["22:00-06:00"], "2026-06-11T05:59:59", "2026-06-11T05:59:59", "2026-06-11T06:00"),
        (["22:00-06:00"], "2026-06-11T06:00", "2026-06-11T22:00", None),
        (["09:00-17:00"], "2026-06-11T08:00", "2026-06-11T09:00", None),
        (
            ["Mon-Fri 20:00-06:00"],
            "2026-06-13T05:00",
            "2026-06-13T05:00",
            "2026-06-13T06:00",
        ),  # Saturday: Friday's night
        (["Mon-Fri 20:00-06:00"], "2026-06-13T07:00", "2026-06-15T20:00", None),
        (["Sat,Sun 00:00-24:00"], "2026-06-13T12:00", "2026-06-13T12:00", "2026-06-15T00:00"),  # the two days joined
        (["Mon-Fri 20:00-06:00", "Sat,Sun 00:00-24:00"], "2026-06-12T21:00", "2026-06-12T21:00", "2026-06-15T00:00"),
        (["Wed 01:00-02:00"], "2026-06-10T02:00", "2026-06-17T01:00", None),
        (["00:00-24:00"], "2026-06-10T02:00", "2026-06-10T02:00", None),
        (["00:00-12:00", "12:00-00:00"], "2026-06-10T02:00", "2026-06-10T02:00", None),
        (["01:00-03:00", "02:00-04:00"], "2026-06-10T02:00", "2026-06-10T02:00", "2026-06-10T04:00"),
    ],
)
def test_what_is_open_when(texts: list[str], now: str, opens: str, closes: str | None) -> None:
    open_times = windows(*texts)
    assert open_times.opens_at(at(now)) == at(opens)
    assert open_times.is_open(at(now)) == (now == opens)
    assert open_times.closes_at(at(now)) == (None if closes is None else at(closes))


@pytest.mark.parametrize(
    ("text", "opens", "closes"),
    [
        # 29 March 2026: 02:00 to 03:00 is left out; the end of that hour is 01:00 UTC.
        ("02:30-06:00", "2026-03-29T01:00", "2026-03-29T04:00"),
        ("22:00-02:30", "2026-03-28T21:00", "2026-03-29T01:00"),
        ("22:00-06:00", "2026-03-28T21:00", "2026-03-29T04:00"),
        ("02:00-03:00", "2026-03-30T00:00", "2026-03-30T01:00"),  # left out whole: the next day
    ],
)
def test_hour_that_is_left_out(text: str, opens: str, closes: str) -> None:
    start = at("2026-03-28T12:00") if not text.startswith("02:00") else at("2026-03-29T00:00")
    if text == "02:30-06:00":
        start = at("2026-03-29T00:30")
    opened = windows(text).opens_at(start)
    assert opened == at(opens, "UTC")
    assert windows(text).closes_at(opened) == at(closes, "UTC")


@pytest.mark.parametrize(
    ("text", "opens", "closes"),
    [
        # 25 October 2026: 02:00 to 03:00 comes twice, from 00:00 and from 01:00 UTC.
        ("02:30-06:00", "2026-10-25T01:30", "2026-10-25T05:00"),
        ("00:30-02:30", "2026-10-24T22:30", "2026-10-25T00:30"),
        ("00:30-06:00", "2026-10-24T22:30", "2026-10-25T05:00"),
        ("02:15-02:45", "2026-10-25T01:15", "2026-10-25T01:45"),
    ],
)
def test_hour_that_comes_twice(text: str, opens: str, closes: str) -> None:
    opened = windows(text).opens_at(at("2026-10-25T00:10"))
    assert opened == at(opens, "UTC")
    assert windows(text).closes_at(opened) == at(closes, "UTC")


def covers(window: DayWindow, shown: datetime) -> bool:
    """Whether a clock on the wall that shows this is inside the window."""
    minutes, day = shown.hour * 60 + shown.minute, shown.weekday()
    if window.end > window.start:
        return window.start <= minutes < window.end and day in window.days
    return (minutes >= window.start and day in window.days) or (minutes < window.end and (day - 1) % 7 in window.days)


MOMENTS = st.integers(int(at("2026-01-01T00:00", "UTC")), int(at("2027-12-31T00:00", "UTC")))
# Around the changes of the clock, where mistakes are.
CHANGES = st.builds(
    lambda day, minutes: day + minutes * 60,
    st.sampled_from([at(day, "UTC") for day in ("2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00", "2026-04-04T15:00", "2026-04-23T22:00", "2026-10-29T21:00")]),
    st.integers(-300, 300),
)  # fmt: skip
WINDOWS = st.builds(
    lambda start, length, days: DayWindow(start=start, end=(start + length - 1) % 1440 + 1, days=frozenset(days)),
    st.integers(0, 1439), st.integers(1, 1439), st.sets(st.integers(0, 6), min_size=1),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=3), st.sampled_from(ZONES), st.one_of(MOMENTS, CHANGES))
def test_nothing_is_open_while_the_wall_shows_a_time_outside(texts, zone: str, now: float) -> None:
    """And inside it is open, but for the hours around a change of the clock."""
    open_times = DayWindows(texts, zone)
    shown = datetime.fromtimestamp(now, ZoneInfo(zone)).replace(tzinfo=None)
    inside = any(covers(window, shown) for window in texts)
    if open_times.is_open(now):
        assert inside
        closes = open_times.closes_at(now)
        assert closes is None or closes > now
        assert closes is None or not open_times.is_open(closes)
    else:
        assert open_times.closes_at(now) is None
        opens = open_times.opens_at(now)
        assert now < opens <= now + 15 * 86400
        assert open_times.is_open(opens)
        offsets = {datetime.fromtimestamp(now + 3600 * hours, ZoneInfo(zone)).utcoffset() for hours in range(-26, 27)}
        assert not inside or len(offsets) > 1


@settings(max_examples=100, deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=2), st.sampled_from(ZONES), CHANGES, st.integers(0, 90_000))
def test_end_of_a_run_counts_open_seconds_only(texts, zone: str, now: float, seconds: int) -> None:
    open_times = DayWindows(texts, zone)
    end = open_times.end_of(now, float(seconds))
    counted, moment = 0.0, now
    while moment < end:
        moment = open_times.opens_at(moment)
        upto = min(open_times.closes_at(moment) or end, end)
        counted += max(0.0, upto - moment)
        moment = upto
    assert counted == pytest.approx(seconds)


def test_times_are_told_with_their_day_where_it_is_another() -> None:
    night = windows("22:00-06:00", "Wed 12:00-13:00")
    now = at("2026-06-10T08:00")
    assert night.render(at("2026-06-10T22:00"), now) == "22:00"
    assert night.render(at("2026-06-11T06:00"), now) == "Thu 06:00"
    assert night.render(at("2026-06-17T06:00"), now) == "Wed 2026-06-17 06:00"


def test_machine_without_a_named_zone_uses_its_own(monkeypatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        local = windows("22:00-06:00", zone=None)
        noon = datetime(2026, 6, 10, 16, tzinfo=UTC).timestamp()
        assert local.opens_at(noon) == at("2026-06-10T22:00", "America/New_York")
        assert local.opens_at(at("2026-03-08T01:59", "America/New_York")) == at("2026-03-08T01:59", "America/New_York")
        assert (
            windows("02:30-03:30", zone=None).opens_at(at("2026-03-08T01:00", "America/New_York"))
            == datetime(2026, 3, 8, 7, tzinfo=UTC).timestamp()
        )
        assert str(local) == "22:00-06:00"
    finally:
        monkeypatch.undo()
        time.tzset()
