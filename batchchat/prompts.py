"""The input as a stream of prompts and faults; nothing grows with its length but the table of ids.

Files are opened one after another and read as they are asked for. A line is parsed here or in ``csv_rows``, what it
asks for is found in ``input_lines``; this module gives it its id, index and place, and picks by limit and sample.
"""

import os
import random
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar, cast

from batchchat.compress import compression_of, open_input
from batchchat.csv_rows import iter_rows
from batchchat.errors import PromptFileError
from batchchat.expansion import Variant
from batchchat.failed_lines import kept_line, unwrap_failure
from batchchat.input_lines import is_plain, read_ask, take_id
from batchchat.input_settings import InputSettings, OnDuplicate
from batchchat.jsonl import MAX_INPUT_DEPTH, iter_lines, parse_object
from batchchat.line_prompts import LinePrompts, auto_id
from batchchat.one_line import one_line
from batchchat.parquet_rows import iter_parquet_rows
from batchchat.records import InputFault, Prompt, PromptId
from batchchat.row_ids import LINE_BITS, RowIds

__all__ = ["InputSettings", "OnDuplicate", "PromptReader", "auto_id", "draw"]

T = TypeVar("T")
# What a line makes: its one prompt or fault, or a list of all its prompts where there may be several.
Row = Prompt | InputFault | list[Prompt]
# An errors file's line holds its input so many levels deep, in its batch form.
_ERROR_LINE_LEVELS = 2


class PromptReader:
    """Prompts and faults of the whole input, in its order; each iteration reads anew.

    Attributes:
        variants: How many prompts a line makes.

    Raises:
        ConfigError: A template is none, or the variants of a line cannot be made.
        PromptFileError: The file of examples cannot be used.
    """

    def __init__(self, settings: InputSettings) -> None:
        self.settings = settings
        self._lines = LinePrompts(settings, _iter_records)
        self.variants = len(self._lines.expansion.variants)
        self._sample: array[int] | None = None

    @property
    def reiterable(self) -> bool:
        """Whether the input can be read more than once: no standard input, pipe or device among the paths."""
        return not any(path == "-" or _is_stream(path) for path in self.settings.paths)

    def trust(self) -> None:
        """Notes that the whole input was right: a file of a prompt that went away since fails that prompt alone."""
        self._lines.checked = True

    def __iter__(self) -> Iterator[Prompt | InputFault]:
        """Reads lazily; a line never raises, it is told as an ``InputFault``.

        Raises:
            PromptFileError: A file as a whole: missing, not readable, a folder, wrong or damaged compression, UTF-16.
        """
        count = self.settings.sample
        if count is None:
            rows: Iterable[Row] = self._limited()
        elif not self.reiterable:
            rows = draw(self._limited(), count, self.settings.seed)
        else:
            rows = self._sampled(count)
        return _items(rows) if self._lines.expansion else cast("Iterator[Prompt | InputFault]", iter(rows))

    def _limited(self) -> Iterator[Row]:
        rows = _Reading(self.settings, self._lines).rows()
        return rows if self.settings.limit is None else islice(rows, self.settings.limit)

    def _sampled(self, count: int) -> Iterator[Row]:
        """Draws indexes in one reading, so that no more than they are kept, and tells their rows in another."""
        if self._sample is None:
            indexes = map(_index_of, self._limited())
            self._sample = array("Q", draw(indexes, count, self.settings.seed))
        wanted = iter(self._sample)
        index = next(wanted, None)
        if index is None:
            return
        for row in self._limited():
            if _index_of(row) == index:
                yield row
                index = next(wanted, None)
                if index is None:
                    return


