"""Text that has to fit a width: parts put on as few lines as they need, never cut in a figure."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["columns_of", "cut", "flow"]


def columns_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """The text, or its beginning with ``…`` where it takes more columns."""
    if columns_of(text) <= columns:
        return text
    taken, left = [], columns - 1
    for char in text:
        left -= _columns(char)
        if left < 0:
            break
        taken.append(char)
    return "".join(taken) + "…"


def flow(parts: Sequence[str], columns: int, *, between: str = ", ", indent: str = "") -> list[str]:
    """Lines that hold the parts in their order, none wider than ``columns``.

    Args:
        indent: Stands before every line but the first. A part that does not fit a line is broken at its spaces, a word
            that does not is cut.
    """
    trailing = "" if between.startswith(" ") else between.rstrip()
    lines: list[str] = []
    line = ""
    for number, part in enumerate(parts, 1):
        room = columns - (len(trailing) if number < len(parts) else 0)
        joined = f"{line}{between}{part}" if line.strip() else f"{line}{part}"
        if columns_of(joined) <= room:
            line = joined
            continue
        if line.strip():
            lines.append(line + trailing)
            line = indent
        *whole, line = _broken(f"{line}{part}", room, indent)
        lines += whole
    return [*lines, line] if line.strip() or not lines else lines


def _broken(text: str, columns: int, indent: str) -> Iterator[str]:
    """Pieces of a text, broken at spaces."""
    line = ""
    for word in _words(text):
        joined = line + word
        if columns_of(joined.rstrip()) <= columns:
            line = joined
            continue
        if line.strip():
            yield line.rstrip()
            line = indent
        line += word if columns_of(line + word.rstrip()) <= columns else cut(word.rstrip(), columns - len(indent))
    yield line.rstrip()


def _words(text: str) -> Iterable[str]:
    """Words with the space behind them."""
    start = 0
    while (at := text.find(" ", start)) >= 0:
        yield text[start : at + 1]
        start = at + 1
    yield text[start:]
