"""One conversion from start to end: read, tell faults and losses, write the whole file or nothing."""

from collections.abc import Callable
from itertools import islice
from typing import Any, BinaryIO, Protocol

import msgspec

from batchchat.errors import ConfigError, PromptFileError
from batchchat.forms.anthropic import read_anthropic_line, write_anthropic_line
from batchchat.forms.asks import Asked, Asker, AskSettings, kept_line
from batchchat.forms.bedrock import read_bedrock_line, write_bedrock_line, write_converse_line
from batchchat.forms.csv_table import CsvWriter, Formulas
from batchchat.forms.losses import Loss, Losses
from batchchat.forms.openai_batch import read_batch_line, read_mistral_line, write_mistral_line, write_openai_line
from batchchat.forms.openai_results import write_openai_result
from batchchat.forms.registry import HOLDERS, SERVICE_FORMS, TABLE_FORMS, Kind, form_of_path
from batchchat.forms.result_rows import RESULT_COLUMNS, result_to_row, row_shape, tell_row_losses
from batchchat.forms.shapes import Columns
from batchchat.forms.sources import Source
from batchchat.forms.targets import check_target, open_target
from batchchat.ids import IdTable
from batchchat.jsonl import dump_line
from batchchat.parquet_rows import import_parquet
from batchchat.results import parse_stored

__all__ = ["Conversion", "Converted", "FaultyInputError", "LostError", "convert"]


# Lines may be of ever new shapes, and memory is to stay as it is.
_MOST_SHAPES = 10_000


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert, and how.

    Attributes:
        source: Path, ``-`` for standard input.
        target: Path, ``-`` for standard output.
        from_form, to_form: Names of the forms where the endings and the content do not tell.
        asks: How lines become requests.
        escape_formulas: See ``CsvWriter``.
        strict: Losing something is an error.
        force: Replace a target that is there.
    """

    source: str
    target: str
    from_form: str | None = None
    to_form: str | None = None
    asks: AskSettings = AskSettings()
    escape_formulas: bool = False
    strict: bool = False
    force: bool = False


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion did; ``formulas`` where a table got text that a spreadsheet would run, unescaped."""

    lines: int
    kind: Kind
    from_form: str
    to_form: str
    losses: list[Loss]
    formulas: Formulas | None = None


class FaultyInputError(PromptFileError):
    """Lines were faulty, each was told; nothing was written."""


class LostError(PromptFileError):
    """Something would have been lost, which was not allowed; nothing was written."""


class _Writer(Protocol):
    """Takes flat lines and tells whether it wrote one; raises ValueError for one that it cannot write."""

    def write(self, line: dict[str, Any]) -> bool: ...
    def close(self) -> None: ...


def convert(job: Conversion, tell_fault: Callable[[int, str], None], tell_loss: Callable[[Loss], None]) -> Converted:
    """Converts a file.

    Args:
        tell_fault: Is told line number and reason of every faulty line.
        tell_loss: Is told every kind of loss at the end.

    Raises:
        ConfigError: The options do not fit each other or the input.
        PromptFileError: The input cannot be read; ``FaultyInputError`` and ``LostError`` where lines are at fault.
        ResultsWriteError: The output cannot be written.
    """
    to_form = job.to_form or form_of_path(job.target) or "flat"
    check_target(job.target, job.source, force=job.force, form=to_form)
    _check_options(job, to_form)
    if to_form == "parquet":
        import_parquet(job.target)
    losses = Losses()
    with Source(job.source, job.from_form, twice=to_form in TABLE_FORMS) as source:
        if source.kind == "prompts" and to_form == "prompts":
            to_form = "flat"
        run = _Run(job, source, to_form, losses, tell_fault)
        columns = run.survey() if to_form in TABLE_FORMS else None
        try:
            with open_target(job.target) as file:
                count = run.write(file, columns)
                if losses.all() and job.strict:
                    raise LostError(job.source, "nothing was written, as --strict allows no loss")
        finally:
            if not run.faults:
                for loss in losses.all():
                    tell_loss(loss)
        kind = "prompts" if to_form == "prompts" or to_form in SERVICE_FORMS - {"openai-batch"} else source.kind
        return Converted(
            lines=count,
            kind=kind,
            from_form=source.form,
            to_form=to_form,
            losses=losses.all(),
            formulas=run.formulas,
        )


