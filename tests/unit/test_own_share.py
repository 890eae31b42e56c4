"""How many requests the run's own process makes beside its children, and which."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from batchchat.errors import ServerError
from batchchat.processes.own_place import OwnPlace
from batchchat.processes.own_share import OwnShare
from batchchat.processes.places import Places
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion

IN_FLIGHT = 64


def own_of(share: OwnShare, in_flight: int = IN_FLIGHT, children: int = 1) -> int:
    """How many of so many requests are the run's own, once all places are taken."""
    loads, own = [0] * children, 0
    for _ in range(2):  # once to reach the number, once to divide it
        loads, own = [0] * children, 0
        for _ in range(in_flight):
            if share.allows(own + sum(loads), min(loads)):
                own += 1
            else:
                loads[loads.index(min(loads))] += 1
    return own


def settled(ask_s: float, other_s: float, children: int = 1, told_each_s: float = 0.1) -> OwnShare:
    """A share that has seen a minute of prompts that cost ``ask_s`` where asked and ``other_s`` in the run's process."""
    share = OwnShare(children)
    own_s, child_s, now = 0.0, 0.0, 0.0
    for _ in range(600):
        now += told_each_s
        part = own_of(share, children=children) / IN_FLIGHT
        own_cost, child_cost = other_s + part * ask_s, (1 - part) * ask_s / children
        busiest = max(own_cost, child_cost)  # which does all it can, and the others wait for it
        own_s += told_each_s * own_cost / busiest
        child_s += told_each_s * child_cost / busiest
        for child in range(1, children + 1):
            share.told(child, child_s, own_s, now)
    return share


@pytest.mark.parametrize("children", [1, 2, 3, 7])
def test_dear_requests_are_divided_equally(children: int) -> None:
    share = settled(ask_s=1.0, other_s=0.01, children=children)
    assert own_of(share, children=children) == pytest.approx(IN_FLIGHT / (children + 1), abs=2)


@pytest.mark.parametrize(("ask_s", "other_s"), [(0.08, 0.05), (0.06, 0.05), (0.2, 0.05)])
def test_cheap_requests_leave_both_busy(ask_s: float, other_s: float) -> None:
    """What other requests than the own ones cost the run's process is taken off its part."""
    part = own_of(settled(ask_s, other_s)) / IN_FLIGHT
    own, child = other_s + part * ask_s, (1 - part) * ask_s
    assert min(own, child) / max(own, child) >= 0.55
    assert 0 < part < 0.5


def test_process_that_has_enough_to_do_makes_none_itself() -> None:
    assert own_of(settled(ask_s=0.02, other_s=0.05)) == 0


@pytest.mark.parametrize(
    ("child_s", "own_s", "told_each_s"),
    [(0.001, 0.03, 0.1), (0.01, 9.0, 10.0)],
    ids=["little to do", "nothing ran for a while, as where the whole run was stopped"],
)
def test_what_says_nothing_of_who_is_busier_changes_no_part(child_s: float, own_s: float, told_each_s: float) -> None:
    share = OwnShare(1)
    begun = share.part
    for number in range(100):
        share.told(1, number * child_s, number * own_s, number * told_each_s)
    assert share.part == begun


def test_child_in_the_place_of_another_starts_anew() -> None:
    share = OwnShare(1)
    share.told(1, 50.0, 50.0, 0.0)
    begun = share.part
    share.told(1, 0.01, 50.1, 0.1)
    assert share.part == begun
    share.told(1, 0.11, 50.1, 0.2)
    assert share.part > begun


def test_children_come_first_while_fewer_are_in_flight_than_before() -> None:
    share = OwnShare(1)
    assert own_of(share) == 8
    assert not share.allows(30, 30)
    assert not share.allows(55, 55)
    assert share.allows(56, 56)
    for tenth in range(3):  # and what there was a while ago does not count any more
        share.told(1, 0.0, 0.0, tenth * 0.1)
        share.allows(15, 15)
    assert share.allows(15, 14)


@pytest.mark.parametrize(("in_flight", "own"), [(1, 0), (4, 0), (8, 1), (16, 2), (64, 8), (2000, 250)])
def test_part_is_one_of_what_is_in_flight(in_flight: int, own: int) -> None:
    assert own_of(OwnShare(1), in_flight) == own


REQUEST = ChatRequest(messages=[{"role": "user", "content": "hello"}])


class Failing:
    """A provider with two endpoints that fails at the second."""

    def __init__(self) -> None:
        self.avoided: list[int] = []

    async def complete(self, request: ChatRequest) -> Completion:
        raise ServerError("no")

    def failed_place(self) -> int:
        return 1

    def avoid(self, request: ChatRequest, place: int) -> None:
        self.avoided.append(place)


def place_of(provider: Any = None, places: Places | None = None, most: int = 100) -> OwnPlace:
    return OwnPlace(provider, Places() if places is None else places, children=1, most=most)


GOOD, NEW = SimpleNamespace(answered=True), SimpleNamespace(answered=False)


def test_nothing_is_asked_before_every_child_has_brought_an_answer() -> None:
    place = place_of()
    assert not place.may_take([GOOD, NEW], 63, 63)
    assert place.may_take([GOOD, GOOD], 63, 63)


def test_nothing_is_asked_while_a_dead_child_has_no_successor_that_answers() -> None:
    place = place_of()
    assert place.may_take([GOOD], 63, 63)
    place.distrust()
    assert not place.may_take([NEW], 63, 63)
    assert place.may_take([GOOD], 63, 63)


def test_process_has_no_more_requests_than_its_descriptors_allow() -> None:
    place = place_of(most=2)
    place.load = 2
    assert not place.may_take([GOOD], 63, 63)
    assert not place.may_take([GOOD], 63, None)
    place.load = 1
    assert place.may_take([GOOD], 63, None), "also beyond its part, where no child has room"


async def test_prompt_that_a_child_died_of_is_not_asked_here() -> None:
    places = Places()
    place = place_of(places=places)
    task = asyncio.current_task()
    assert task is not None
    places.deadly.add(task)
    assert not place.may_take([GOOD], 63, 63)
    assert not place.may_take([GOOD], 63, None)
    places.deadly.clear()
    assert place.may_take([GOOD], 63, 63)


async def test_endpoint_that_failed_is_known_to_whoever_asks_next() -> None:
    places, provider = Places(), Failing()
    place, task = place_of(provider, places), asyncio.current_task()
    with pytest.raises(ServerError):
        await place.complete(REQUEST)
    assert place.load == 0
    assert places.take(task, REQUEST) == 1, "a child would be told"
    places.keep(task, REQUEST, 0)
    with pytest.raises(ServerError):
        await place.complete(REQUEST)
    assert provider.avoided == [0], "what a child met is told here"
