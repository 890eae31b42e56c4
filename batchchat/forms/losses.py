"""What a conversion could not keep: one count for each kind of loss, with the first line that had it."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Loss", "Losses"]

# The names of lost fields are the input's; a file of ever new names must not fill the memory.
_MOST_KINDS = 200
_REST = "further fields"


class Loss(NamedTuple):
    """One kind of loss.

    Attributes:
        form: The form that is read or written.
        what: What lines have, in words.
        fate: What becomes of it, a relative clause: ``which CSV cells cannot hold``.
        lines: How many lines have it.
        first_line: 1-based number of the first one.
    """

    form: str
    what: str
    fate: str
    lines: int
    first_line: int

    def __str__(self) -> str:
        have = "1 line has" if self.lines == 1 else f"{self.lines:,} lines have"
        return f"{self.form}: {have} {self.what}, {self.fate} (first: line {self.first_line})"


class Losses:
    """Collects losses; ``line_number`` is the line that is being converted."""

    def __init__(self) -> None:
        self.line_number = 0
        self._found: dict[tuple[str, str, str], list[int]] = {}

    def tell(self, form: str, what: str, fate: str) -> None:
        """Counts the current line once for this kind of loss."""
        key = (form, what, fate)
        if key not in self._found and len(self._found) >= _MOST_KINDS:
            key = (form, _REST, fate)
        found = self._found.setdefault(key, [0, self.line_number, 0])
        if found[2] != self.line_number:
            found[0] += 1
            found[2] = self.line_number

    def tell_lines(self, form: str, told: Mapping[tuple[str, str], list[int]]) -> None:
        """Counts kinds of loss (``what``, ``fate``) for the lines of these numbers, the lowest first."""
        keys = [(form, what, fate) for what, fate in told]
        if len(self._found) + sum(key not in self._found for key in keys) > _MOST_KINDS:
            order = list(told)
            pairs = [(number, place) for place, kind in enumerate(order) for number in told[kind]]
            for self.line_number, place in sorted(pairs):
                self.tell(form, *order[place])
            return
        for key, numbers in zip(keys, told.values(), strict=True):
            found = self._found.setdefault(key, [0, numbers[0], 0])
            found[0] += len(numbers)
            found[2] = numbers[-1]

    def clear(self) -> None:
        """Forgets everything, before a file is read again."""
        self._found.clear()

    def all(self) -> list[Loss]:
        """Every kind of loss, in the order of its first line."""
        found = [Loss(*key, lines, first) for key, (lines, first, _) in self._found.items()]
        return sorted(found, key=lambda loss: loss.first_line)
