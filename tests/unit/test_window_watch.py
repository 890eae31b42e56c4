"""A run that waits for its window: held and released in time, also where the wall clock jumps or the machine sleeps."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from batchchat.day_window import DayWindows, parse_window
from batchchat.limits import Limiter
from batchchat.observer import Observers
from batchchat.prompt_clock import PromptClock
from batchchat.window_watch import WindowWatch
from tests.virtual_time import run_virtual

ZONE = "Europe/Berlin"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()


class Listener:
    """Notes what is told of waiting."""

    def __init__(self) -> None:
        self.held: list[str | None] = []
        self.notices: list[str] = []

    def run_held(self, word: str, why: str | None) -> None:
        assert word == "window"
        self.held.append(why)

    def notice(self, message: str, level: int) -> None:
        self.notices.append(message)


class Wall:
    """A wall clock that goes with the loop's, and can be set."""

    def __init__(self, text: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.ahead_s = at(text) - self._loop.time()

    def __call__(self) -> float:
        return self._loop.time() + self.ahead_s


async def sent_at(start: str, *, hours: int, jumps: dict[float, float] | None = None) -> tuple[list[float], Listener]:
    """Wall times of requests that are made once a minute, through 22:00-06:00; ``jumps``: loop seconds to step."""
    loop = asyncio.get_running_loop()
    limiter, listener, wall = Limiter(), Listener(), Wall(start)
    times: list[float] = []

    def jump(by_s: float) -> None:
        wall.ahead_s += by_s

    async def ask() -> None:
        while True:
            await limiter.acquire()
            times.append(wall())
            await asyncio.sleep(60)

    watch = WindowWatch(DayWindows([parse_window("22:00-06:00")], ZONE), limiter, Observers([listener]), clock=wall)
    for after_s, by_s in (jumps or {}).items():
        loop.call_later(after_s, jump, by_s)
    async with watch:
        asking = asyncio.create_task(ask())
        await asyncio.sleep(hours * 3600)
        asking.cancel()
    return times, listener


def test_run_waits_for_its_window_and_pauses_at_its_end() -> None:
    times, listener = run_virtual(sent_at("2026-06-10T21:00", hours=26))
    assert times[0] == pytest.approx(at("2026-06-10T22:00"), abs=0.1)
    night = [time for time in times if time < at("2026-06-11T12:00")]
    assert at("2026-06-11T05:58") < night[-1] < at("2026-06-11T06:00")
    assert times[len(night)] == pytest.approx(at("2026-06-11T22:00"), abs=0.1)
    assert listener.held == ["waiting until 22:00 (--window)", None, "waiting until 22:00 (--window)", None]
    assert listener.notices[0].startswith("nothing new is sent until 22:00: it is outside the window 22:00-06:00")
    assert listener.notices[1] == "the window is open until Thu 06:00; going on"
    assert len(listener.notices) == 4


def test_open_window_is_not_told() -> None:
    times, listener = run_virtual(sent_at("2026-06-10T23:00", hours=1))
    assert len(times) == 60
    assert listener.held == listener.notices == []


@pytest.mark.parametrize("jump_h", [13, 12.999])
def test_wall_clock_that_is_set_or_a_machine_that_slept_opens_the_window(jump_h: float) -> None:
    """At 10:00 the clock is set to 23:00, or the machine sleeps till then: the loop's clock knows nothing of it."""
    times, _ = run_virtual(sent_at("2026-06-10T09:00", hours=2, jumps={3600.0: jump_h * 3600}))
    assert at("2026-06-10T22:59") < times[0] <= at("2026-06-10T23:00") + 10.1


def test_clock_that_is_set_back_closes_the_window_and_tells_the_new_time() -> None:
    times, listener = run_virtual(sent_at("2026-06-10T21:59", hours=1, jumps={600.0: -3 * 3600}))
    assert len(times) in (9, 10)
    assert listener.held == ["waiting until 22:00 (--window)", None, "waiting until 22:00 (--window)"]


def test_clock_set_to_another_day_tells_the_new_opening_once() -> None:
    _, listener = run_virtual(sent_at("2026-06-10T09:00", hours=1, jumps={600.0: -24 * 3600}))
    assert listener.held == ["waiting until 22:00 (--window)"] * 2


async def test_without_a_window_there_is_no_timer() -> None:
    limiter = Limiter()
    async with WindowWatch(None, limiter, Observers([])) as watch:
        assert watch._timer is None
        await limiter.acquire()


def ends_at(holds: Callable[[Limiter], None], seconds: float = 10.0) -> float | None:
    """When a prompt that may take so long is over, if the limiter is held as the callback says; None for never."""

    async def main() -> float | None:
        loop = asyncio.get_running_loop()
        limiter = Limiter()
        began = loop.time()
        holds(limiter)
        try:
            async with asyncio.timeout(100_000):
                async with PromptClock(seconds, limiter) as clock:
                    clock.start()
                    await asyncio.Event().wait()
        except TimeoutError:
            return loop.time() - began if clock.expired() else None
        return None

    return run_virtual(main())


def held(limiter: Limiter, word: str, start: float, end: float | None) -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(start, limiter.hold, word)
    if end is not None:
        loop.call_later(end, limiter.release, word)


def test_deadline_of_a_prompt_does_not_run_while_the_run_is_held() -> None:
    assert ends_at(lambda limiter: None) == pytest.approx(10, abs=0.1)
    assert ends_at(lambda limiter: held(limiter, "paused", 5, 3605)) == pytest.approx(3610, abs=0.1)
    assert ends_at(lambda limiter: held(limiter, "paused", 5, 8)) == pytest.approx(13, abs=0.1)
    assert ends_at(lambda limiter: held(limiter, "window", 9.999, None)) is None, "and nothing looks again and again"
    assert ends_at(lambda limiter: held(limiter, "window", 9.999, 90_000)) == pytest.approx(90_000, abs=0.1)


def test_holds_that_overlap_count_once() -> None:
    def two(limiter: Limiter) -> None:
        held(limiter, "window", 2, 50)
        held(limiter, "breaker", 40, 60)
        held(limiter, "paused", 45, 55)

    assert ends_at(two) == pytest.approx(68, abs=0.1)
