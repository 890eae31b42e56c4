"""The table of ids."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat import ids as ids_module
from batchchat.ids import IdTable


def test_first_value_stays() -> None:
    table = IdTable()
    assert table.add("a", 7)
    assert not table.add("a", 8)
    assert table.get("a") == 7
    assert table.get("b") is None
    assert len(table) == 1


def test_put_replaces_a_value() -> None:
    table = IdTable()
    table.put("a", 1)
    table.put("a", 2)
    assert table.get("a") == 2
    assert len(table) == 1


def test_text_and_integer_of_the_same_digits_are_two_ids() -> None:
    table = IdTable()
    assert table.add(1, 10)
    assert table.add("1", 20)
    assert (table.get(1), table.get("1")) == (10, 20)


def test_integers_with_one_hash_of_their_own_are_different_ids() -> None:
    assert hash(1) == hash(2**61)
    table = IdTable()
    for number in (1, 2**61, -1, -2, 10**5000):
        assert table.add(number)


@pytest.mark.parametrize("value", [0, 2**64 - 1])
def test_values_hold_64_bits(value: int) -> None:
    table = IdTable()
    table.add("a", value)
    assert table.get("a") == value
    assert "a" in table


def test_value_beyond_64_bits_is_refused_and_leaves_the_table_as_it_was() -> None:
    table = IdTable()
    with pytest.raises(OverflowError):
        table.add("a", 2**64)
    assert "a" not in table
    assert len(table) == 0


def test_everything_is_found_again_after_growth() -> None:
    table = IdTable()
    for number in range(20_000):
        assert table.add(f"q-{number}", number)
        assert table.add(number, number + 1)
    assert len(table) == 40_000
    assert all(table.get(f"q-{number}") == number and table.get(number) == number + 1 for number in range(20_000))
    assert not any(f"r-{number}" in table for number in range(20_000))


@pytest.mark.parametrize("expected", [0, 1, 500, 100_000])
def test_what_is_expected_changes_nothing_but_the_room(expected: int) -> None:
    table = IdTable(expected)
    for number in range(5_000):
        assert table.add(f"q-{number}", number)
    assert len(table) == 5_000
    assert all(table.get(f"q-{number}") == number for number in range(5_000))


def test_adding_many_stops_at_the_first_that_is_there() -> None:
    table = IdTable()
    table.add("c", 3)
    pairs = iter([("a", bytes(8)), (5, b"\0\0\0\0\0\0\1\2"), ("c", bytes(8)), ("d", bytes(8))])
    assert table.add_all(pairs) == 2
    assert (table.get("a"), table.get(5), table.get("c"), table.get("d")) == (0, 258, 3, None)
    assert next(pairs) == ("d", bytes(8))
    assert len(table) == 3


def test_ids_that_differ_in_their_last_sign_only_are_found_in_a_short_time() -> None:
    """They share the hash that tells the bucket, which must not grow without end."""
    table = IdTable()
    ids = [chr(code) for code in range(0x4E00, 0x4E00 + 20_000)]
    for position, id in enumerate(ids):
        assert table.add(id, position)
    assert [table.get(id) for id in ids] == list(range(20_000))
    assert not any(table.add(id) for id in ids)
    table.put(ids[-1], 7)
    assert table.get(ids[-1]) == 7
    assert max(map(len, table._buckets)) < 64_000


# Hashes of an id's beginning (three signs here) that bring many ids into one bucket; the hash of an id stays good.
_WEAK = {
    "good hashes": hash,
    "low bits alike": lambda text: hash(text) & ~0xFFFF if len(text) == 3 else hash(text),
    "one hash for all": lambda text: 1 if len(text) == 3 else hash(text),
    "few hashes": lambda text: hash(text) % 5 if len(text) == 3 else hash(text),
}


@pytest.mark.parametrize("weak", _WEAK)
@settings(max_examples=60, deadline=None)
@given(
    actions=st.lists(
        st.tuples(
            st.sampled_from(["add", "put", "get"]),
            st.one_of(st.integers(0x1000, 0x1200), st.text("abcé漢", min_size=4, max_size=4)),
            st.integers(0, 2**64 - 1),
        ),
        max_size=400,
    ),
)
def test_it_behaves_as_a_dict_does(weak: str, actions: list[tuple[str, int | str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "hash", _WEAK[weak], raising=False)
        patch.setattr(ids_module, "_LONGEST", 10 * 24)
        patch.setattr(ids_module, "_FIRST_BUCKETS", 2)
        table, model = IdTable(), dict[int | str, int]()
        for action, id, value in actions:
            if action == "add":
                assert table.add(id, value) == (id not in model)
                model.setdefault(id, value)
            elif action == "put":
                table.put(id, value)
                model[id] = value
            assert table.get(id) == model.get(id)
            assert (id in table) == (id in model)
        assert len(table) == len(model)
        assert all(table.get(id) == value for id, value in model.items())


@pytest.mark.parametrize("shift", range(1, 24))
def test_bytes_across_two_records_are_no_id(shift: int) -> None:
    """A digest is looked for in plain bytes, where two neighbours may happen to hold it between them."""
    bucket = bytes(range(48))
    wanted = bucket[shift : shift + 16]
    assert ids_module._find(bucket, wanted) == -1
    assert ids_module._find(bucket + wanted + bytes(8), wanted) == 48


@pytest.mark.parametrize(
    "make", [lambda n: n, lambda n: f"q-{n:07}", lambda n: f"p-{n * 0x9E3779B97F4A7C15 % 2**64:x}"]
)
def test_an_id_takes_at_most_40_bytes(make: Callable[[int], int | str]) -> None:
    table = IdTable()
    for number in range(50_000):
        table.add(make(number))
    held = sys.getsizeof(table._buckets) + sum(map(sys.getsizeof, table._buckets))
    assert held / 50_000 < 40
