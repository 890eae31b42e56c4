"""The file that a conversion reads: its form found out, its lines as flat lines, read once or twice."""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO, TypeVar

from batchchat.compress import open_input, strip_endings
from batchchat.csv_rows import JSON_COLUMNS, objects_of_cells, read_table
from batchchat.errors import PromptFileError
from batchchat.forms.blocks import Block, gathered, gathered_cells, parsed_blocks
from batchchat.forms.csv_cells import read_columns, read_prompt_cells, read_result_cells
from batchchat.forms.losses import Losses
from batchchat.forms.plain_answers import plain_from_batch
from batchchat.forms.registry import Kind, form_of_path, line_form
from batchchat.forms.result_columns import are_results, lines_of_columns
from batchchat.forms.result_rows import is_result_table, row_to_result
from batchchat.jsonl import MAX_INPUT_DEPTH, iter_line_blocks
from batchchat.parquet_rows import iter_parquet_batches

__all__ = ["Source"]

# Results hold their input a few levels deeper.
_MOST_LEVELS = MAX_INPUT_DEPTH + 10
_COPY_BYTES = 1 << 20
_FEW_ROWS = 64
_Read = TypeVar("_Read")


class Source:
    """An input file and its form. Used with ``with``.

    Args:
        path: A file, or ``-`` for standard input.
        form: Its form where the user gave it.
        twice: Whether it will be read twice; a stream is then kept in a temporary file.

    Attributes:
        form: The form's name.
        kind: Whether it holds prompts or results.

    Raises:
        PromptFileError: It cannot be read.
    """

    def __init__(self, path: str, form: str | None, *, twice: bool) -> None:
        self.path, self._twice = path, twice
        self._given = form
        self._kept: BinaryIO | None = None
        table = form_of_path(path) if form is None else form if form in ("csv", "tsv", "parquet") else None
        self._table = table
        self._again: Iterator[Block] | None = None
        try:
            self.form, self.kind = self._find_form()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes and removes what is open."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def blocks(self) -> Iterator[Block]:
        """The lines as they stand in the file.

        Raises:
            PromptFileError: The file as a whole.
        """
        blocks, self._again = self._again or self._blocks(), None
        yield from blocks

    def flat_bytes(self) -> Iterator[tuple[int, list[bytes]]] | None:
        """The lines as bytes, see ``iter_line_blocks``; None where they are not flat lines. For one who reads twice."""
        if self._table is not None or self._line_form.name != "flat":
            return None
        self._again = None
        return self._reading(iter_line_blocks)

    def flat_lines(self, block: Block) -> list[dict[str, Any]] | None:
        """A block's flat lines; None where ``reader`` has to look at each, as one is at fault or may lose something."""
        if block.faulty:
            return None
        if self._table is not None:
            return self._lines_of_table(block)
        if self._line_form.name == "flat":
            return block.rows if self.kind == "prompts" or are_results(block.rows) else None
        if self._line_form.name != "openai-batch" or self.kind != "results":
            return None
        lines = [line for row in block.rows if (line := plain_from_batch(row)) is not None]
        return lines if len(lines) == len(block) else None

    def _lines_of_table(self, block: Block) -> list[dict[str, Any]] | None:
        if self.kind == "prompts":
            return block.rows if self._table == "parquet" else None
        columns = block.columns
        if columns is not None and self._table != "parquet":
            columns = read_columns(columns)
        return None if columns is None else lines_of_columns(columns, len(block))

    def reader(self, losses: Losses) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """What makes a flat line of a row; raises ValueError for one that is none."""
        if self._table is None:
            read = self._line_form.read

            def tell(what: str, fate: str) -> None:
                losses.tell(self.form, what, fate)

            return lambda row: read(row, tell)
        if self.kind == "results":
            return row_to_result if self._table == "parquet" else read_result_cells
        return (lambda row: row) if self._table == "parquet" else read_prompt_cells

    def _find_form(self) -> tuple[str, Kind]:
        blocks = self._blocks()
        head: list[Block] = []
        first: dict[str, Any] | None = None
        for block in blocks:
            head.append(block)
            first = next((row for row in block.rows if not isinstance(row, str)), None)
            if first is not None:
                break
        self._again = chain(head, blocks)
        if self._table is not None:
            return self._table, "results" if first is not None and is_result_table(first) else "prompts"
        self._line_form = line_form(self._given, first, is_results_name=_is_results_name(self.path))
        return self._line_form.name, self._line_form.kind

    def _blocks(self) -> Iterator[Block]:
        if self._table == "parquet":
            if self.path == "-":
                raise PromptFileError(self.path, "Parquet is read from its end, expected a file, not standard input")
            return _parquet_blocks(self.path)
        if self._table is not None:
            return self._reading(self._cell_blocks)
        return self._reading(lambda stream: parsed_blocks(stream, max_depth=_MOST_LEVELS))

    def _cell_blocks(self, stream: BinaryIO) -> Iterator[Block]:
        names, rows = read_table(stream, self.path, delimiter="\t" if self._table == "tsv" else ",")
        if is_result_table(names) and not set(names).intersection(JSON_COLUMNS):
            return gathered_cells(names, rows)
        return gathered(objects_of_cells(names, rows), lambda row: sum(map(len, row.values())))

    def _reading(self, read: Callable[[BinaryIO], Iterator[_Read]]) -> Iterator[_Read]:
        stream = self._open()
        try:
            yield from read(stream)
        except OSError as error:
            raise PromptFileError(self.path, f"cannot be read ({error.strerror or error})") from error
        finally:
            if self.path != "-" and stream is not self._kept:
                stream.close()

    def _open(self) -> BinaryIO:
        if not self._twice or not _is_stream(self.path):
            return open_input(self.path)
        if self._kept is None:
            self._kept = self._copy()
        self._kept.seek(0)
        return self._kept

    def _copy(self) -> BinaryIO:
        stream = open_input(self.path)
        kept = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            while piece := stream.read(_COPY_BYTES):
                kept.write(piece)
            kept.flush()
        except OSError as error:
            kept.close()
            reason = error.strerror or error
            raise PromptFileError(self.path, f"cannot be kept in a temporary file meanwhile ({reason})") from error
        except BaseException:
            kept.close()
            raise
        finally:
            if self.path != "-":
                stream.close()
        return kept


def _parquet_blocks(path: str) -> Iterator[Block]:
    for batch in iter_parquet_batches(path):
        columns = batch.plain_columns()
        if columns is None:
            yield from gathered(batch.rows())
            continue
        for start in range(0, batch.count, _FEW_ROWS):
            part = {name: values[start : start + _FEW_ROWS] for name, values in columns.items()}
            first = batch.first + start
            yield Block(range(first, min(first + _FEW_ROWS, batch.first + batch.count)), columns=part)


def _is_results_name(path: str) -> bool:
    """Whether the name is that of a results or errors file."""
    stem = strip_endings(path)
    return stem.endswith(".errors") or os.path.exists(f"{stem}.run.json")


def _is_stream(path: str) -> bool:
    if path == "-":
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
