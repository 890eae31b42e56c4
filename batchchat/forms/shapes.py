"""What the columns of a table are: which there are, in which order, and what kinds of values they hold."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import NoneType
from typing import Any

from batchchat.errors import ConfigError
from batchchat.forms.result_columns import BlockColumns

__all__ = ["EXACT_IN_DOUBLE", "Columns", "Shape"]

_MOST_COLUMNS = 5000
_MOST_KEY_ORDERS = 10_000
# What is nested more deeply is kept as JSON text.
_MOST_LEVELS = 8
EXACT_IN_DOUBLE = 1 << 53
_INT64, _UINT64_END = 1 << 63, 1 << 64


class Shape:
    """Kinds of JSON values that were seen in one place, null aside.

    Attributes:
        kinds: Of ``bool``, ``int``, ``float``, ``str``, ``list``, ``dict``, and ``deep`` for too many levels.
        item: What lists hold, None where there are none.
        fields: What objects hold; their keys, in order, are the same in all of them unless ``varied``.
    """

    __slots__ = ("_level", "fields", "highest", "item", "kinds", "lowest", "varied")

    def __init__(self, level: int = 0) -> None:
        self.kinds: set[str] = set()
        self.lowest = self.highest = 0
        self.item: Shape | None = None
        self.fields: dict[str, Shape] | None = None
        self.varied = False
        self._level = level

    def add(self, value: Any) -> None:
        """Takes one value into account."""
        if value is None:
            return
        kind = type(value).__name__
        self.kinds.add(kind)
        if kind == "int":
            self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
        elif kind == "list" or kind == "dict":
            if self._level >= _MOST_LEVELS:
                self.kinds.add("deep")
            elif kind == "list":
                self.item = self.item or Shape(self._level + 1)
                for part in value:
                    self.item.add(part)
            else:
                self._add_object(value)

    def add_all(self, values: Sequence[Any]) -> None:
        """Takes many values into account."""
        kinds = set(map(type, values))
        if not kinds.isdisjoint((list, dict)):
            for value in values:
                self.add(value)
            return
        self.kinds.update(kind.__name__ for kind in kinds if kind is not NoneType)
        if int in kinds:
            numbers = [value for value in values if type(value) is int]
            self.lowest, self.highest = min(self.lowest, *numbers), max(self.highest, *numbers)

    def _add_object(self, value: Mapping[str, Any]) -> None:
        if self.fields is None:
            self.fields = {key: Shape(self._level + 1) for key in value}
        elif self.varied or list(self.fields) != list(value):
            self.varied = True
            return
        for key, part in value.items():
            self.fields[key].add(part)

    @property
    def is_mixed_numbers(self) -> bool:
        """Whether whole numbers and fractions stand together, all of which a double holds exactly."""
        return self.kinds == {"int", "float"} and self.is_exact_in_double

    @property
    def is_exact_in_double(self) -> bool:
        """Whether a double holds every integer as it is."""
        return max(-self.lowest, self.highest) <= EXACT_IN_DOUBLE

    @property
    def fits_int64(self) -> bool:
        """Whether every integer is one of 64 bits with a sign."""
        return self.lowest >= -_INT64 and self.highest < _INT64

    @property
    def fits_uint64(self) -> bool:
        """Whether every integer is one of 64 bits without a sign."""
        return self.lowest >= 0 and self.highest < _UINT64_END


class Columns:
    """Columns of a table, found by going through its rows once.

    Args:
        first: Columns that are there whatever the rows have.
        names_only: Leave the shapes empty, for tables whose cells have no types.

    Attributes:
        shapes: Each column's values, in the columns' order.
        rows: Rows seen.
        names_only: As given.
    """

    def __init__(self, first: Iterable[str] = (), *, names_only: bool = False) -> None:
        self._names, self.names_only = list(first), names_only
        self.shapes: dict[str, Shape] = {name: Shape() for name in self._names}
        self.rows = 0
        self._present: dict[str, int] = dict.fromkeys(self._names, 0)
        self._orders: dict[tuple[str, ...], None] = {}
        self._positions: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Names of the columns: a name that turns up late stands beside its neighbours in its row."""
        return self._names

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes one row into account.

        Raises:
            ConfigError: There are too many columns for a table.
        """
        keys = tuple(row)
        if keys not in self._orders:
            self._place(keys)
        self.rows += 1
        if self.names_only:
            return
        for name, value in row.items():
            self._present[name] += 1
            self.shapes[name].add(value)

    def add_all(self, block: BlockColumns) -> None:
        """Takes the rows of a block into account.

        Raises:
            ConfigError: There are too many columns for a table.
        """
        for order, count in block.orders().items():
            if order not in self._orders:
                self._place(order)
            if not self.names_only:
                for name in order:
                    self._present[name] += count
        self.rows += block.rows
        if not self.names_only:
            for name, values in block.values.items():
                self.shapes[name].add_all(values)

    def add_alike(self, count: int) -> None:
        """Takes rows into account that bring nothing new: each has the columns that no row lacked so far."""
        if not self.names_only:
            for name, present in self._present.items():
                if present == self.rows:
                    self._present[name] = present + count
        self.rows += count

    def state(self) -> tuple[Any, ...]:
        """What rows may bring something new to."""
        if self.names_only:
            return (len(self._names),)
        return tuple(
            (name, len(shape.kinds), shape.is_exact_in_double, self.is_missing_somewhere(name))
            for name, shape in self.shapes.items()
        )

    def is_missing_somewhere(self, name: str) -> bool:
        """Whether rows lack the column."""
        return self._present[name] < self.rows

    def has_order_of(self, names: Iterable[str]) -> bool:
        """Whether a row's keys stand in the columns' order."""
        positions = [self._positions[name] for name in names]
        return all(left < right for left, right in pairwise(positions))

    def close(self) -> None:
        """Ends the counting; the columns and their order stay."""
        self._positions = {name: position for position, name in enumerate(self._names)}
        self._orders.clear()

    def _place(self, keys: tuple[str, ...]) -> None:
        if len(self._orders) < _MOST_KEY_ORDERS:
            self._orders[keys] = None
        place = next((self._names.index(name) for name in keys if name in self.shapes), len(self._names))
        for name in keys:
            if name in self.shapes:
                place = self._names.index(name) + 1
                continue
            if len(self._names) >= _MOST_COLUMNS:
                raise ConfigError(
                    f"found more than {_MOST_COLUMNS:,} different fields, expected rows of a table; "
                    "convert to JSON Lines instead"
                )
            self._names.insert(place, name)
            place += 1
            self.shapes[name] = Shape()
            self._present[name] = 0
