"""Rows of a table as prompts."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from batchchat.errors import ConfigError
from batchchat.input_lines import read_ask, take_id
from batchchat.input_records import iter_records
from batchchat.input_settings import InputSettings
from batchchat.line_prompts import LinePrompts, auto_id
from batchchat.one_line import one_line
from batchchat.records import InputFault, Prompt

if TYPE_CHECKING:
    from batchchat.parquet_values import ColumnForm

__all__ = ["RowSettings", "TablePrompts", "check_columns"]

_ROWS_AT_ONCE = 1000
# Columns that an input line's form gives a meaning; beside a prompt's own column, they have none.
_FORM = frozenset(
    ("id", "custom_id", "body", "prompt", "messages", "turns", "system", "model", "params", "chat_id", "error")
)


class RowSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a row becomes a prompt.

    Attributes:
        prompt: Column with the text or the messages; None where a row is what an input line is.
        id: Column with the id; None for ``id`` or ``custom_id``, if a row is what an input line is.
        place: Path in the folder that paths of attachments start from.
    """

    prompt: str | None
    id: str | None
    place: str


def check_columns(names: Sequence[str], settings: RowSettings, needed: Sequence[str], added: Sequence[str]) -> None:
    """Sees that a table has the columns that are needed, and none that are to be added.

    Raises:
        ConfigError: It is not so.
    """
    shown = ", ".join(names[:20]) or "none"
    for name in filter(None, (settings.prompt, settings.id, *needed)):
        if name not in names:
            raise ConfigError(f"map_prompts: the rows have no column {name!r}, expected one of these: {shown}")
    for name in added:
        if name in names:
            raise ConfigError(
                f"map_prompts: the rows have a column {name!r}, which is the name of one to be added; "
                "give prefix='answer_' or another"
            )


class TablePrompts:
    """Knows how rows become prompts.

    Raises:
        ConfigError: A template is none.
        PromptFileError: The file of examples cannot be used.
    """

    def __init__(self, settings: InputSettings, rows: RowSettings) -> None:
        self._lines, self._rows = LinePrompts(settings, iter_records), rows
        self._lines.checked = True  # a file that is missing is the trouble of its prompt

    def read(
        self, table: Any, fingerprint_of: Callable[[Prompt], str], check: Callable[[Prompt], None]
    ) -> Iterator[tuple[Prompt, str] | InputFault]:
        """The prompt of each row with its fingerprint, or what is wrong with the row; its index is that of the row.

        Args:
            check: Raises ``ConfigError`` for a prompt that the provider cannot take.
        """
        for index, record in enumerate(self._records(table)):
            try:
                if isinstance(record, str):
                    raise ValueError(record)
                prompt = self._prompt(record, index)
                check(prompt)
                yield prompt, fingerprint_of(prompt)
            except (ValueError, ConfigError) as error:
                reason = one_line(str(error))
                yield InputFault(path="row", line_number=index + 1, index=index, reason=reason)

    def _prompt(self, record: dict[str, Any], index: int) -> Prompt:
        lines, rows = self._lines, self._rows
        given = None
        if rows.id is not None or rows.prompt is None:
            given, _ = take_id(record, rows.id)
        if rows.prompt is not None:
            value = record.get(rows.prompt)
            if value is None and lines.prompt is None:
                raise ValueError(f"expected a prompt in {rows.prompt!r}, found null")
            record = {name: field for name, field in record.items() if name not in _FORM}
            record["messages" if isinstance(value, list) else "prompt"] = value
        ask = read_ask(record, lines.prompt, lines.system)
        if lines.dresses:
            ask = lines.with_examples(lines.with_attachments(ask, record, rows.place))
        prompt_id = auto_id(ask) if given is None else given
        return ask.to_prompt(prompt_id, index=index, line_number=index + 1, line={})

    def _records(self, table: Any) -> Iterator[dict[str, Any] | str]:
        from batchchat.parquet_values import BadValue, column_values

        names = table.column_names
        forms = [_form(field) for field in table.schema]
        for start in range(0, table.num_rows, _ROWS_AT_ONCE):
            part = table.slice(start, _ROWS_AT_ONCE)
            columns = [column_values(part.column(place), form) for place, form in enumerate(forms)]
            for values in zip(*columns, strict=True):
                fields = list(zip(names, values, strict=True))
                bad = next((f"{v.reason} (column {name!r})" for name, v in fields if type(v) is BadValue), None)
                yield bad or {name: _whole(value) for name, value in fields if value is not None}


def _whole(value: Any) -> Any:
    """A value without the nulls that only say that other rows have more fields."""
    if isinstance(value, list):
        return [_whole(part) for part in value]
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items() if part is not None or name == "content"}
    return value


def _form(field: Any) -> "ColumnForm":
    from batchchat.parquet_values import column_form

    try:
        return column_form(field)
    except ValueError as error:
        raise ConfigError(f"map_prompts: {error} (column {field.name!r})") from error
