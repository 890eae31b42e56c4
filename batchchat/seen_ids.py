"""Ids that a reading of the input has come to, each with its place; of those with a stored answer little is kept."""

from array import array
from collections.abc import Callable

from batchchat.ids import IdTable
from batchchat.records import PromptId

__all__ = ["SeenIds"]


class SeenIds:
    """Ids with the places where they stood: 4 or 8 bytes for one that the table of stored answers has, else a record.

    Args:
        known: Ids of the stored answers; none is added to it from now on.
    """

    __slots__ = ("_known", "_others", "_places")

    def __init__(self, known: IdTable) -> None:
        known.number()
        self._known, self._others = known, IdTable()
        # One more than the place, 0 for none yet; wider from the first place on that needs it.
        self._places = array("I", [0]) * len(known)

    def add(self, id: PromptId, place: int) -> bool:
        """Notes where an id stands; False, and its first place stays, where it was noted before."""
        found = self._known.numbered(id)
        if found is None:
            return self._others.add(id, place)
        if self._places[found[0]]:
            return False
        self._note(found[0], place)
        return True

    def get(self, id: PromptId) -> int | None:
        """Where the id stands, or None where it was not noted."""
        found = self._known.numbered(id)
        if found is None:
            return self._others.get(id)
        return self._places[found[0]] - 1 if self._places[found[0]] else None

    def add_standing(self, id: PromptId, place: int, fingerprint: Callable[[str], int | None], text: str) -> bool:
        """As ``add``, of an id whose stored answer has the text's fingerprint only; None for any answer."""
        found = self._known.numbered(id)
        if found is None or self._places[found[0]]:
            return False
        wanted = fingerprint(text)
        if wanted is not None and wanted != found[1]:
            return False
        self._note(found[0], place)
        return True

    def _note(self, number: int, place: int) -> None:
        try:
            self._places[number] = place + 1
        except OverflowError:
            self._places = array("Q", self._places)
            self._places[number] = place + 1
