"""The table of ids."""

import sys

import pytest

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


class Fixed(str):
    """A text whose hash is chosen, to meet the table's corners."""

    def __hash__(self) -> int:
        return int(self)


def test_digest_that_would_mark_an_empty_slot_is_kept() -> None:
    table = IdTable()
    assert table.add(Fixed("0"), 5)
    assert table.get(Fixed("0")) == 5
    assert not table.add(Fixed("0"))


def test_digests_that_want_one_slot_wrap_round_the_end() -> None:
    table = IdTable()
    ids = [Fixed(1023 + 1024 * step) for step in range(5)]
    for position, id in enumerate(ids):
        assert table.add(id, position)
    assert [table.get(id) for id in ids] == [0, 1, 2, 3, 4]


def test_an_id_takes_at_most_45_bytes() -> None:
    table = IdTable()
    for number in range(50_000):
        table.add(number)
    held = sum(sys.getsizeof(getattr(table, name)) for name in ("_digests", "_values"))
    assert held / 50_000 < 45
