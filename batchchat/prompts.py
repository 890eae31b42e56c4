"""The input as a stream of prompts and faults; nothing grows with its length but the table of ids.

Files are opened one after another and read as they are asked for. A line is parsed in ``input_records``, what it
asks for is found in ``input_lines``; this module gives it its id, index and place, and picks by limit and sample.
"""

import os
import random
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from batchchat.expansion import Variant
from batchchat.failed_lines import kept_line, unwrap_failure
from batchchat.ids import IdTable
from batchchat.input_lines import PlainLine, is_plain, read_ask, take_id
from batchchat.input_records import iter_plain_records, iter_records
from batchchat.input_settings import InputSettings, OnDuplicate
from batchchat.line_prompts import LinePrompts, auto_id
from batchchat.one_line import one_line
from batchchat.records import InputFault, Prompt, PromptId
from batchchat.row_ids import LINE_BITS, LINE_MASK, RowIds, ToldIds

__all__ = ["Answered", "InputSettings", "OnDuplicate", "PromptReader", "Stored", "auto_id", "draw"]

T = TypeVar("T")


class Answered(Enum):
    """Stands in the place of a prompt whose stored answer stands, where no more need be known of it."""

    HERE = 1


class Stored(NamedTuple):
    """Stored answers that a reading is compared with.

    Attributes:
        ids: Of the answers, each with its fingerprint; none is added from now on.
        plain: The fingerprint of a prompt that is a text and nothing else, None for any; None where that is not known.
    """

    ids: IdTable
    plain: Callable[[str], int | None] | None = None


# What a line makes: its one prompt or fault, or a list of all its prompts where there may be several.
Row = Prompt | InputFault | list[Prompt] | Answered


class PromptReader:
    """Prompts and faults of the whole input, in its order; each iteration reads anew.

    Attributes:
        variants: How many prompts a line makes.
        path: The file of the row that was told last, in a reading that keeps no rows back; empty before the first.

    Raises:
        ConfigError: A template is none, or the variants of a line cannot be made.
        PromptFileError: The file of examples cannot be used.
    """

    def __init__(self, settings: InputSettings) -> None:
        self.settings = settings
        self._lines = LinePrompts(settings, iter_records)
        self.variants = len(self._lines.expansion.variants)
        self.path = ""
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
        return cast("Iterator[Prompt | InputFault]", self.against(None))

    def against(self, stored: Stored | None) -> Iterator[Prompt | InputFault | Answered]:
        """As iterating; ``Answered`` for a plain prompt whose stored answer is seen to stand, which takes less time.

        Raises:
            PromptFileError: As iterating does.
        """
        if self._lines.expansion:  # whose ids are those of its lines
            stored = None
        count = self.settings.sample
        if count is None:
            rows: Iterable[Row] = self._limited(stored)
        elif not self.reiterable:
            rows = draw(self._limited(_ids_only(stored)), count, self.settings.seed)
        else:
            rows = self._sampled(count, _ids_only(stored))
        return _items(rows) if self._lines.expansion else cast("Iterator[Prompt | InputFault | Answered]", iter(rows))

    def _limited(self, stored: Stored | None) -> Iterator[Row]:
        rows = _Reading(self.settings, self._lines, stored).rows(self._enter)
        return rows if self.settings.limit is None else islice(rows, self.settings.limit)

    def _enter(self, path: str) -> None:
        self.path = path

    def told(
        self, path: str, records: Iterable[tuple[int, dict[str, Any] | str]], ids: Mapping[int, PromptId]
    ) -> Iterator[tuple[int, list[Prompt]]]:
        """The prompts of some lines of a file, whose ids another reading found; their indexes mean nothing.

        Args:
            records: Line numbers and objects, as the file has them; lines that ``ids`` does not tell are passed over.
            ids: By line number, the line's id.

        Raises:
            ValueError: A line makes no prompt.
        """
        reading = _Reading(self.settings, self._lines, None, ToldIds(ids))
        for line_number, record in records:
            if line_number in ids:
                if isinstance(record, str):
                    raise ValueError(record)
                yield line_number, reading.prompts(record, path, line_number)

    def _sampled(self, count: int, stored: Stored | None) -> Iterator[Row]:
        """Draws indexes in one reading, so that no more than they are kept, and tells their rows in another."""
        if self._sample is None:
            indexes = map(_index_of, self._limited(stored))
            self._sample = array("Q", draw(indexes, count, self.settings.seed))
        wanted = iter(self._sample)
        index = next(wanted, None)
        if index is None:
            return
        for row in self._limited(stored):
            if _index_of(row) == index:
                yield row
                index = next(wanted, None)
                if index is None:
                    return


