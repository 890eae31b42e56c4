"""One conversion from start to end: read, tell faults and losses, write the whole file or nothing."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from batchchat.errors import ConfigError, PromptFileError
from batchchat.forms.asks import AskSettings
from batchchat.forms.blocks import Block
from batchchat.forms.csv_table import Formulas
from batchchat.forms.losses import Loss, Losses
from batchchat.forms.registry import SERVICE_FORMS, TABLE_FORMS, Kind, form_of_path
from batchchat.forms.shapes import Columns
from batchchat.forms.sources import Source
from batchchat.forms.survey import survey
from batchchat.forms.targets import check_target, open_target
from batchchat.forms.writers import TableWriter, Writer, line_writer
from batchchat.parquet_rows import import_parquet

__all__ = ["Conversion", "Converted", "FaultyInputError", "LostError", "convert"]


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
        columns = survey(self._source, self._losses, self._fault, names_only=self._form != "parquet")
        self._check()
        self._losses.clear()
        return columns

    def write(self, file: BinaryIO, columns: Columns | None) -> int:
        """Writes every line; how many there were.

        Raises:
            FaultyInputError: Lines are faulty; what was written is of no use then.
        """
        try:
            writer: Writer = (
                line_writer(file, self._form, self._losses, self._job.asks, is_result=self._is_result)
                if columns is None
                else TableWriter(file, columns, self._form, self._losses, self._is_result, self._job.escape_formulas)
            )
        except ValueError as error:
            raise FaultyInputError(self._job.source, str(error)) from error
        try:
            count = self._write_blocks(writer, None if columns is None else columns.rows)
            self._check()
            writer.close()
        except BaseException:
            writer.abandon()
            raise
        if isinstance(writer, TableWriter) and writer.formulas:
            self.formulas = writer.formulas
        return count

    def _write_blocks(self, writer: Writer, rows: int | None) -> int:
        flat = self._source.reader(self._losses)
        count = 0
        # A results file may have grown since it was surveyed.
        for block in _first(self._source.blocks(), rows):
            lines = self._source.flat_lines(block)
            if lines is not None and writer.write_all(block.numbers, lines):
                count += len(lines)
            elif lines is None:
                count += self._write_each(writer, block, flat)
            else:
                count += self._write_each(writer, Block(block.numbers, lines), _as_it_is)
        return count

    def _write_each(self, writer: Writer, block: Block, flat: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
        pairs: Iterable[tuple[int, dict[str, Any]]] = self._flat_lines(block, flat)
        if self._form in TABLE_FORMS:
            # Columns are written at once, whatever it took to read the lines.
            pairs = list(pairs)
            if pairs and writer.write_all([number for number, _ in pairs], [line for _, line in pairs]):
                return len(pairs)
        count = 0
        for self._losses.line_number, line in pairs:
            try:
                count += writer.write(line)
            except ValueError as error:
                self._fault(self._losses.line_number, str(error))
        return count

    def _flat_lines(
        self, block: Block, flat: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Those that are not at fault."""
        for number, row in block.items():
            self._losses.line_number = number
            try:
                if isinstance(row, str):
                    raise ValueError(row)
                yield number, flat(row)
            except ValueError as error:
                self._fault(number, str(error))

    def _fault(self, line_number: int, reason: str) -> None:
        self.faults += 1
        self._tell(line_number, reason)

    def _check(self) -> None:
        if self.faults:
            lines = "1 faulty line" if self.faults == 1 else f"{self.faults:,} faulty lines"
            raise FaultyInputError(self._job.source, f"{lines}, nothing was written")


def _as_it_is(line: dict[str, Any]) -> dict[str, Any]:
    return line


def _first(blocks: Iterable[Block], count: int | None) -> Iterator[Block]:
    """As many lines, all for None."""
    left = count
    for block in blocks:
        if left is not None and left <= len(block):
            yield block.first(left)
            return
        yield block
        left = None if left is None else left - len(block)
