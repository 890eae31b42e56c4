"""What writes the lines of a conversion: one by one, or many at once."""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Protocol

from batchchat.forms.anthropic import read_anthropic_line, write_anthropic_line
from batchchat.forms.asks import Asked, Asker, AskSettings, kept_line
from batchchat.forms.bedrock import read_bedrock_line, write_bedrock_line, write_converse_line
from batchchat.forms.csv_table import CsvWriter, Formulas
from batchchat.forms.losses import Losses
from batchchat.forms.openai_batch import read_batch_line, read_mistral_line, write_mistral_line, write_openai_line
from batchchat.forms.openai_results import write_openai_result
from batchchat.forms.plain_answers import plain_to_batch
from batchchat.forms.registry import HOLDERS
from batchchat.forms.result_columns import prompt_columns, result_columns
from batchchat.forms.result_rows import are_ordinary, result_to_row, tell_row_losses
from batchchat.forms.shapes import Columns
from batchchat.ids import IdTable
from batchchat.jsonl import dump_line, dump_lines
from batchchat.results import parse_stored

__all__ = ["LineWriter", "TableWriter", "Writer", "line_writer"]

# As few lines at a time as for the size of a block.
_FEW = 32


class Writer(Protocol):
    """Takes flat lines.

    ``write`` tells whether it wrote one, and raises ValueError for one that it cannot write. ``write_all`` writes many
    of them at once; False, and nothing is written and told, where ``write`` has to look at each. One of ``close`` and
    ``abandon`` ends it, the latter where the file is of no use.
    """

    def write(self, line: dict[str, Any]) -> bool: ...
    def write_all(self, numbers: Sequence[int], lines: list[dict[str, Any]]) -> bool: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


def line_writer(file: BinaryIO, form: str, losses: Losses, asks: AskSettings, *, is_result: bool) -> "LineWriter":
    """The writer of a form that is no table.

    Raises:
        ConfigError: A template is none.
    """

    def tell(what: str, fate: str) -> None:
        losses.tell(form, what, fate)

    if form == "flat":
        return LineWriter(file, lambda line: line, lambda lines: lines)
    if form == "openai-batch" and is_result:
        return LineWriter(file, lambda line: write_openai_result(line, tell), _all_plain)
    if form == "prompts":
        return LineWriter(file, _Inputs())
    return LineWriter(file, _Requests(asks, form, losses, is_result))


def _all_plain(lines: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    done = [obj for line in lines if (obj := plain_to_batch(line)) is not None]
    return done if len(done) == len(lines) else None


class LineWriter:
    """Changes each line, or many at once where that does, and writes what comes of it."""

    def __init__(
        self,
        file: BinaryIO,
        change: Callable[[dict[str, Any]], dict[str, Any] | None],
        change_all: Callable[[list[dict[str, Any]]], list[dict[str, Any]] | None] = lambda lines: None,
    ) -> None:
        self._file, self._change, self._change_all = file, change, change_all

    def write(self, line: dict[str, Any]) -> bool:
        done = self._change(line)
        if done is not None:
            self._file.write(dump_line(done))
        return done is not None

    def write_all(self, numbers: Sequence[int], lines: list[dict[str, Any]]) -> bool:
        done = self._change_all(lines)
        if done is None:
            return False
        for start in range(0, len(done), _FEW):
            self._file.write(dump_lines(done[start : start + _FEW]))
        return True

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class TableWriter:
    """Writes rows of a table; ``formulas`` where it is one of text."""

    def __init__(
        self, file: BinaryIO, columns: Columns, form: str, losses: Losses, is_result: bool, escape_formulas: bool
    ) -> None:
        self._file, self._form, self._losses, self._is_result = file, form, losses, is_result
        self._parquet: Any = None
        self.formulas = Formulas()
        if form == "parquet":
            from batchchat.forms.parquet_table import ParquetWriter

            self._parquet = ParquetWriter(file, columns, losses)
        else:
            delimiter = "\t" if form == "tsv" else ","
            self._csv = CsvWriter(columns.names, delimiter, losses, form=form, escape_formulas=escape_formulas)
            self.formulas = self._csv.formulas
            file.write(self._csv.header())

    def write(self, line: dict[str, Any]) -> bool:
        if self._is_result:
            result_to_row(line)  # raises
        return self.write_all([self._losses.line_number], [line])

    def write_all(self, numbers: Sequence[int], lines: list[dict[str, Any]]) -> bool:
        columns = result_columns(lines) if self._is_result else prompt_columns(lines)
        if columns is None:
            return False
        if self._is_result and not are_ordinary(lines, columns.keys):
            for self._losses.line_number, line in zip(numbers, lines, strict=True):
                tell_row_losses(line, result_to_row(line), self._say)
        if self._parquet is None:
            self._file.write(self._csv.rows(numbers, columns))
        else:
            self._parquet.write(numbers, columns)
        return True

    def _say(self, what: str, fate: str) -> None:
        self._losses.tell(self._form, what, fate)

    def close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()

    def abandon(self) -> None:
        if self._parquet is not None:
            self._parquet.abandon()


class _Requests:
    """Flat lines to lines of a service's batch input."""

    def __init__(self, settings: AskSettings, form: str, losses: Losses, is_result: bool) -> None:
        self._settings, self._form, self._losses, self._is_result = settings, form, losses, is_result
        self._asker = Asker(settings, form, HOLDERS[form], losses)

    def __call__(self, line: dict[str, Any]) -> dict[str, Any]:
        if self._is_result and (stored := parse_stored(line)) is not None and stored.answered:
            raise ValueError("found an answered result, expected a prompt; --to prompts gives the inputs of results")
        asked = self._asker.asked(line)
        obj = self._request(asked)
        if self._settings.keep_fields:
            obj |= kept_line(line, self._read_back(obj)) or {}
        return obj

    def _request(self, asked: Asked) -> dict[str, Any]:
        if self._form == "openai-batch":
            if asked.model is None:
                self._say("no model", "which the hosted service needs; --model NAME gives one")
            return write_openai_line(asked)
        if self._form == "mistral":
            return write_mistral_line(asked, self._say)
        write = {
            "anthropic": write_anthropic_line,
            "bedrock": write_bedrock_line,
            "bedrock-converse": write_converse_line,
        }
        return write[self._form](asked, self._settings.max_tokens, self._say)

    def _say(self, what: str, fate: str) -> None:
        self._losses.tell(self._form, what, fate)

    def _read_back(self, obj: dict[str, Any]) -> dict[str, Any]:
        read = {"anthropic": read_anthropic_line, "openai-batch": read_batch_line, "mistral": read_mistral_line}
        return read.get(self._form, read_bedrock_line)(obj, lambda what, fate: None)


class _Inputs:
    """Results to the prompt lines that they came of, each once though several prompts were made of it."""

    def __init__(self) -> None:
        self._seen = IdTable()

    def __call__(self, line: dict[str, Any]) -> dict[str, Any] | None:
        given, variant = line.get("input"), line.get("variant")
        if not isinstance(given, dict):
            raise ValueError("expected the prompt's line in 'input', found none; run with --carry all to have it")
        line_id = line["id"]
        if isinstance(variant, dict) and isinstance(variant.get("id"), str | int):
            line_id = variant["id"]
            if not self._seen.add(line_id, 1):
                return None
        return {"id": line_id} | {name: value for name, value in given.items() if name != "id"}
