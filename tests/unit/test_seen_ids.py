"""Ids of one reading beside the ids of stored answers."""

import random
import tracemalloc

import pytest

from batchchat.ids import IdTable
from batchchat.seen_ids import SeenIds


def table(*ids: str | int) -> IdTable:
    made = IdTable()
    for number, id in enumerate(ids):
        assert made.add(id, 1000 + number)
    return made


@pytest.mark.parametrize("seed", range(5))
def test_known_and_new_ids_are_seen_once_and_keep_their_first_place(seed: int) -> None:
    chance = random.Random(seed)
    known: list[str | int] = [*(f"id-{number}" for number in range(400)), *range(100), 2**61, -(2**70)]
    seen, model = SeenIds(table(*known)), dict[str | int, int]()
    for _ in range(3000):
        id = chance.choice(known) if chance.random() < 0.5 else f"new-{chance.randrange(300)}"
        place = chance.choice((chance.randrange(1, 5000), chance.randrange(1 << 40), 3 << 40 | 7, (1 << 32) - 1, 0))
        assert seen.get(id) == model.get(id)
        assert seen.add(id, place) == (id not in model)
        assert seen.get(id) == model.setdefault(id, place)


def test_a_standing_answer_is_noted_once_and_only_with_its_fingerprint() -> None:
    seen = SeenIds(table("a", "b"))
    prints = {"old": 1000, "other": 5}
    assert not seen.add_standing("a", 1, prints.get, "other")
    assert seen.add_standing("a", 2, prints.get, "old")
    assert not seen.add_standing("a", 3, prints.get, "old")
    assert seen.get("a") == 2
    assert not seen.add("a", 4)
    assert not seen.add_standing("new", 5, prints.get, "old")
    assert seen.add_standing("b", 6, lambda text: None, "any")


def test_numbers_count_the_ids_and_keep_their_values() -> None:
    ids = [f"{number:05d}" for number in range(3000)]
    made = table(*ids)
    made.number()
    found = [made.numbered(id) for id in ids]
    assert sorted(pair[0] for pair in found if pair is not None) == list(range(3000))
    assert [pair[1] for pair in found if pair is not None] == [made.get(id) for id in ids]
    assert made.numbered("none") is None


def test_a_numbered_table_takes_no_more_ids_as_their_numbers_would_move() -> None:
    made = table("a")
    made.number()
    with pytest.raises(ValueError, match="numbered"):
        made.add("b")
    assert made.get("b") is None


@pytest.mark.parametrize("start", "abcdefghijklmnopqrst")
def test_ids_that_fill_a_bucket_are_found_and_have_numbers_as_well(start: str) -> None:
    """They differ in their last sign only, so that some of them stand in another bucket, and buckets are split then."""
    ids = [f"{start}{chr(0x4E00 + number)}" for number in range(1000)]
    made = table(*ids)
    assert [made.get(id) for id in ids] == list(range(1000, 2000))
    made.number()
    assert len({made.numbered(id) for id in ids}) == 1000


def test_an_id_that_is_known_and_seen_takes_few_bytes() -> None:
    """What a resumed run keeps of each prompt; two tables would take 60."""
    count = 40_000
    tracemalloc.start()
    try:
        known = IdTable(count)
        for number in range(count):
            known.add(f"{number:09d}", number)
        seen = SeenIds(known)
        for number in range(count):
            assert seen.add(f"{number:09d}", number + 1)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / count < 40