def _check_options(job: Conversion, to_form: str) -> None:
    """Refuses options that would do nothing.

    Raises:
        ConfigError: There is one.
    """
    given = msgspec.structs.asdict(job.asks)
    idle = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False)]
    if idle and to_form not in SERVICE_FORMS:
        raise ConfigError(
            f"{idle[0]} is for requests of a service, expected --to with one of {', '.join(sorted(SERVICE_FORMS))}"
        )
    if job.escape_formulas and to_form not in ("csv", "tsv"):
        raise ConfigError(f"--escape-formulas is for csv and tsv, found the form {to_form}")


class _Run:
    def __init__(
        self, job: Conversion, source: Source, to_form: str, losses: Losses, tell: Callable[[int, str], None]
    ) -> None:
        self._job, self._source, self._form, self._losses, self._tell = job, source, to_form, losses, tell
        self.faults = 0
        self.formulas: Formulas | None = None
        self._is_result = source.kind == "results"

    def survey(self) -> Columns:
        """Goes through the input once for the columns of a table.

        Raises:
            FaultyInputError: Lines are faulty.
        """
        names_only = self._form != "parquet"
        columns = Columns(RESULT_COLUMNS if self._is_result else (), names_only=names_only)
        known: set[tuple[Any, ...] | None] = set()
        for line_number, line in self._source.lines(self._losses):
            try:
                if isinstance(line, str):
                    raise ValueError(line)
                if not self._is_result:
                    columns.add(line)
                elif names_only and (shape := row_shape(line)) in known:
                    columns.rows += 1
                else:
                    columns.add(result_to_row(line))
                    if names_only and shape is not None and len(known) < _MOST_SHAPES:
                        known.add(shape)
            except ValueError as error:
                self._fault(line_number, str(error))
        self._check()
        columns.close()
        self._losses.clear()
        return columns

    def write(self, file: BinaryIO, columns: Columns | None) -> int:
        """Writes every line; how many there were.

        Raises:
            FaultyInputError: Lines are faulty; what was written is of no use then.
        """
        try:
            writer = self._writer(file, columns)
        except ValueError as error:
            raise FaultyInputError(self._job.source, str(error)) from error
        count = 0
        # A results file may have grown since it was surveyed.
        lines = islice(self._source.lines(self._losses), None if columns is None else columns.rows)
        for line_number, line in lines:
            try:
                if isinstance(line, str):
                    raise ValueError(line)
                count += writer.write(line)
            except ValueError as error:
                self._fault(line_number, str(error))
        self._check()
        writer.close()
        if isinstance(writer, _TableWriter) and writer.formulas:
            self.formulas = writer.formulas
        return count

    def _say(self, what: str, fate: str) -> None:
        self._losses.tell(self._form, what, fate)

    def _fault(self, line_number: int, reason: str) -> None:
        self.faults += 1
        self._tell(line_number, reason)

    def _check(self) -> None:
        if self.faults:
            lines = "1 faulty line" if self.faults == 1 else f"{self.faults:,} faulty lines"
            raise FaultyInputError(self._job.source, f"{lines}, nothing was written")

    def _writer(self, file: BinaryIO, columns: Columns | None) -> _Writer:
        if columns is not None:
            return _TableWriter(file, columns, self._form, self._losses, self._is_result, self._job.escape_formulas)
        if self._form == "flat":
            return _LineWriter(file, lambda line: line)
        if self._form == "openai-batch" and self._is_result:
            return _LineWriter(file, lambda line: write_openai_result(line, self._say))
        if self._form == "prompts":
            return _LineWriter(file, _Inputs())
        return _LineWriter(file, _Requests(self._job.asks, self._form, self._losses, self._is_result))


class _LineWriter:
    def __init__(self, file: BinaryIO, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        self._file, self._change = file, change

    def write(self, line: dict[str, Any]) -> bool:
        done = self._change(line)
        if done is not None:
            self._file.write(dump_line(done))
        return done is not None

    def close(self) -> None:
        pass


class _TableWriter:
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
        row = line
        if self._is_result:
            row = result_to_row(line)
            tell_row_losses(line, row, self._say)
        if self._parquet is None:
            self._file.write(self._csv.row(row))
        else:
            self._parquet.write(row)
        return True

    def _say(self, what: str, fate: str) -> None:
        self._losses.tell(self._form, what, fate)

    def close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()


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
