"""The first reading of a file that becomes a table, which finds the columns."""

from collections import deque
from collections.abc import Callable, Iterable
from operator import length_hint

from batchchat.forms.known_lines import known_lines
from batchchat.forms.losses import Losses
from batchchat.forms.openai_results import check_result
from batchchat.forms.result_columns import prompt_columns, result_columns
from batchchat.forms.result_rows import RESULT_COLUMNS, result_to_row
from batchchat.forms.shapes import Columns
from batchchat.forms.sources import Source
from batchchat.jsonl import parse_object

__all__ = ["survey"]

Fault = Callable[[int, str], None]
# Making a decoder costs as much as hundreds of lines.
_MOST_DECODERS = 100
_MOST_FIELDS = 300


def survey(source: Source, losses: Losses, fault: Fault, *, names_only: bool) -> Columns:
    """The columns of a table of the source's lines.

    Args:
        fault: Is told of faulty lines, of all or none; where there are some, the columns are of no use.
        names_only: For tables whose cells have no types.

    Raises:
        ConfigError: There are too many columns for a table.
    """
    is_result = source.kind == "results"
    columns = Columns(RESULT_COLUMNS if is_result else (), names_only=names_only)
    raw = source.flat_bytes()
    if raw is None or not _read_quickly(raw, columns, is_result):
        columns = Columns(RESULT_COLUMNS if is_result else (), names_only=names_only)
        _read_rows(source, losses, columns, fault)
    columns.close()
    return columns


def _read_rows(source: Source, losses: Losses, columns: Columns, fault: Fault) -> None:
    flat, is_result = source.reader(losses), source.kind == "results"
    for block in source.blocks():
        lines = source.flat_lines(block)
        if lines is not None:
            found = result_columns(lines) if is_result else prompt_columns(lines)
            if found is not None:
                columns.add_all(found)
                continue
        for losses.line_number, row in block.items():
            try:
                if isinstance(row, str):
                    raise ValueError(row)
                columns.add(result_to_row(flat(row)) if is_result else flat(row))
            except ValueError as error:
                fault(losses.line_number, str(error))


def _read_quickly(blocks: Iterable[tuple[int, list[bytes]]], columns: Columns, is_result: bool) -> bool:
    """Reads what is new in lines alone; False where that does not do, as for a line that is at fault.

    A decoder of what is known takes each line that brings nothing further. What it passes over is looked at when the
    line is written.
    """
    decode, left = known_lines(columns, is_result), _MOST_DECODERS
    for _, lines in blocks:
        rest = iter(lines)
        while decode is not None:
            before = length_hint(rest)
            try:
                deque(map(decode, rest), maxlen=0)
            except (ValueError, RecursionError):
                columns.add_alike(before - length_hint(rest) - 1)
            else:
                columns.add_alike(before)
                break
            line = lines[len(lines) - length_hint(rest) - 1]
            if not line or line.isspace():
                continue
            known = columns.state()
            try:
                row = parse_object(line)
                columns.add(result_to_row(check_result(row)) if is_result else row)
            except ValueError:
                return False
            if columns.state() != known:
                left -= 1
                if not left or len(columns.names) > _MOST_FIELDS:
                    return False
                decode = known_lines(columns, is_result)
        if decode is None:
            return False
    return True