class _Reading:
    """One reading of the input and what it must remember from line to line."""

    def __init__(self, settings: InputSettings, lines: LinePrompts) -> None:
        self._settings, self._lines = settings, lines
        self._id_field = settings.id_field
        self._expands = bool(lines.expansion)
        templates = lines.prompt is not None or lines.system is not None
        self._takes_plain = settings.id_field is None and not (templates or lines.dresses)
        self._ids = RowIds(settings.paths, settings.on_duplicate)

    def rows(self) -> Iterator[Row]:
        """What each line makes; nothing is told of a line that is passed over."""
        index = 0
        make: Callable[[dict[str, Any], str, int, int, int], Row | int]
        make = self._expanded if self._expands else self._single
        for number, path in enumerate(self._settings.paths):
            for line_number, record in _iter_records(path):
                if isinstance(record, str):
                    row: Row | int = InputFault(
                        path=path, line_number=line_number, index=index, reason=one_line(record)
                    )
                else:
                    try:
                        row = make(record, path, number << LINE_BITS | line_number, line_number, index)
                    except ValueError as error:
                        kept = kept_line(record, self._id_field) if "error" in record else record
                        reason = one_line(str(error))
                        row = InputFault(path=path, line_number=line_number, index=index, reason=reason, line=kept)
                if type(row) is Prompt:
                    index += 1
                elif isinstance(row, int):
                    index += row
                    continue
                else:
                    index += len(row) if isinstance(row, list) else 1
                yield row

    def _single(self, record: dict[str, Any], path: str, place: int, line_number: int, index: int) -> Row | int:
        """The one prompt of a record; 1 where it is a duplicate to pass over.

        Raises:
            ValueError: The record makes none.
        """
        if self._takes_plain and is_plain(record):
            line = record.copy()
            given = line.pop("id")
            if (prompt_id := self._ids.given(given, place)) is None:
                return 1
            messages = [{"role": "user", "content": record["prompt"]}]
            return Prompt(id=prompt_id, index=index, line_number=line_number, messages=messages, line=line)
        if "error" in record:
            self._lines.failed_part(record)
            record = unwrap_failure(record, self._id_field)
        given, line = take_id(record, self._id_field)
        lines = self._lines
        ask = read_ask(record, lines.prompt, lines.system)
        if lines.dresses:
            ask = lines.with_attachments(ask, record, path)
        if given is None:
            prompt_id = self._ids.made(auto_id(ask), place)
        else:
            prompt_id = self._ids.given(given, place)
            if prompt_id is None:
                return 1
        if lines.dresses:
            ask = lines.with_examples(ask)
        return ask.to_prompt(prompt_id, index=index, line_number=line_number, line=line)

    def _expanded(self, record: dict[str, Any], path: str, place: int, line_number: int, index: int) -> Row | int:
        """All prompts of a record, or the one that a line of an errors file stands for; else as ``_single``."""
        part: Variant | None = None
        if "error" in record:
            part = self._lines.failed_part(record)
            record = unwrap_failure(record, self._id_field)
        variants = self._lines.expansion.variants if part is None else (part,)
        given, line = take_id(record, self._id_field)
        asked = self._lines.asked(record, variants, path)
        row_id: PromptId | None = given
        if given is None:
            row_id = self._ids.made(self._lines.row_digest(line, asked), place)
        else:
            # The ids that are made are texts, so that 1 and "1" would make the same ones.
            text = str(given)
            found = self._ids.given(text, place) if part is None else self._ids.given_part(text, part.suffix, place)
            if found is None:
                return len(variants)
            row_id = given if found == text else found
        asked = {name: self._lines.with_examples(ask, name) for name, ask in asked.items()}
        return [
            self._lines.prompt_of(
                asked[variant.template], variant, row_id, index=index + number, line_number=line_number, line=line
            )
            for number, variant in enumerate(variants)
        ]


def _items(rows: Iterable[Row]) -> Iterator[Prompt | InputFault]:
    for row in rows:
        if isinstance(row, list):
            yield from row
        else:
            yield row


def _index_of(row: Row) -> int:
    return (row[0] if isinstance(row, list) else row).index


def draw(items: Iterable[T], count: int, seed: int) -> list[T]:
    """A uniform sample of ``count`` items in their order, all where there are no more (reservoir sampling)."""
    # Only random() gives the same numbers in every version of Python.
    chance = random.Random(seed).random
    drawn: list[tuple[int, T]] = []
    for position, item in enumerate(items):
        if position < count:
            drawn.append((position, item))
        elif (slot := int(chance() * (position + 1))) < count:
            drawn[slot] = (position, item)
    drawn.sort(key=lambda pair: pair[0])
    return [item for _, item in drawn]


def _iter_records(path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """1-based line number of each record with its object, or with what is wrong with it."""
    name = (os.path.splitext(path)[0] if compression_of(path) else path).lower()
    if name.endswith(".parquet"):
        yield from iter_parquet_rows(path)
        return
    stream = open_input(path)
    try:
        if name.endswith((".csv", ".tsv")):
            yield from iter_rows(stream, path, delimiter="\t" if name.endswith(".tsv") else ",")
            return
        for line_number, line in iter_lines(stream):
            try:
                wrapped = _ERROR_LINE_LEVELS if b'"error"' in line else 0
                record: dict[str, Any] | str = parse_object(line, max_depth=MAX_INPUT_DEPTH + wrapped)
            except ValueError as error:
                record = str(error)
            yield line_number, record
    except OSError as error:
        raise PromptFileError(path, f"cannot be read ({error.strerror or error})") from error
    finally:
        if path != "-":
            stream.close()


def _is_stream(path: str) -> bool:
    """Whether a path gives its content once: a pipe, a socket, a terminal or another device."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
