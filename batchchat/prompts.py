"""The input as a stream of prompts and faults; nothing grows with its length but the table of ids.

Files are opened one after another and read as they are asked for. A line is parsed here or in ``csv_rows``, what it
asks for is found in ``input_lines``; this module gives it its id, index and place, and picks by limit and sample.
"""

import os
import random
import stat
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from batchchat.compress import compression_of, open_input
from batchchat.csv_rows import iter_rows
from batchchat.errors import PromptFileError
from batchchat.ids import IdTable
from batchchat.input_lines import Ask, read_ask, take_id, unwrap_failure
from batchchat.input_settings import InputSettings, OnDuplicate
from batchchat.jsonl import MAX_INPUT_DEPTH, dump_canonical, iter_lines, parse_object
from batchchat.parquet_rows import iter_parquet_rows
from batchchat.records import InputFault, Prompt, PromptId

if TYPE_CHECKING:
    from batchchat.templates import Template

__all__ = ["InputSettings", "OnDuplicate", "PromptReader", "auto_id", "draw"]

T = TypeVar("T")
# An id's place is kept in one number: which path, and which line of it.
_LINE_BITS = 40
# An errors file's line holds its input so many levels deep, in its batch form.
_ERROR_LINE_LEVELS = 2


class PromptReader:
    """Prompts and faults of the whole input, in its order; each iteration reads anew.

    Raises:
        ConfigError: A template is none.
    """

    def __init__(self, settings: InputSettings) -> None:
        self.settings = settings
        self._prompt = _compiled(settings.prompt_template, "prompt template")
        self._system = _compiled(settings.system_template, "system template")
        self._sample: array[int] | None = None

    @property
    def reiterable(self) -> bool:
        """Whether the input can be read more than once: no standard input, pipe or device among the paths."""
        return not any(path == "-" or _is_stream(path) for path in self.settings.paths)

    def __iter__(self) -> Iterator[Prompt | InputFault]:
        """Reads lazily; a line never raises, it is told as an ``InputFault``.

        Raises:
            PromptFileError: A file as a whole: missing, not readable, a folder, wrong or damaged compression, UTF-16.
        """
        count = self.settings.sample
        if count is None:
            return self._limited()
        if not self.reiterable:
            return iter(draw(self._limited(), count, self.settings.seed))
        return self._sampled(count)

    def _limited(self) -> Iterator[Prompt | InputFault]:
        items = _Reading(self.settings, self._prompt, self._system).items()
        return items if self.settings.limit is None else islice(items, self.settings.limit)

    def _sampled(self, count: int) -> Iterator[Prompt | InputFault]:
        """Draws indexes in one reading, so that no more than they are kept, and tells their items in another."""
        if self._sample is None:
            indexes = (item.index for item in self._limited())
            self._sample = array("Q", draw(indexes, count, self.settings.seed))
        wanted = iter(self._sample)
        index = next(wanted, None)
        if index is None:
            return
        for item in self._limited():
            if item.index == index:
                yield item
                index = next(wanted, None)
                if index is None:
                    return


class _Reading:
    """One reading of the input and what it must remember from line to line."""

    def __init__(self, settings: InputSettings, prompt: "Template | None", system: "Template | None") -> None:
        self._settings, self._prompt, self._system = settings, prompt, system
        self._id_field, self._on_duplicate = settings.id_field, settings.on_duplicate
        self._seen = IdTable()
        self._last_suffix = IdTable()

    def items(self) -> Iterator[Prompt | InputFault]:
        index = 0
        for number, path in enumerate(self._settings.paths):
            for line_number, record in _iter_records(path):
                item = self._item(record, path, number << _LINE_BITS | line_number, line_number, index)
                index += 1
                if item is not None:
                    yield item

    def _item(
        self, record: dict[str, Any] | str, path: str, place: int, line_number: int, index: int
    ) -> Prompt | InputFault | None:
        """The prompt or fault of one record; None where it is a duplicate to pass over."""
        if isinstance(record, str):
            return InputFault(path=path, line_number=line_number, index=index, reason=record)
        try:
            if "error" in record:
                record = unwrap_failure(record, self._id_field)
            given, line = take_id(record, self._id_field)
            ask = read_ask(record, self._prompt, self._system)
            prompt_id = self._new_id(ask, place) if given is None else self._checked_id(given, place)
        except ValueError as error:
            return InputFault(path=path, line_number=line_number, index=index, reason=str(error), line=record)
        if prompt_id is None:
            return None
        return ask.to_prompt(prompt_id, index=index, line_number=line_number, line=line)

    def _new_id(self, ask: Ask, place: int) -> PromptId:
        digest = auto_id(ask)
        return digest if self._seen.add(digest, place) else self._renamed(digest, place)

    def _checked_id(self, given: PromptId, place: int) -> PromptId | None:
        """The id that the prompt goes by, or None where it is to be passed over.

        Raises:
            ValueError: The id has been seen, and that is an error.
        """
        if self._seen.add(given, place):
            return given
        if self._on_duplicate == "first":
            return None
        if self._on_duplicate == "suffix":
            return self._renamed(given, place)
        first = self._seen.get(given) or 0
        where = f"{self._settings.paths[first >> _LINE_BITS]}:{first & ((1 << _LINE_BITS) - 1)}"
        raise ValueError(
            f"duplicate id {given!r} (first at {where}), expected each id once; "
            "--on-duplicate first passes over it, --on-duplicate suffix renames it"
        )

    def _renamed(self, taken: PromptId, place: int) -> str:
        """``taken-2``, ``taken-3`` …, the next that is free."""
        number = (self._last_suffix.get(taken) or 1) + 1
        while not self._seen.add(renamed := f"{taken}-{number}", place):
            number += 1
        self._last_suffix.put(taken, number)
        return renamed


def auto_id(ask: Ask) -> str:
    """The id of a prompt that brings none: ``p-`` and 16 hex digits of BLAKE2b over what is asked."""
    parts = (("turns", ask.turns), ("system", ask.system), ("model", ask.model), ("params", ask.params))
    asked = {"messages": ask.messages} | {name: value for name, value in parts if value}
    return f"p-{blake2b(dump_canonical(asked), digest_size=8).hexdigest()}"


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


def _compiled(source: str | None, what: str) -> "Template | None":
    if source is None:
        return None
    # Jinja takes 50 ms to import, which a run without templates need not wait for.
    from batchchat.templates import Template

    return Template(source, what=what)


def _is_stream(path: str) -> bool:
    """Whether a path gives its content once: a pipe, a socket, a terminal or another device."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
