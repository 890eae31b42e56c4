"""What a workload comes to: rows of text."""

import msgspec

__all__ = ["Table"]


class Table(msgspec.Struct):
    """One table.

    Attributes:
        title: What was measured, in a few words.
        note: A sentence on how to read it.
        columns: Headings; the first column names the client.
        rows: Cells, as text.
    """

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """The table in columns, for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in shown)])

    def markdown(self) -> str:
        """The table for a page."""
        lines = [f"| {' | '.join(line)} |" for line in [self.columns, ["---"] * len(self.columns), *self.rows]]
        return "\n".join([f"**{self.title}.** {self.note}", "", *lines])