class _Reading:
    """One reading of the input and what it must remember from line to line."""

    def __init__(
        self, settings: InputSettings, lines: LinePrompts, stored: Stored | None, ids: RowIds | None = None
    ) -> None:
        self._settings, self._lines = settings, lines
        self._id_field = settings.id_field
        self._expands = bool(lines.expansion)
        templates = lines.prompt is not None or lines.system is not None
        self._takes_plain = settings.id_field is None and not (templates or lines.dresses)
        known = None if stored is None else stored.ids
        self._ids = RowIds(settings.paths, settings.on_duplicate, known) if ids is None else ids
        self._answers = None if stored is None else stored.plain

    def prompts(self, record: dict[str, Any], path: str, line_number: int) -> list[Prompt]:
        """What one line makes.

        Raises:
            ValueError: It makes no prompt.
        """
        row = (self._expanded if self._expands else self._single)(record, path, line_number, line_number, 0)
        return row if isinstance(row, list) else [row] if isinstance(row, Prompt) else []

    def rows(self, enter: Callable[[str], None]) -> Iterator[Row]:
        """What each line makes; nothing is told of a line that is passed over.

        Args:
            enter: Told of each file before its first line.
        """
        index = 0
        make: Callable[[dict[str, Any], str, int, int, int], Row | int]
        make = self._expanded if self._expands else self._single
        may_be_plain = self._takes_plain and not self._expands
        for number, path in enumerate(self._settings.paths):
            enter(path)
            for line_number, record in iter_plain_records(path, may_be_plain=may_be_plain):
                if isinstance(record, str):
                    row: Row | int = InputFault(
                        path=path, line_number=line_number, index=index, reason=one_line(record)
                    )
                else:
                    place = number << LINE_BITS | line_number
                    try:
                        if isinstance(record, PlainLine):
                            row = self._plain(record.id, record.prompt, {"prompt": record.prompt}, place, index)
                        else:
                            row = make(record, path, place, line_number, index)
                    except ValueError as error:
                        fields = msgspec.structs.asdict(record) if isinstance(record, PlainLine) else record
                        kept = kept_line(fields, self._id_field) if "error" in fields else fields
                        reason = one_line(str(error))
                        row = InputFault(path=path, line_number=line_number, index=index, reason=reason, line=kept)
                if type(row) is Prompt or row is Answered.HERE:
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
            return self._plain(line.pop("id"), record["prompt"], line, place, index)
        if "error" in record:
            self._lines.failed_part(record)
            record = unwrap_failure(record, self._id_field)
        given, line = take_id(record, self._id_field)
        lines = self._lines
        ask = read_ask(record, lines.prompt, lines.system)
        if lines.dresses:
            ask = lines.with_attachments(ask, record, path)
        prompt_id: PromptId | None
        if given is None:
            prompt_id = self._ids.made(auto_id(ask), place)
        else:
            prompt_id = self._ids.given(given, place)
            if prompt_id is None:
                return 1
        if lines.dresses:
            ask = lines.with_examples(ask)
        return ask.to_prompt(prompt_id, index=index, line_number=line_number, line=line)

    def _plain(self, given: str, text: str, line: dict[str, Any], place: int, index: int) -> Row | int:
        """As ``_single``, of a line that is plain; see ``is_plain``."""
        if self._answers and self._ids.given_standing(given, place, self._answers, text):
            return Answered.HERE
        prompt_id = self._ids.given(given, place)
        if prompt_id is None:
            return 1
        messages = [{"role": "user", "content": text}]
        return Prompt(id=prompt_id, index=index, line_number=place & LINE_MASK, messages=messages, line=line)

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


def _ids_only(stored: Stored | None) -> Stored | None:
    """What is drawn from must be told as it is."""
    return None if stored is None else Stored(stored.ids)


def _items(rows: Iterable[Row]) -> Iterator[Prompt | InputFault | Answered]:
    for row in rows:
        if isinstance(row, list):
            yield from row
        else:
            yield row


def _index_of(row: Row) -> int:
    return cast("Prompt | InputFault", row[0] if isinstance(row, list) else row).index


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


def _is_stream(path: str) -> bool:
    """Whether a path gives its content once: a pipe, a socket, a terminal or another device."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
