"""Outcomes as columns of one schema, for rows of a dataset; pyarrow is imported when there is a table."""

from collections.abc import Sequence
from typing import Any

from batchchat.forms.result_rows import RESULT_COLUMNS, result_to_row
from batchchat.jsonl import dump_line
from batchchat.records import Outcome
from batchchat.results import outcome_to_object
from batchchat.surrogates import without_surrogates

__all__ = ["ANSWER_COLUMNS", "with_answers"]

# What tells where in an input a prompt stands, or of runs before, means nothing beside its row.
_LEFT_OUT = frozenset(("id", "index", "fingerprint", "reused_from", "variant"))
# Column and the kind of its values; see ``RESULT_COLUMNS``. JSON stands there as text.
ANSWER_COLUMNS: dict[str, str] = {name: kind for name, kind in RESULT_COLUMNS.items() if name not in _LEFT_OUT}
_LONGEST_INT_BITS = 63


def with_answers(table: Any, outcomes: Sequence[Outcome], prefix: str) -> Any:
    """The table with the columns of its rows' outcomes.

    Args:
        table: Of pyarrow.
        outcomes: One for each row, in their order.
        prefix: Stands before the name of each column.
    """
    import pyarrow as pa

    types = {"str": pa.string(), "json": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    rows = [result_to_row(outcome_to_object(outcome, carry="none")) for outcome in outcomes]
    for name, kind in ANSWER_COLUMNS.items():
        values = [_value(row[name], kind) for row in rows]
        table = table.append_column(pa.field(prefix + name, types[kind]), pa.array(values, types[kind]))
    return table


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "str" and isinstance(value, str):
        return without_surrogates(value)
    if kind in ("str", "json"):
        return dump_line({"": value})[4:-2].decode()
    if kind == "int":  # a service's count may be any number
        return value if isinstance(value, int) and value.bit_length() <= _LONGEST_INT_BITS else None
    return bool(value) if kind == "bool" else float(value)
