"""The file that a conversion reads: its form found out, its lines as flat lines, read once or twice."""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from batchchat.compress import open_input, strip_endings
from batchchat.csv_rows import iter_rows
from batchchat.errors import PromptFileError
from batchchat.forms.csv_table import read_prompt_cells, read_result_cells
from batchchat.forms.losses import Losses
from batchchat.forms.registry import Kind, form_of_path, line_form
from batchchat.forms.result_rows import is_result_table, row_to_result
from batchchat.jsonl import MAX_INPUT_DEPTH, iter_lines, parse_object
from batchchat.parquet_rows import iter_parquet_rows

__all__ = ["Source"]

# Results hold their input a few levels deeper.
_MOST_LEVELS = MAX_INPUT_DEPTH + 10
_COPY_BYTES = 1 << 20
_Row = tuple[int, dict[str, Any] | str]


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
        self._again: Iterator[_Row] | None = None
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

    def lines(self, losses: Losses) -> Iterator[_Row]:
        """Number and flat line of each line, or what is wrong with it.

        Raises:
            PromptFileError: The file as a whole.
        """
        rows, self._again = self._again or self._rows(), None
        flat = self._reader(losses)
        for line_number, row in rows:
            losses.line_number = line_number
            if isinstance(row, str):
                yield line_number, row
                continue
            try:
                yield line_number, flat(row)
            except ValueError as error:
                yield line_number, str(error)

    def _reader(self, losses: Losses) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """What makes a flat line of a row."""
        if self._table is None:
            read = self._line_form.read

            def tell(what: str, fate: str) -> None:
                losses.tell(self.form, what, fate)

            return lambda row: read(row, tell)
        if self.kind == "results":
            return row_to_result if self._table == "parquet" else read_result_cells
        return (lambda row: row) if self._table == "parquet" else read_prompt_cells

    def _find_form(self) -> tuple[str, Kind]:
        rows = self._rows()
        head: list[_Row] = []
        first: dict[str, Any] | None = None
        for number, row in rows:
            head.append((number, row))
            if not isinstance(row, str):
                first = row
                break
        if self._table is not None:
            self._again = chain(head, rows)
            return self._table, "results" if first is not None and is_result_table(first) else "prompts"
        self._line_form = line_form(self._given, first, is_results_name=_is_results_name(self.path))
        self._again = chain(head, rows)
        return self._line_form.name, self._line_form.kind

    def _rows(self) -> Iterator[_Row]:
        if self._table == "parquet":
            if self.path == "-":
                raise PromptFileError(self.path, "Parquet is read from its end, expected a file, not standard input")
            yield from iter_parquet_rows(self.path)
            return
        stream = self._open()
        try:
            if self._table is not None:
                yield from iter_rows(stream, self.path, delimiter="\t" if self._table == "tsv" else ",")
                return
            for line_number, line in iter_lines(stream):
                try:
                    row: dict[str, Any] | str = parse_object(line, max_depth=_MOST_LEVELS)
                except ValueError as error:
                    row = str(error)
                yield line_number, row
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
