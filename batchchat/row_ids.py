"""The ids of the input's lines: each once, or told where it stood before."""

from collections.abc import Callable, Mapping, Sequence

from batchchat.ids import IdTable
from batchchat.input_settings import OnDuplicate
from batchchat.records import PromptId
from batchchat.seen_ids import SeenIds

__all__ = ["LINE_BITS", "LINE_MASK", "RowIds", "ToldIds"]

# A place is one number: which path, and in these bits which line of it.
LINE_BITS = 40
LINE_MASK = (1 << LINE_BITS) - 1


class RowIds:
    """Ids seen so far in one reading, with the places where they stood.

    Args:
        paths: The input files, for messages.
        known: See ``SeenIds``; None where the ids of the lines are not those of the answers.
    """

    def __init__(self, paths: Sequence[str], on_duplicate: OnDuplicate, known: IdTable | None = None) -> None:
        self._paths, self._on_duplicate = paths, on_duplicate
        self._known = SeenIds(known) if known else None
        self._seen = self._known or IdTable()
        self._last_suffix = IdTable()
        self._parts = IdTable()
        self._part_rows = IdTable()
        self._has_parts = False

    def made(self, digest: str, place: int) -> str:
        """The id of a line that brings none, of a digest of what it asks."""
        free = not (self._has_parts and digest in self._part_rows) and self._seen.add(digest, place)
        return digest if free else self._renamed(digest, place)

    def given(self, row_id: PromptId, place: int) -> PromptId | None:
        """The id that a line goes by, or None where it is to be passed over.

        Raises:
            ValueError: The id has been seen, and that is an error.
        """
        if not self._has_parts and self._seen.add(row_id, place):
            return row_id
        first = self._part_rows.get(row_id) if self._has_parts else None
        if first is None and self._seen.add(row_id, place):
            return row_id
        return self._repeated(row_id, self._seen.get(row_id) if first is None else first, place)

    def given_standing(self, row_id: PromptId, place: int, fingerprint: Callable[[str], int | None], text: str) -> bool:
        """Whether a line's stored answer stands; it is noted then, where nothing is odd about it.

        Args:
            fingerprint: Gives that of the line's text, None where any answer stands.
        """
        known = self._known
        return known is not None and not self._has_parts and known.add_standing(row_id, place, fingerprint, text)

    def given_part(self, row_id: PromptId, suffix: str, place: int) -> PromptId | None:
        """As ``given``, for a line that stands for one of the prompts of an input line, as an errors file's does.

        Raises:
            ValueError: That prompt has been seen, and that is an error.
        """
        prompt_id = f"{row_id}{suffix}"
        first = self._seen.get(row_id)
        if first is None and self._parts.add(prompt_id, place):
            self._part_rows.put(row_id, place)
            self._has_parts = True
            return row_id
        return self._repeated(row_id, self._parts.get(prompt_id) if first is None else first, place, prompt_id)

    def _repeated(
        self, row_id: PromptId, first: int | None, place: int, told: PromptId | None = None
    ) -> PromptId | None:
        if self._on_duplicate == "first":
            return None
        if self._on_duplicate == "suffix":
            return self._renamed(row_id, place)
        first = first or 0
        where = f"{self._paths[first >> LINE_BITS]}:{first & LINE_MASK}"
        raise ValueError(
            f"duplicate id {row_id if told is None else told!r} (first at {where}), expected each id once; "
            "--on-duplicate first passes over it, --on-duplicate suffix renames it"
        )

    def _renamed(self, taken: PromptId, place: int) -> str:
        """``taken-2``, ``taken-3`` …, the next that is free."""
        number = (self._last_suffix.get(taken) or 1) + 1
        while not self._seen.add(renamed := f"{taken}-{number}", place):
            number += 1
        self._last_suffix.put(taken, number)
        return renamed


class ToldIds(RowIds):
    """Ids that another reading of the whole input found.

    Args:
        ids: By the number of the line.
    """

    def __init__(self, ids: Mapping[int, PromptId]) -> None:
        super().__init__((), "error")
        self._ids = ids

    def made(self, digest: str, place: int) -> str:
        """See ``RowIds.made``."""
        return str(self._ids[place & LINE_MASK])

    def given(self, row_id: PromptId, place: int) -> PromptId | None:
        """See ``RowIds.given``."""
        return self._ids[place & LINE_MASK]

    def given_part(self, row_id: PromptId, suffix: str, place: int) -> PromptId | None:
        """See ``RowIds.given_part``."""
        return self._ids[place & LINE_MASK]
