"""Scenarios: files, settings, draws and windows; and that the documentation knows every key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.devserver import FAULTS, Scenario, change_scenario, load_scenario
from batchchat.devserver.nonces import NonceBook
from batchchat.devserver.scenario import draw_fault, latency_s, parse_rate
from batchchat.devserver.state import ServerState, worst_window
from batchchat.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_becomes_a_scenario(tmp_path: Path) -> None:
    text = "seed: 3\nerror_500: 1e-3\nmodels: [a, b]\nmaintenance: true\ntool_call: false\nredirect_status: 308\n"
    assert load_scenario(written(tmp_path, text)) == Scenario(
        seed=3, error_500=0.001, models=("a", "b"), maintenance=True, tool_call=0.0, redirect_status=308
    )


def test_empty_file_is_a_calm_scenario(tmp_path: Path) -> None:
    assert load_scenario(written(tmp_path, "# nothing\n")) == Scenario()


@pytest.mark.parametrize("text", ["2", "0.5", "2015-10-21", "1:30", "yes", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_texts_are_taken_as_written_whatever_yaml_makes_of_them(tmp_path: Path, text: str) -> None:
    assert load_scenario(written(tmp_path, f"retry_after: {text}\n")).retry_after == text
    assert change_scenario(Scenario(), [f"retry_after={text}"]).retry_after == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1\neror_500: 0.1\n", ":2: unknown scenario key 'eror_500', did you mean 'error_500'?"),
        ("seed: 1\n\nerror_500: 1.5\n", ":3: error_500: expected `float` <= 1.0, found 1.5"),
        ("seed: no\n", ":1: seed: expected `int`, found False"),
        ("latency_ms: fast\n", ":1: latency_ms: expected `float`, found 'fast'"),
        ("rate_limit: 5/year\n", ":1: rate_limit: found '5/year', expected a rate such as 200/s, 60/min"),
        ("fail_with: fire\n", ":1: fail_with: found 'fire', expected one of: error_429, "),
        ("redirect_status: 305\n", ":1: redirect_status: found 305, expected one of: 301, 302, 303, 307, 308"),
        ("error_429: 0.6\nrefusal: 0.6\n", ": the shares of the faults add up to 1.2, expected at most 1"),
        ("nonce_uses: 1\nrotate_after: 1\n", ": nonce_uses and rotate_after exclude each other"),
        ("seed: 1\nseed: 2\n", ":2: seed: given twice"),
        ("- seed\n", ": expected a mapping of scenario keys, found something else"),
        ("seed: [1\n", ":2: not YAML: "),
        ("seed: !!python/none x\n", ":1: seed: found no plain YAML value"),
    ],
)
def test_faults_of_a_file_are_told_with_their_place(tmp_path: Path, text: str, sentence: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(f"{path}{sentence}")


def test_file_that_is_missing_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the scenario cannot be read: No such file or directory"):
        load_scenario(tmp_path / "none.yaml")
    path = tmp_path / "scenario.yaml"
    path.write_bytes(b"seed: \xff")
    with pytest.raises(ConfigError, match="the scenario cannot be read: not UTF-8"):
        load_scenario(path)


def test_settings_win_over_the_scenario() -> None:
    changed = change_scenario(Scenario(seed=1, error_500=0.5), ["error_500=0", "refusal=true", "models=[x, y]"])
    assert changed == Scenario(seed=1, refusal=1.0, models=("x", "y"))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("seed", "--set: found 'seed', expected key=value"),
        ("latency=5", "unknown scenario key 'latency', did you mean 'latency_ms'?"),
        ("error_500=2", "error_500: expected `float` <= 1.0, found 2"),
        ("refusal=a: b: c", "refusal: found 'a: b: c', expected a YAML value"),
    ],
)
def test_settings_that_do_not_fit_are_told(setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        change_scenario(Scenario(), [setting])
    assert str(caught.value) == sentence


@given(st.text(), st.integers(1, 100), st.integers(0, 3))
def test_draw_depends_on_nothing_but_its_arguments(prompt: str, attempt: int, seed: int) -> None:
    scenario = Scenario(seed=seed, error_500=0.3, cut_reset=0.3)
    assert draw_fault(scenario, prompt, attempt) == draw_fault(scenario, prompt, attempt)


def test_shares_are_kept() -> None:
    scenario = Scenario(error_429=0.1, tool_call=0.2)
    drawn = [draw_fault(scenario, f"prompt {number}", 1) for number in range(5000)]
    assert set(drawn) == {None, "error_429", "tool_call"}
    assert drawn.count("error_429") == pytest.approx(500, rel=0.2)
    assert drawn.count("tool_call") == pytest.approx(1000, rel=0.2)


@pytest.mark.parametrize("fault", FAULTS)
def test_share_of_one_is_every_attempt(fault: str) -> None:
    scenario = Scenario(**{fault: 1.0})
    assert {draw_fault(scenario, "x", attempt) for attempt in range(1, 50)} == {fault}


def test_seed_and_attempt_change_the_draw() -> None:
    draws = [[draw_fault(Scenario(seed=seed, error_500=0.5), "x", at) for at in range(1, 40)] for seed in (1, 2)]
    assert draws[0] != draws[1]
    assert len(set(draws[0])) == 2


def test_latency_stays_within_its_jitter() -> None:
    scenario = Scenario(latency_ms=100, latency_jitter=0.5)
    waits = [latency_s(scenario, number) for number in range(200)]
    assert min(waits) >= 0.05
    assert max(waits) <= 0.15
    assert max(waits) - min(waits) > 0.05
    assert latency_s(Scenario(latency_ms=100), 1) == 0.1
    assert latency_s(Scenario(), 1) == 0


@pytest.mark.parametrize(
    ("text", "rate"), [("200/s", (200, 1)), ("60/min", (60, 60)), ("1000/h", (1000, 3600)), ("9 / d", (9, 86400))]
)
def test_rates_are_read(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "5", "0/s", "-1/s", "1.5/s", "s/1", "5/s/s"])
def test_rates_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a rate"):
        parse_rate(text)


async def test_window_slides() -> None:
    """A request is admitted as soon as the oldest of the window is a unit old, and not before."""
    state = ServerState(Scenario())
    assert [state.over_rate("2/s", now) for now in (10.0, 10.5)] == [None, None]
    assert state.over_rate("2/s", 10.9) == pytest.approx(0.1)
    assert state.over_rate("2/s", 11.0) is None
    assert state.over_rate("2/s", 11.25) == pytest.approx(0.25)


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0.1, 50))
def test_worst_window_is_the_fullest_that_starts_with_a_request(times: list[float], seconds: float) -> None:
    expected = max((sum(0 <= each - start < seconds for each in times) for start in times), default=0)
    assert worst_window(times, seconds) == expected


def test_nonces_are_ten_hex_digits_and_differ_by_tick_and_seed() -> None:
    book = NonceBook()
    first = book.current
    assert len(first) == 10
    int(first, 16)
    second = book.rotate()
    assert (book.previous, book.accepts(first), book.accepts(second)) == (first, True, True)
    book.expire()
    assert not book.accepts(first)
    assert not book.accepts(second)
    assert NonceBook(1).current != first


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
def test_scenarios_that_ship_are_valid(path: Path) -> None:
    assert load_scenario(path) != Scenario()


def test_documentation_names_every_key() -> None:
    text = (ROOT / "docs" / "devserver.md").read_text(encoding="utf-8")
    assert [key for key in Scenario.__struct_fields__ if f"`{key}`" not in text] == []
